"""A reshape in the place of a transpose: the scores of one label belong to several places."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.rearranged import scrambled, scrambled_sequences
from tests.support.told import told

Layout = Callable[[Tensor], Tensor]
B, T, C = 4, 7, 5


def tokens(x: Tensor, places: int = T) -> Tensor:
    """Scores of a linear layer (B, places, C)."""
    return wide(x, C, places)


def image(x: Tensor, width: int = 8) -> Tensor:
    """Scores of a convolution (B, C, 6, width)."""
    return nn.Conv2d(3, C, 1)(x.new_ones(B, 3, 6, width))  # type: ignore[no-any-return]


def wide(x: Tensor, features: int, places: int = T) -> Tensor:
    """What a linear layer gives at each place, (B, places, features)."""
    return nn.Linear(8, features)(x.new_ones(B, places, 8))  # type: ignore[no-any-return]


MIXED: dict[str, Layout] = {
    "tokens": lambda x: tokens(x).reshape(B, C, T),
    "tokens, as many as twice the classes": lambda x: tokens(x, 2 * C).view(B, C, 2 * C),
    "tokens, flat": lambda x: tokens(x).transpose(1, 2).reshape(-1, C),
    "tokens, before a softmax": lambda x: tokens(x).reshape(B, C, T).log_softmax(1),
    "tokens, behind a dropout": lambda x: F.dropout(tokens(x), 0.1).reshape(B, C, T),
    "an image, channels first": lambda x: image(x).reshape(-1, C),
    "an image, channels first, wide": lambda x: image(x, 2 * C).reshape(-1, C),
    "an image, channels last": lambda x: image(x).permute(0, 2, 3, 1).reshape(B, C, 6, 8),
    "patches": lambda x: wide(x, 4 * C, 9).reshape(B, C, 6, 6),
}
SOUND: dict[str, Layout] = {
    "tokens": lambda x: tokens(x).transpose(1, 2),
    "tokens, flat": lambda x: tokens(x).reshape(-1, C),
    "tokens, shifted": lambda x: tokens(x)[:, :-1].reshape(-1, C),
    "an image": image,
    "an image, flat": lambda x: image(x).permute(0, 2, 3, 1).reshape(-1, C),
    "an image, one axis of places": lambda x: image(x).flatten(2),
    "an image, channels last": lambda x: image(x).permute(0, 2, 3, 1).movedim(-1, 1),
    "all at once": lambda x: nn.Linear(8, C * T)(x.new_ones(B, 8)).reshape(B, C, T),
    "all at once, classes last": lambda x: nn.Linear(8, T * C)(x.new_ones(B, 8)).reshape(-1, C),
    "several places of each": lambda x: wide(x, 3 * C).reshape(B, 3 * T, C).transpose(1, 2),
    "heads merged": lambda x: nn.Linear(8, C)(x.new_ones(B, T, 2, 8)).flatten(2).transpose(1, 2),
    "over the places": lambda x: nn.Linear(8, 9)(x.new_ones(B, C, 4, 8)).reshape(B, C, 36),
    "anchors": lambda x: nn.Conv2d(3, 4 * C, 1)(x.new_ones(B, 3, C, C)).reshape(B, 4, C, C, C).transpose(1, 2),
    "boxes": lambda x: nn.Conv2d(3, 4 * C, 1)(x.new_ones(B, 3, 6, 6)).permute(0, 2, 3, 1).reshape(-1, C),
    "patches": lambda x: (
        wide(x, 4 * C, 9).reshape(B, 3, 3, 2, 2, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, 6, 6)
    ),
    "a sequence of its own": lambda x: nn.GRU(8, C, batch_first=True)(x.new_ones(B, T, 8))[0].transpose(1, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_scores_of_several_places_under_one_label(name: str) -> None:
    """Of any layout, whatever the sizes."""
    assert scrambled(MIXED[name](torch.zeros(1)))


@pytest.mark.parametrize("name", SOUND)
def test_scores_that_belong_together(name: str) -> None:
    """Other ways to the same, and layers that give several places, or classes, at once."""
    assert scrambled(SOUND[name](torch.zeros(1))) == ""


SEQUENCES_MIXED: dict[str, Layout] = {
    "samples first": lambda x: tokens(x).reshape(T, B, C),
    "samples first, a multiple of their number": lambda x: tokens(x, 2 * B).reshape(2 * B, B, C),
    "samples first, before a softmax": lambda x: tokens(x).reshape(T, B, C).log_softmax(-1),
    "samples first, behind a softmax": lambda x: tokens(x).log_softmax(-1).view(T, B, C),
    "classes in the middle": lambda x: nn.Conv1d(3, C, 1)(x.new_ones(B, 3, T)).reshape(T, B, C),
    "classes and places": lambda x: tokens(x).transpose(1, 2).reshape(B, T, C).transpose(0, 1),
}
SEQUENCES_SOUND: dict[str, Layout] = {
    "samples first": lambda x: tokens(x).log_softmax(-1).transpose(0, 1),
    "time first": lambda x: nn.Linear(8, C)(x.new_ones(T, B, 8)).log_softmax(-1),
    "time first, flat": lambda x: nn.Linear(8, C)(x.new_ones(T * B, 8)).reshape(T, B, C),
    "samples first, flat": lambda x: nn.Linear(8, C)(x.new_ones(B * T, 8)).reshape(B, T, C).permute(1, 0, 2),
    "classes in the middle": lambda x: nn.Conv1d(3, C, 1)(x.new_ones(B, 3, T)).permute(2, 0, 1),
    "an image of one line": lambda x: nn.Conv2d(3, C, 1)(x.new_ones(B, 3, 1, T)).squeeze(2).permute(2, 0, 1),
    "several places of each": lambda x: wide(x, 3 * C).reshape(B, 3 * T, C).transpose(0, 1),
    "as many places as samples": lambda x: tokens(x, B).transpose(0, 1),
    "as many classes as samples": lambda x: wide(x, B).transpose(0, 1),
    "one sample": lambda x: nn.Linear(8, C)(x.new_ones(1, T, 8)).reshape(T, 1, C),
}


@pytest.mark.parametrize("name", SEQUENCES_MIXED)
def test_a_sequence_that_is_of_several_samples(name: str) -> None:
    """For a loss that takes (T, N, C)."""
    assert scrambled_sequences(SEQUENCES_MIXED[name](torch.zeros(1)))


@pytest.mark.parametrize("name", SEQUENCES_SOUND)
def test_a_sequence_that_is_of_one_sample(name: str) -> None:
    """Other ways to the same."""
    assert scrambled_sequences(SEQUENCES_SOUND[name](torch.zeros(1))) == ""


class Tagger(nn.Module):
    """Tokens (B, T) to scores (B, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(20, 16, padding_idx=0), nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.embed(x))[0])  # type: ignore[no-any-return]


def learn(loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor], *, padded: bool) -> OverfitResult:
    """A run over rows of one length, or of four."""
    words, labels = torch.randint(1, 20, (B, T)), torch.randint(0, C, (B, T))
    for row, length in enumerate((7, 5, 3, 6) if padded else ()):
        words[row, length:], labels[row, length:] = 0, -100
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.01)  # noqa: E731
    return run_overfit(Tagger, (words, labels), loss, optimizer=adam, max_steps=300)


@pytest.mark.parametrize("padded", [False, True])
def test_a_tagger_whose_loss_reshapes(*, padded: bool) -> None:
    """It learns by heart all the same; the line to change is the one of the loss, and the right one passes."""

    def wrong(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).reshape(B, C, T), batch[1])

    def right(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).transpose(1, 2), batch[1])

    result = learn(wrong, padded=padded)
    assert told(result) == "target-mismatch"
    assert "(4, 7, 5) was reshaped to (4, 5, 7)" in result.causes[0].observed
    assert result.causes[0].advice.endswith("return F.cross_entropy(model(batch[0]).movedim(-1, 1), batch[1])")
    assert told(learn(right, padded=padded)) == ""


def test_a_loss_of_sequences_whose_samples_are_mixed() -> None:
    """Rows of the scores of all samples stand for one; the line to change is the one of the loss."""
    lengths = torch.full((B,), T), torch.full((B,), 2)

    def wrong(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.ctc_loss(model(batch[0]).log_softmax(-1).reshape(T, B, C), batch[1], *lengths)

    def right(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.ctc_loss(model(batch[0]).log_softmax(-1).transpose(0, 1), batch[1], *lengths)

    def learnt(loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]) -> OverfitResult:
        words, labels = torch.randint(1, 20, (B, T)), torch.tensor([[1, 2], [3, 4], [2, 3], [4, 1]])
        adam = lambda parameters: torch.optim.Adam(parameters, lr=0.01)  # noqa: E731
        return run_overfit(Tagger, (words, labels), loss, optimizer=adam, max_steps=300)

    result = learnt(wrong)
    assert told(result) == "target-mismatch"
    assert "(4, 7, 5) was reshaped to (7, 4, 5)" in result.causes[0].observed
    assert "model(batch[0]).log_softmax(-1).transpose(0, 1), batch[1]" in result.causes[0].advice
    assert told(learnt(right)) == ""
