"""axial-attention: images and videos, along one axis at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axial_attention import AxialAttention, AxialImageTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, squared_error


class Pixels(nn.Module):
    """A number for each pixel, by a transformer that is reversible."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 1, 1)
        self.body = AxialImageTransformer(dim=16, depth=2, heads=2, axial_pos_emb_shape=(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Of shape (batch, 1, height, width)."""
        out: Tensor = self.leave(self.body(self.enter(x)))
        return out


class Video(nn.Module):
    """A class of a video: attention along time, height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Conv3d(3, 16, (1, 2, 2), (1, 2, 2)), nn.Linear(16, 3)
        self.attend, self.norm = AxialAttention(dim=16, dim_index=1, num_dimensions=3, heads=2), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each video."""
        x = F.gelu(self.enter(x))
        x = x + self.attend(x)
        out: Tensor = self.head(self.norm(x.mean((2, 3, 4))))
        return out


def programs() -> Iterator[Program]:
    """Pixels, then videos."""
    common: dict[str, Any] = {"lr": 3e-3}
    yield Program(
        "axial_attention/AxialImageTransformer", "axial_attention", Pixels,
        lambda: (normal(2, 3, 8, 8), normal(2, 1, 8, 8, seed=1)), squared_error, 0.1,
        traits=frozenset(["image", "dense", "attention", "norm", "residual", "regression", "tuple"]), **common,
    )  # fmt: skip
    yield Program(
        "axial_attention/AxialAttention", "axial_attention", Video,
        lambda: (normal(6, 3, 4, 8, 8), classes(6, 3)), cross_entropy, 0.02,
        traits=frozenset(["attention", "norm", "residual", "conv", "labels", "tuple"]), **common,
    )  # fmt: skip
