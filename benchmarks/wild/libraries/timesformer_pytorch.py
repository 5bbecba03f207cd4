"""timesformer-pytorch: videos, with frames that may be missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timesformer_pytorch import TimeSformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal

SIZE = {"dim": 32, "image_size": 16, "patch_size": 8, "num_frames": 4, "num_classes": 3, "depth": 1, "heads": 2}
TRAITS = "attention norm residual labels"


def videos() -> dict[str, Tensor]:
    """Six videos, two of which are shorter."""
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[1, 2:] = mask[4, 3:] = False
    return {"video": normal(6, 4, 3, 16, 16), "mask": mask, "label": classes(6, 3)}


def masked(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the videos."""
    return F.cross_entropy(model(batch["video"], mask=batch["mask"]), batch["label"])


def programs() -> Iterator[Program]:
    """Whole videos with rotary positions, and shorter ones with learned positions."""
    library = "timesformer_pytorch"
    yield Program(
        f"{library}/TimeSformer", library, lambda: TimeSformer(**SIZE, dim_head=16),
        lambda: (normal(6, 4, 3, 16, 16), classes(6, 3)), cross_entropy, 0.01,
        traits=frozenset(f"{TRAITS} tuple".split()),
    )  # fmt: skip
    yield Program(
        f"{library}/TimeSformer-mask", library, lambda: TimeSformer(**SIZE, dim_head=16, rotary_emb=False),
        videos, masked, 0.01, traits=frozenset(f"{TRAITS} dict attention_mask padding".split()),
    )  # fmt: skip
