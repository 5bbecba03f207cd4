"""pytorch-crf: tags whose neighbours matter, behind recurrent networks of packed sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import rnn
from torchcrf import CRF

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, padding_mask

LENGTHS = [9, 6, 4]


class Tagger(nn.Module):
    """Embeddings, a recurrent network on packed sequences, and scores for each tag."""

    def __init__(self, recurrent: type[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 24, padding_idx=0)
        self.recurrent = recurrent(24, 24, bidirectional=True, batch_first=True)
        self.head, self.crf = nn.Linear(48, 4), CRF(4, batch_first=True)

    def forward(self, ids: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """The negative log likelihood of the tags, a mean over tokens."""
        lengths = mask.sum(1).cpu()
        packed = rnn.pack_padded_sequence(self.embedding(ids), lengths, batch_first=True)
        states, _ = rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        likelihood: Tensor = self.crf(self.head(states), tags, mask=mask, reduction="token_mean")
        return -likelihood


def tagged() -> dict[str, Tensor]:
    """Padded sequences, their tags and their mask."""
    mask = padding_mask(LENGTHS, 9).bool()
    return {"ids": integers(1, 40, 3, 9) * mask, "tags": integers(0, 4, 3, 9, seed=1) * mask, "mask": mask}


def likelihood(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the model returns."""
    loss: Tensor = model(batch["ids"], batch["tags"], batch["mask"])
    return loss


def programs() -> Iterator[Program]:
    """Behind an LSTM and behind a GRU."""
    traits = frozenset(["ids", "attention_mask", "padding", "packed", "recurrent", "embedding", "labels", "dict"])
    for name, recurrent in (("LSTM", nn.LSTM), ("GRU", nn.GRU)):
        yield Program(
            f"torchcrf/CRF-{name}",
            "torchcrf",
            lambda recurrent=recurrent: Tagger(recurrent),
            tagged,
            likelihood,
            0.01,
            lr=1e-2,
            traits=traits,
        )
