"""nystrom-attention: attention by landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nystrom_attention import Nystromformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, integers, normal, padding_mask, squared_error

SIZE = {"dim": 32, "dim_head": 16, "heads": 2, "depth": 1, "num_landmarks": 4, "attn_values_residual_conv_kernel": 3}


class Pooled(nn.Module):
    """Tokens, the encoder under a mask, and a class of the mean over what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(24, 32), nn.Embedding(12, 32)
        self.encoder, self.head = Nystromformer(**SIZE), nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of each sentence."""
        x = self.embed(ids) + self.place.weight
        x = self.encoder(x * mask[..., None], mask=mask) * mask[..., None]
        out: Tensor = self.head(x.sum(1) / mask.sum(1, keepdim=True))
        return out


class Smooth(nn.Module):
    """A number for each moment."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.encoder, self.leave = nn.Linear(3, 32), Nystromformer(**SIZE), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of shape (batch, time, 1)."""
        out: Tensor = self.leave(self.encoder(self.enter(x)))
        return out


def sentences() -> dict[str, Tensor]:
    """Six padded sentences with classes."""
    mask = padding_mask([12, 8, 10, 6, 12, 9], 12)
    return {"ids": integers(1, 24, 6, 12) * mask, "mask": mask.bool(), "label": classes(6, 3)}


def labelled(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the sentences."""
    return F.cross_entropy(model(batch["ids"], mask=batch["mask"]), batch["label"])


def programs() -> Iterator[Program]:
    """Sentences under padding, and series."""
    library, common = "nystrom_attention", "attention norm residual"
    yield Program(
        f"{library}/Nystromformer", library, Pooled, sentences, labelled, 0.02,
        traits=frozenset(f"{common} ids attention_mask padding dict labels embedding".split()),
    )  # fmt: skip
    yield Program(
        f"{library}/Nystromformer-series", library, Smooth,
        lambda: (normal(3, 12, 3), normal(3, 12, 1, seed=1)), squared_error, 0.05, lr=3e-3,
        traits=frozenset(f"{common} regression tuple".split()),
    )  # fmt: skip
