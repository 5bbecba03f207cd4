"""deepctr-torch: whether something is clicked, from a table of categories and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN, AutoInt, DeepFM, xDeepFM
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal

LIBRARY = "deepctr_torch"
COLUMNS = [*(SparseFeat(f"category {number}", 6, 8) for number in range(3)), DenseFeat("numbers", 4)]


def table() -> tuple[Tensor, Tensor]:
    """Rows of three categories and four numbers, and whether each is clicked."""
    rows = torch.cat([integers(0, 6, 8, 3).float(), normal(8, 4, seed=1)], 1)
    return rows, (torch.arange(8) % 2).float()[:, None]


def clicked(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the library trains with."""
    rows, label = batch
    return F.binary_cross_entropy(model(rows), label)


def rated(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of a rating."""
    rows, label = batch
    return F.mse_loss(model(rows), 2 * label - 1)


def program(
    name: str, model: Callable[[], nn.Module], traits: str = "labels", loss: Any = clicked, **more: Any
) -> Program:
    """A model of rows of a table."""
    every = frozenset(["table", "embedding", "tuple", *traits.split()])
    return Program(f"{LIBRARY}/{name}", LIBRARY, model, table, loss, 0.05, lr=1e-2, traits=every, **more)


def programs() -> Iterator[Program]:
    """Crossed categories in several ways; a rating in place of a click."""
    small: dict[str, Any] = {"dnn_hidden_units": (16, 16), "init_std": 0.1}
    yield program("DeepFM", lambda: DeepFM(COLUMNS, COLUMNS, **small))
    yield program(
        "DeepFM-rating", lambda: DeepFM(COLUMNS, COLUMNS, **small, dnn_use_bn=True, task="regression"),
        "regression norm batchnorm", rated,
    )  # fmt: skip
    yield program("xDeepFM", lambda: xDeepFM(COLUMNS, COLUMNS, **small, cin_layer_size=(8, 4)), "labels conv")
    yield program("AutoInt", lambda: AutoInt(COLUMNS, COLUMNS, **small, att_layer_num=1), "labels attention residual")
    yield program("DCN", lambda: DCN(COLUMNS, COLUMNS, **small), "labels residual")
