"""rtdl_revisiting_models: tables, by a perceptron, a residual network and a transformer of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rtdl_revisiting_models as rtdl
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, integers, normal


def rows() -> dict[str, Tensor]:
    """Rows of numbers and categories, a class and a number for each."""
    return {
        "numbers": normal(8, 5),
        "categories": integers(0, 3, 8, 2, seed=1),
        "label": classes(8, 3),
        "value": normal(8, seed=2),
    }


def labels(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy, from numbers alone."""
    return F.cross_entropy(model(batch["numbers"]), batch["label"])


def values(model: nn.Module, batch: Any) -> Tensor:
    """The squared error, from numbers and categories."""
    return F.mse_loss(model(batch["numbers"], batch["categories"])[:, 0], batch["value"])


def programs() -> Iterator[Program]:
    """Each with the dropout of the paper."""
    library = "rtdl_revisiting_models"
    table, dropout = frozenset(["table", "dict", "dropout"]), {"stochastic": True}
    yield Program(
        f"{library}/MLP",
        library,
        lambda: rtdl.MLP(d_in=5, d_out=3, n_blocks=2, d_block=64, dropout=0.1),
        rows,
        labels,
        0.03,
        lr=3e-3,
        given=dropout,
        traits=table | {"labels"},
    )
    yield Program(
        f"{library}/ResNet",
        library,
        lambda: rtdl.ResNet(
            d_in=5, d_out=3, n_blocks=2, d_block=32, d_hidden=None, d_hidden_multiplier=2.0, dropout1=0.15, dropout2=0.0
        ),
        rows,
        labels,
        0.02,
        lr=3e-3,
        given=dropout,
        traits=table | {"labels", "norm", "batchnorm", "residual"},
    )
    yield Program(
        f"{library}/FTTransformer",
        library,
        lambda: rtdl.FTTransformer(
            n_cont_features=5, cat_cardinalities=[3, 3], d_out=1, n_blocks=2, d_block=32, attention_n_heads=2,
            attention_dropout=0.2, ffn_d_hidden=None, ffn_d_hidden_multiplier=2.0, ffn_dropout=0.1,
            residual_dropout=0.0,
        ),
        rows,
        values,
        0.03,
        lr=3e-3,
        steps=300,
        given=dropout,
        traits=table | {"regression", "attention", "norm", "residual", "embedding"},
    )  # fmt: skip
