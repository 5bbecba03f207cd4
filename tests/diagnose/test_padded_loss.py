"""Padding that the batch tells of, and that the objective answers to; and ends of rows that nobody learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.padding import padding_of

LENGTHS = torch.tensor([4, 7, 3, 5])
PLACES = torch.arange(9)[None]
PADDING = LENGTHS[:, None] <= PLACES
Batch = dict[str, Tensor]


def learn(model: nn.Module, batch: Batch, loss: Any, **settings: Any) -> OverfitResult:
    adam = lambda p: torch.optim.Adam(p, lr=1e-2)  # noqa: E731
    return run_overfit(model, batch, loss, optimizer=adam, max_steps=400, **settings)


class Classifier(nn.Module):
    """A recurrent net that goes by the lengths, by the tokens, or by neither."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.embed = way, nn.Embedding(60, 16, padding_idx=0)
        self.recur, self.head = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, batch: Batch) -> Tensor:
        states, _ = self.recur(self.embed(batch["text"]))
        if self.way == "last place":
            return self.head(states[:, -1])  # type: ignore[no-any-return]
        real = batch["lengths"] if self.way == "lengths" else (batch["text"] != 0).sum(1)
        return self.head(states[torch.arange(len(states)), real - 1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("way", "found"), [("last place", ["input-ignored"]), ("lengths", []), ("tokens", [])])
def test_a_recurrent_net_reads_on_into_the_padding(way: str, found: list[str]) -> None:
    """What goes by the tokens needs no lengths, and other tokens there would be real ones."""
    torch.manual_seed(0)
    text = torch.randint(1, 60, (4, 9)).masked_fill(PADDING, 0)
    batch = {"text": text, "lengths": LENGTHS, "label": torch.arange(4)}
    result = learn(Classifier(way), batch, lambda model, b: F.cross_entropy(model(b), b["label"]))
    assert [cause.id for cause in result.causes] == found
    if found:
        assert result.causes[0].where == "lengths"


@pytest.mark.parametrize(("axis", "found"), [(1, ["target-mismatch"]), (2, [])])
def test_a_mask_of_the_loss_along_the_wrong_axis(axis: int, found: list[str]) -> None:
    """(batch, channels, time): it hides channels, and what stands behind the end is learnt."""
    torch.manual_seed(0)
    target = torch.randn(4, 9, 9).masked_fill(PADDING[:, None], -5.0)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        mask = ~PADDING[:, None] if axis == 2 else ~PADDING[:, :, None]
        error = (model(batch["x"]) - batch["target"]).abs() * mask
        return error.sum() / mask.expand_as(error).sum()  # type: ignore[no-any-return]

    net = nn.Sequential(nn.Conv1d(5, 64, 3, padding=1), nn.ReLU(), nn.Conv1d(64, 9, 3, padding=1))
    batch = {"x": torch.randn(4, 5, 9), "target": target, "lengths": LENGTHS.clamp(max=9)}
    assert [cause.id for cause in learn(net, batch, loss, objective=0.3).causes] == found


class Span(nn.Module):
    """Where an answer begins: a score for every place of the text, which reads what is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(60, 32), nn.Embedding(9, 32)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.net = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, text: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(text) + self.places.weight[: text.shape[1]]
        read, _ = self.attend(x, x, x, key_padding_mask=attention_mask == 0)
        return self.net(x + read)[..., 0]  # type: ignore[no-any-return]


def test_a_place_of_padding_that_may_be_chosen_is_no_target() -> None:
    torch.manual_seed(0)
    text = torch.randint(1, 60, (4, 9)).masked_fill(PADDING, 0)
    batch = {"text": text, "attention_mask": (~PADDING).long(), "begins": torch.tensor([1, 3, 0, 2])}

    def loss(model: nn.Module, b: Batch) -> Tensor:
        return F.cross_entropy(model(b["text"], b["attention_mask"]), b["begins"])

    result = run_overfit(Span(), batch, loss, lr=1e-3, max_steps=60, objective=1.5)
    assert [cause.id for cause in result.causes] == []


class Decoder(nn.Module):
    """Reads what stands before, and predicts the token behind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(40, 32), nn.Embedding(9, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(32, 40)

    def forward(self, tokens: Tensor) -> Tensor:
        size = tokens.shape[1]
        x = self.embed(tokens) + self.places.weight[:size]
        return self.head(self.body(x, mask=torch.ones(size, size, dtype=torch.bool).triu(1)))  # type: ignore[no-any-return]


def rows(end: int) -> Tensor:
    torch.manual_seed(0)
    tokens = torch.randint(3, 40, (4, 9))
    tokens[:, 0] = torch.arange(3, 7)
    tokens[torch.arange(4), LENGTHS - 1] = 2
    return tokens.masked_fill(PADDING, end)


@pytest.mark.parametrize(("shifted", "found"), [(False, ["target-mismatch"]), (True, [])])
def test_a_mask_that_is_not_shifted_as_its_labels_are(shifted: bool, found: list[str]) -> None:
    """It teaches the padding behind the end, and not the first token of the answer."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits, mask = model(batch["tokens"])[:, :-1], batch["answer"]
        mask = mask[:, 1:] if shifted else mask[:, :-1]
        each = F.cross_entropy(logits.mT, batch["tokens"][:, 1:], reduction="none")
        return (each * mask).sum() / mask.sum()

    batch = {"tokens": rows(0), "answer": (~PADDING & (PLACES > 1)).float()}
    assert torch.equal(padding_of(batch), PADDING)  # type: ignore[arg-type]
    assert [cause.id for cause in learn(Decoder(), batch, loss).causes] == found


@pytest.mark.parametrize(("by_token", "found"), [(True, ["unsupervised"]), (False, [])])
def test_an_end_that_is_ignored_with_the_padding(by_token: bool, found: list[str]) -> None:
    """The token of padding is that of the end."""
    tokens = rows(2)
    labels = tokens.masked_fill(tokens == 2 if by_token else PADDING, -100)
    batch = {"tokens": tokens, "attention_mask": (~PADDING).long(), "labels": labels}
    result = learn(
        Decoder(), batch, lambda model, b: F.cross_entropy(model(b["tokens"])[:, :-1].mT, b["labels"][:, 1:])
    )
    assert [cause.id for cause in result.causes] == found
    if found:
        assert result.causes[0].where == "the last token of every row of attention_mask"


class Translator(nn.Module):
    """Its encoder leaves padding out, by the tokens; its decoder reads the memory with that mask or without."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.embed, self.places = way, nn.Embedding(60, 16, padding_idx=0), nn.Embedding(9, 16)
        self.inner, self.across = (nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 40)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        x, y = (self.embed(t) + self.places.weight[: t.shape[1]] for t in (source, target))
        left_out = source == 0 if self.way != "nowhere" else None
        memory = x + self.inner(x, x, x, key_padding_mask=left_out)[0]
        y = y + self.across(y, memory, memory, key_padding_mask=left_out if self.way == "both" else None)[0]
        return self.head(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("way", "found"), [("encoder", ["input-ignored"]), ("both", []), ("nowhere", [])])
def test_one_attention_of_several_reads_the_padding(way: str, found: list[str]) -> None:
    """What one of them leaves out is padding by the model's own word."""
    torch.manual_seed(0)
    source, target = torch.randint(1, 60, (4, 9)).masked_fill(PADDING, 0), torch.randint(1, 40, (4, 6))
    result = learn(
        Translator(way),
        {"source": source, "target": target},
        lambda model, b: F.cross_entropy(model(b["source"], b["target"]).mT, b["target"].roll(-1, 1)),
    )
    assert [cause.id for cause in result.causes] == found


class Recogniser(nn.Module):
    """Frames (B, T, 4) to scores at every second place: packed by its lengths, or read to the end of the batch."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.recur, self.head = way, nn.GRU(8, 48, batch_first=True, bidirectional=True), nn.Linear(96, 6)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, real = frames.reshape(len(frames), -1, 8), lengths // 2
        if self.way == "whole":
            return self.head(self.recur(x)[0]).log_softmax(-1), real
        packed = nn.utils.rnn.pack_padded_sequence(x, real, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.recur(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.head(states).log_softmax(-1), real


@pytest.mark.parametrize(("way", "found"), [("whole", ["input-ignored"]), ("packed", [])])
def test_a_recurrent_net_that_is_not_packed_under_a_loss_that_leaves_padding_out(way: str, found: list[str]) -> None:
    """The loss is given the lengths: it is the model that reads padding, at fewer places than there are frames."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        scores, real = model(batch["frames"], batch["lengths"])
        return F.ctc_loss(scores.transpose(0, 1), batch["tokens"], real, torch.full((4,), 2))

    torch.manual_seed(0)
    lengths = torch.tensor([8, 16, 12, 10])
    frames = torch.randn(4, 16, 4).masked_fill((lengths[:, None] <= torch.arange(16)[None])[..., None], 0.0)
    batch = {"frames": frames, "lengths": lengths, "tokens": torch.tensor([[1, 2], [3, 4], [2, 5], [4, 1]])}
    result = learn(Recogniser(way), batch, loss, objective=0.05)
    assert [cause.id for cause in result.causes] == found
    if found:
        assert "outputs of other places" in result.causes[0].observed
        assert "pack what recurs" in result.causes[0].advice
