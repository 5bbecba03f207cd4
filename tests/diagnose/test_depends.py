"""What depends on what: inputs, terms and rows that are read, each beside its nearest sound relative."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.batch_numbers import shared_beginnings

Batch = dict[str, Tensor]


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 300, **settings}
    return run_overfit(model, batch, loss, **settings)


def names(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes]


class Packed(nn.Module):
    """Classifies packed sequences, or a number beside them."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.reads, self.gru, self.head = reads, nn.GRU(4, 16, batch_first=True, bidirectional=True), nn.Linear(34, 3)

    def forward(self, packed: PackedSequence, beside: Tensor) -> Tensor:
        state = self.gru(packed)[1].transpose(0, 1).flatten(1)
        return self.head(torch.cat([state if self.reads else state * 0, beside], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("reads", "where"), [(True, None), (False, "packed.data")])
def test_a_packed_sequence_is_read_or_not(reads: bool, where: str | None) -> None:
    """Its content is exchanged, and its layout left alone."""
    torch.manual_seed(0)
    packed = pack_padded_sequence(torch.randn(3, 5, 4), torch.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False)
    result = learn(lambda: Packed(reads), (packed, torch.randn(3, 2), torch.arange(3)), _classes, objective=0.05)
    found = [cause.where for cause in result.causes if cause.id == "input-ignored"]
    assert found == ([] if where is None else [where])


def _classes(model: nn.Module, batch: tuple[Any, ...]) -> Tensor:
    return F.cross_entropy(model(*batch[:-1]), batch[-1])


class Biased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        x = self.embed(tokens)
        weights = (x @ x.transpose(1, 2) + bias).softmax(-1)
        return self.head((weights @ x).mean(1))  # type: ignore[no-any-return]


def test_an_input_that_is_constant_by_its_nature_is_no_degenerate_batch() -> None:
    """A bias of zeros, beside tokens that tell the samples apart."""
    torch.manual_seed(0)
    result = learn(Biased, (torch.randint(0, 20, (6, 5)), torch.zeros(6, 5, 5), torch.arange(6) % 3), _classes)
    assert result.passed, result.failure_text()


def test_an_input_that_is_all_there_is_has_to_differ() -> None:
    """A picture of zeros alone."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    result = learn(net, (torch.full((6, 3, 4, 4), 0.5), torch.zeros(6).long()), nn.CrossEntropyLoss())
    assert "degenerate-batch" in names(result)


class Finder(nn.Module):
    """Hands out scores in training, and those above a threshold in evaluation: none."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores if self.training else scores[scores > 1e6]


def test_evaluation_that_returns_no_element_says_nothing_of_inputs() -> None:
    """What is empty stays empty for every input."""
    result = learn(Finder, (torch.randn(6, 4), torch.arange(6) % 3), nn.CrossEntropyLoss())
    assert "input-ignored" not in names(result)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.first, self.second = nn.Linear(6, 32), nn.Linear(32, 2), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x).tanh()
        return self.first(hidden), self.second(hidden)


def _logged(model: nn.Module, batch: Batch, *, forgets: bool) -> dict[str, Tensor]:
    first, second = model(batch["x"])
    other = F.huber_loss(second, batch["z"])
    total = F.mse_loss(first, batch["y"]) + (0 if forgets else other)
    return {"objective": total, "worst": (first - batch["y"]).abs().max(), "other": F.huber_loss(second, batch["z"])}


@pytest.mark.parametrize("forgets", [False, True])
def test_a_number_that_is_only_reported_is_no_missing_term(forgets: bool) -> None:
    """One of an output that nothing else follows is."""
    torch.manual_seed(0)
    batch = {"x": torch.randn(6, 6), "y": torch.randn(6, 2), "z": torch.randn(6, 2)}
    result = learn(Heads, batch, lambda model, batch: _logged(model, batch, forgets=forgets), unused=["second*"])
    found = [cause.where for cause in result.causes if cause.id == "term-missing"]
    assert found == (["term other"] if forgets else [])


class Decoder(nn.Module):
    """Causal by its recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru, self.head = nn.Embedding(20, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.gru(self.embed(tokens))[0])  # type: ignore[no-any-return]


def _next(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


@pytest.mark.parametrize(
    ("shared", "steps", "found"), [(True, 300, True), (False, 10, False)], ids=["one beginning", "too few steps"]
)
def test_a_label_conflict_is_two_rows_that_were_found(shared: bool, steps: int, found: bool) -> None:
    """Whatever else keeps the loss up is none."""
    tokens = torch.randint(4, 20, (3, 8), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 1 if shared else torch.arange(1, 4)
    result = learn(Decoder, tokens, _next, max_steps=steps)
    conflicts = [cause for cause in result.causes if cause.id == "label-conflict"]
    assert bool(conflicts) == found
    assert not result.passed
    for cause in conflicts:
        assert "rows 0 and 1 of batch are alike up to place 1" in cause.observed
        assert cause.evidence["floor"] <= cause.evidence["loss"] * 1.1


@pytest.mark.parametrize(
    ("tokens", "labels", "floor"),
    [
        ([[1, 2, 3], [1, 2, 3]], None, None),
        ([[1, 2, 3], [4, 2, 5]], None, None),
        ([[1, 2, 3], [1, 2, 4]], None, 2 * torch.log(torch.tensor(2.0)) / 4),
        ([[1, 2, 3], [1, 2, 4]], [[-100, 2, 3], [-100, 2, -100]], None),
        ([[1, 2, 3]], None, None),
    ],
    ids=["the same rows", "other beginnings", "one place", "a place that does not count", "one row"],
)
def test_rows_that_begin_alike(tokens: Any, labels: Any, floor: Any) -> None:
    """And the least cross-entropy over all places that count."""
    batch = {"tokens": torch.tensor(tokens)} | ({} if labels is None else {"labels": torch.tensor(labels)})
    found = shared_beginnings(batch, ["tokens"])
    if floor is None:
        assert found is None
    else:
        assert found is not None
        assert (found.rows, found.place) == ((0, 1), 2)
        assert found.floor == pytest.approx(float(floor))


class Waves(nn.Module):
    """Convolutions along a sequence; the second one pads both of its ends, or the first end alone."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.both, self.embed, self.head = both, nn.Embedding(20, 24), nn.Linear(24, 20)
        self.first, self.second = nn.Conv1d(24, 24, 3), nn.Conv1d(24, 24, 3, padding=1 if both else 0)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.first(F.pad(self.embed(tokens).mT, (2, 0))).tanh()
        x = self.second(x if self.both else F.pad(x, (2, 0))).tanh()
        return self.head(x.mT)  # type: ignore[no-any-return]


class Joined(nn.Module):
    """Causal attention whose heads are joined in the order of places, or before the axes are back in theirs."""

    def __init__(self, early: bool) -> None:
        super().__init__()
        self.early, self.embed, self.places = early, nn.Embedding(20, 24), nn.Embedding(8, 24)
        self.mix, self.head = nn.ModuleDict({"read": nn.Linear(24, 24)}), nn.Linear(24, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.places.weight[: tokens.shape[1]]
        heads = self.mix["read"](x).unflatten(-1, (3, 8)).transpose(1, 2)
        heads = F.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        return self.head(x + (heads if self.early else heads.transpose(1, 2)).reshape(x.shape))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (lambda: Waves(both=True), "module second"),
        (lambda: Waves(both=False), None),
        (lambda: Joined(early=True), "module Joined"),
        (lambda: Joined(early=False), None),
    ],
)
def test_the_module_in_which_the_future_arrives(model: Any, where: str | None) -> None:
    """It is given the past alone."""
    tokens = torch.randint(4, 20, (3, 9), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = torch.arange(3)
    result = learn(model, tokens, _next, max_steps=400)
    found = [cause for cause in result.causes if cause.id == "leak"]
    assert [cause.where for cause in found] == ([] if where is None else [where])
    if where == "module Joined":
        assert "leaves the future out" in found[0].advice


class Students(nn.ModuleDict):
    def __init__(self) -> None:
        super().__init__({"net": nn.Linear(6, 4), "judge": nn.Linear(4, 1)})


def _step(way: str, optimizers: Mapping[str, torch.optim.Optimizer]) -> Any:
    """A net that follows its target and a judge, which learns beside it, before or after."""

    def judged(model: Any, batch: Batch) -> None:
        optimizers["judge"].zero_grad()
        with torch.no_grad():
            made = model["net"](batch["x"])
        (F.softplus(model["judge"](made)).mean() + F.softplus(-model["judge"](batch["y"])).mean()).backward()  # type: ignore[no-untyped-call]
        optimizers["judge"].step()

    def step(model: Any, batch: Batch) -> Any:
        if way == "judge first":
            judged(model, batch)
        made = model["net"](batch["x"])
        fit, fooled = F.mse_loss(made, batch["y"]), F.softplus(-model["judge"](made.detach())).mean()
        if way == "followed":
            fooled = F.softplus(-model["judge"](made)).mean()
        for optimizer in optimizers.values() if way == "one graph" else [optimizers["net"]]:
            optimizer.zero_grad()
        total = fit + 0.1 * fooled
        total.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers.values() if way == "one graph" else [optimizers["net"]]:
            optimizer.step()
        if way in ("judge last", "followed"):
            judged(model, batch)
        return {"objective": total, "fit": fit, "fooled": fooled}

    return step


@pytest.mark.parametrize(
    ("way", "found"), [("judge first", True), ("judge last", True), ("followed", False), ("one graph", False)]
)
def test_a_summand_whose_gradient_is_thrown_away(way: str, found: bool) -> None:
    """In one graph with the judge it trains that; it is not missing there."""
    torch.manual_seed(0)
    model = Students()
    optimizers = {name: torch.optim.Adam(part.parameters(), 1e-2) for name, part in model.items()}
    result = run_overfit(
        model,
        {"x": torch.randn(4, 6), "y": torch.randn(4, 4)},
        step=_step(way, optimizers),
        optimizer=optimizers,
        max_steps=400,
        objective=False,
        fit=0.05,
        allow=["broadcast"],
    )
    missing = [cause.where for cause in result.causes if cause.id == "term-missing"]
    assert missing == (["term fooled"] if found else []), result.failure_text()


class Reads(nn.Module):
    """Of images, or of features along a sequence, it reads some."""

    def __init__(self, parts: slice, *, images: bool) -> None:
        super().__init__()
        self.parts, self.images = parts, images
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.Tanh(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x[:, self.parts] if self.images else x[..., self.parts])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shape", "parts", "where"),
    [
        ((6, 4, 5, 5), slice(0, 3), ["x[:, (3)]"]),
        ((6, 4, 5, 5), slice(0, 4), []),
        ((6, 5, 8), slice(3, 8), ["x[:, :, (0, 1, 2)]"]),
        ((6, 5, 8), slice(1, 8), []),  # an eighth may be left out on purpose
    ],
)
def test_channels_and_features_that_nothing_reads(shape: Any, parts: slice, where: list[str]) -> None:
    """They have no slope, and may be those of another sample."""
    torch.manual_seed(0)
    images = len(shape) == 4
    batch = (torch.randn(shape), torch.arange(6) % 3)
    result = learn(lambda: Reads(parts, images=images), batch, nn.CrossEntropyLoss())
    assert [cause.where for cause in result.causes if cause.id == "input-ignored"] == where


class Lengths(nn.Module):
    """Scores of frames, and how many of them count: computed, handed through as they are, or not at all."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.layer = way, nn.Linear(4, 5)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        ways = {
            "computed": lambda: (lengths + 1) // 2,
            "handed through": lambda: lengths,
            "of all": lambda: torch.full_like(lengths, frames.shape[1] // 2),
        }
        return self.layer(frames[:, ::2]), ways[self.way]()


@pytest.mark.parametrize(
    ("way", "found"), [("computed", []), ("handed through", ["input-ignored"]), ("of all", ["input-ignored"])]
)
def test_what_whole_numbers_are_computed_from_is_read(way: str, found: list[str]) -> None:
    """An output of whole numbers, which the loss takes, is one."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        scores, real = model(batch["frames"], batch["lengths"])
        counts = torch.arange(scores.shape[1])[None] < real[:, None]
        return F.cross_entropy(scores[counts], batch["labels"][counts])

    batch = {
        "frames": torch.randn(3, 8, 4),
        "lengths": torch.tensor([4, 8, 6]) // (2 if way == "handed through" else 1),
        "labels": torch.randint(0, 5, (3, 4)),
    }
    result = learn(lambda: Lengths(way), batch, loss, objective=0.9)
    assert [cause.id for cause in result.causes if cause.id == "input-ignored"] == found
