"""x-unet: a U-net with attention, and with U-nets inside of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from x_unet import NestedResidualUnet, XUnet

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal, squared_error

LIBRARY = "x_unet"
TRAITS = frozenset(["image", "conv", "norm", "residual", "regression", "dense", "tuple"])
SMALL: dict[str, Any] = {
    "dim": 8,
    "dim_mults": (1, 2),
    "num_blocks_per_stage": (1, 1),
    "num_self_attn_per_stage": (0, 1),
    "nested_unet_depths": (0, 0),
    "attn_heads": 2,
    "attn_dim_head": 8,
}


class Nested(nn.Module):
    """A nested U-net between two convolutions, over a video of one frame."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)
        self.body = NestedResidualUnet(16, depth=2, dim_inner=8, add_residual=True)

    def forward(self, x: Tensor) -> Tensor:
        """An image of the same size."""
        out: Tensor = self.leave(self.body(self.enter(x)[:, :, None])[:, :, 0])
        return out


def pairs() -> tuple[Tensor, Tensor]:
    """Images, and what is to be told of each of their pixels."""
    return normal(2, 3, 8, 8), normal(2, 3, 2, 2, seed=1).repeat_interleave(4, 2).repeat_interleave(4, 3)


def program(name: str, model: Any, traits: tuple[str, ...] = ()) -> Program:
    """A network from image to image."""
    every = TRAITS | set(traits)
    return Program(f"{LIBRARY}/{name}", LIBRARY, model, pairs, squared_error, 0.1, 60, 5e-3, traits=every)


def programs() -> Iterator[Program]:
    """The usual blocks, those of ConvNeXt, and the nested network alone."""
    yield program("XUnet", lambda: XUnet(**SMALL), ("attention",))
    yield program("XUnet-nested", lambda: XUnet(**{**SMALL, "nested_unet_depths": (1, 0)}), ("attention",))
    yield program("XUnet-convnext", lambda: XUnet(**SMALL, use_convnext=True), ("attention",))
    yield program("NestedResidualUnet", Nested)
