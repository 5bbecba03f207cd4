"""performer-pytorch: attention by random features, which are buffers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from performer_pytorch import Performer, PerformerLM
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal, padding_mask

LIBRARY = "performer_pytorch"
TRAITS = frozenset(["attention", "norm", "residual"])
SMALL: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "ff_mult": 2}


class Series(nn.Module):
    """A class of a series."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(4, 32), nn.Linear(32, 3)
        self.body = Performer(**SMALL, feature_redraw_interval=None, generalized_attention=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each series."""
        out: Tensor = self.head(self.body(self.enter(x)).mean(1))
        return out


def tagged(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tokens that there are."""
    return F.cross_entropy(model(batch["ids"], mask=batch["mask"].bool()).flatten(0, 1), batch["tags"].flatten())


def padded() -> dict[str, Tensor]:
    """Sequences, two of which end early, and a class for each token."""
    mask = padding_mask([8, 8, 6, 5], 8)
    tags = integers(0, 3, 4, 8, seed=1).masked_fill(mask == 0, -100)
    return {"ids": integers(0, 20, 4, 8), "mask": mask, "tags": tags}


def programs() -> Iterator[Program]:
    """Tokens with padding, under two kinds of positions, and series."""
    language = {"num_tokens": 20, "max_seq_len": 8, "feature_redraw_interval": None, **SMALL}
    traits = TRAITS | {"ids", "labels", "padding", "attention_mask", "embedding", "dict"}
    out = lambda **more: PerformerLM(**language, **more)  # noqa: E731
    bare = {"unused": ["body.to_out.*"]}  # its own vocabulary is asked for nothing
    for name, more in {"": {}, "-scalenorm": {"use_scalenorm": True, "ff_glu": True}}.items():
        model = lambda more=more: Tags(out(**more))  # noqa: E731
        yield Program(
            f"{LIBRARY}/PerformerLM{name}", LIBRARY, model, padded, tagged, 0.05, lr=3e-3, traits=traits, given=bare
        )
    yield Program(
        f"{LIBRARY}/Performer", LIBRARY, Series, lambda: (normal(6, 8, 4), classes(6, 3)), cross_entropy, 0.05, lr=3e-3,
        traits=TRAITS | {"labels", "tuple", "series"},
    )  # fmt: skip


class Tags(nn.Module):
    """A language model, and classes for its tokens."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of each token."""
        out: Tensor = self.head(self.body(ids, mask=mask, return_encodings=True))
        return out
