"""isab-pytorch: sets that are read through a few latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isab_pytorch import ISAB
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal, padding_mask, squared_error

LIBRARY = "isab_pytorch"
TRAITS = frozenset(["attention", "norm", "residual"])


class Sets(nn.Module):
    """A block between two linear layers, for each member, or for the mean of the set."""

    def __init__(self, out: int, whole: bool = False, tokens: bool = False, **more: Any) -> None:
        super().__init__()
        self.whole = whole
        self.enter: nn.Module = nn.Embedding(20, 16) if tokens else nn.Linear(4, 16)
        self.block, self.norm = ISAB(dim=16, heads=2, num_latents=4, **more), nn.LayerNorm(16)
        self.leave = nn.Linear(16, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What is told of each member, or of each set."""
        x = self.enter(x)
        x = self.norm(x + self.block(x, mask=None if mask is None else mask.bool())[0])
        out: Tensor = self.leave(x.mean(1) if self.whole else x)
        return out


def tagged(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the members that there are."""
    return F.cross_entropy(model(batch["x"], mask=batch["mask"]).flatten(0, 1), batch["y"].flatten())


def padded() -> dict[str, Tensor]:
    """Sets of several sizes, and a class for each member."""
    mask = padding_mask([6, 6, 4, 3], 6)
    ids = integers(0, 20, 4, 6)
    return {"x": ids, "mask": mask, "y": (ids % 3).masked_fill(mask == 0, -100)}


def programs() -> Iterator[Program]:
    """Numbers of members, classes of padded members, and classes of sets."""
    yield Program(
        f"{LIBRARY}/ISAB", LIBRARY, lambda: Sets(2), lambda: (normal(4, 6, 4), normal(4, 6, 2, seed=1)), squared_error,
        0.2, lr=1e-2, traits=TRAITS | {"regression", "tuple"},
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/ISAB-tokens", LIBRARY, lambda: Sets(3, tokens=True, latent_self_attend=True), padded, tagged, 0.2,
        lr=1e-2, traits=TRAITS | {"ids", "attention_mask", "padding", "labels", "embedding", "dict"},
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/ISAB-inverted", LIBRARY, lambda: Sets(3, whole=True, inverted_attention=True),
        lambda: (normal(6, 5, 4), classes(6, 3)), cross_entropy, 0.05, lr=1e-2, traits=TRAITS | {"labels", "tuple"},
    )  # fmt: skip
