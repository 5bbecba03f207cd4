"""pytorch-tabnet: tables, by masks that choose the features of each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_tabnet.tab_network import TabNet
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, integers, normal


def rows() -> tuple[Tensor, Tensor]:
    """Rows of six numbers and one category, and the class of each."""
    return torch.cat([normal(16, 6), integers(0, 4, 16, 1, seed=1).float()], 1), classes(16, 3)


def sparse_labels(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy, and a little for masks that are not sparse."""
    logits, sparsity = model(batch[0])
    return F.cross_entropy(logits, batch[1]) - 1e-3 * sparsity


def programs() -> Iterator[Program]:
    """One network, with both of its masks."""
    traits = frozenset(["table", "tuple", "labels", "norm", "batchnorm", "attention", "terms", "embedding"])
    for mask in ("sparsemax", "entmax"):
        yield Program(
            f"pytorch_tabnet/TabNet-{mask}",
            "pytorch_tabnet",
            lambda mask=mask: TabNet(
                7, 3, n_d=8, n_a=8, n_steps=3, cat_idxs=[6], cat_dims=[4], cat_emb_dim=[2], virtual_batch_size=16,
                mask_type=mask, group_attention_matrix=torch.eye(7),
            ),
            rows,
            sparse_labels,
            0.01,
            lr=2e-2,
            given={"unused": ["tabnet.initial_bn.*"]},  # the encoder has one of its own
            traits=traits,
        )  # fmt: skip
