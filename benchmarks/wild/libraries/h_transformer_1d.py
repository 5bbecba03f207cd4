"""h-transformer-1d: attention over blocks of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from h_transformer_1d import HTransformer1D
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, padding_mask

SIZE = {"num_tokens": 20, "dim": 32, "depth": 1, "max_seq_len": 16, "heads": 2, "dim_head": 16, "block_size": 4}
TRAITS = "ids attention norm residual embedding"


def next_token(model: nn.Module, ids: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def copied() -> dict[str, Tensor]:
    """Padded sentences, and for each token what it should become."""
    mask = padding_mask([16, 13, 10, 16], 16)
    labels = integers(0, 20, 4, 16, seed=1).masked_fill(mask == 0, -100)
    return {"ids": integers(1, 20, 4, 16) * mask, "mask": mask.bool(), "labels": labels}


def rewritten(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tokens that are there."""
    logits = model(batch["ids"], mask=batch["mask"])
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)


def programs() -> Iterator[Program]:
    """Next tokens, and tokens under padding."""
    library = "h_transformer_1d"
    yield Program(
        f"{library}/HTransformer1D-causal", library, lambda: HTransformer1D(**SIZE, causal=True),
        lambda: integers(0, 20, 3, 16), next_token, 0.15, lr=3e-3, traits=frozenset(f"{TRAITS} causal".split()),
    )  # fmt: skip
    yield Program(
        f"{library}/HTransformer1D", library, lambda: HTransformer1D(**SIZE), copied, rewritten, 0.1, lr=3e-3,
        traits=frozenset(f"{TRAITS} padding attention_mask dict labels masked".split()),
    )  # fmt: skip
