"""Every question of a diagnosis is broken once: the verdict stands, and nothing reads as "none found".

The questions are not listed here: those that a run asks are heard first, and each of them is broken then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit import api as package
from pytest_overfit.errors.asking import Answer, NotAsked, Otherwise, Questions
from pytest_overfit.report.record.codec import from_json, to_json
from pytest_overfit.report.record.document import Document

Run = Callable[[], OverfitResult]


class BrokenError(IndexError):
    """What is raised in the place of an answer."""


class Heard(Questions):
    """Questions that are heard, and of which one is broken."""

    names: dict[str, None]
    broken: str | None

    def ask(self, question: str, look: Callable[[], Answer], *, otherwise: Otherwise) -> Answer | Otherwise:
        self.names[question] = None
        return super().ask(question, _breaks if question == self.broken else look, otherwise=otherwise)

    @contextlib.contextmanager
    def asking(self, question: str) -> Iterator[None]:
        self.names[question] = None
        with super().asking(question):
            yield
            if question == self.broken:
                _breaks()


def _breaks() -> Any:
    raise BrokenError("tuple index out of range")


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run, str | None], tuple[OverfitResult, list[str]]]:
    """Makes a run with one question broken, and says which were asked."""

    def run(make: Run, broken: str | None) -> tuple[OverfitResult, list[str]]:
        names: dict[str, None] = {}

        def questions() -> Questions:
            made = Heard(raising=broken is None)
            made.names, made.broken = names, broken
            return made

        monkeypatch.setattr(package, "Questions", questions)
        return make(), list(names)

    return run


class Attention(nn.Module):
    """Something to ask about masks, order, other samples and chance."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.drop = nn.Embedding(12, 16), nn.Dropout(0.1)
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 12)

    def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
        x = self.drop(self.tokens(ids)) * scale[:, None, None]
        x = x + self.mix(x, x, x, need_weights=False)[0]
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(x)  # type: ignore[no-any-return]


def attention_loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    logits = model(batch["ids"], batch["scale"])
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    return {"objective": loss + 1e-4 * logits.square().mean(), "ce": loss, "size": logits.square().mean()}


def own_step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()
    return loss.detach()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))


def pairs() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3


def tokens() -> dict[str, Tensor]:
    ids = torch.randint(0, 12, (4, 6), generator=torch.Generator().manual_seed(2))
    return {"ids": ids, "scale": torch.linspace(0.5, 1.5, 4), "labels": ids.roll(-1, 1)}


def bad_logarithm(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]).double() - 1e3).log().mean()  # type: ignore[no-any-return]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


RUNS: dict[str, Run] = {
    "passes": lambda: run_overfit(mlp, pairs(), nn.CrossEntropyLoss(), optimizer=adam),
    "too short": lambda: run_overfit(mlp, pairs(), nn.CrossEntropyLoss(), max_steps=3, diagnose_seconds=60),
    "not finite": lambda: run_overfit(mlp, pairs(), bad_logarithm, max_steps=3, diagnose_seconds=60),
    "own step": lambda: run_overfit(mlp, pairs(), step=own_step, max_steps=3, diagnose_seconds=60),
    "attention": lambda: run_overfit(
        Attention, tokens(), attention_loss, optimizer=adam, max_steps=3, diagnose_seconds=60
    ),
}


def criteria(result: OverfitResult, *without: str) -> list[tuple[str, bool, bool, str]]:
    """The verdict of every criterion but the one that the diagnosis gives."""
    return [(f.name, f.passed, f.judged, f.observed) for f in result.findings if f.name not in ("defects", *without)]


@pytest.mark.parametrize("name", RUNS)
def test_a_question_that_breaks_costs_nobody_the_verdict(
    name: str, hear: Callable[[Run, str | None], tuple[OverfitResult, list[str]]]
) -> None:
    """Each question of a run in turn: the criteria say what they said, and the break is in every report."""
    sound, asked = hear(RUNS[name], None)
    assert not [each for each in sound.not_asked if each.ours]
    assert len(asked) > 20
    for question in asked:
        result, _ = hear(RUNS[name], question)
        supervised = result.finding("supervised")
        open_ = () if supervised.judged else ("supervised",)  # which is made of questions
        assert not open_ or supervised.observed.startswith(f"not asked: {question}: ")
        assert criteria(result, *open_) == criteria(sound, *open_), question
        kept = [each for each in result.not_asked if each.question == question and each.ours]
        assert len(kept) == 1, question
        assert "BrokenError: tuple index out of range" in kept[0].why
        defects = result.finding("defects")
        assert not defects.passed, question
        if sound.finding("defects").passed:
            assert not defects.judged
            assert defects.observed.startswith("not asked: ")
        assert result.passed is sound.passed, question
        assert f"note: {kept[0].text()}" in result.summary()
        if not result.passed:
            assert f"not asked: {question}" in result.failure_text()
        again = from_json(to_json(Document("a", "a", "", "finished", "", "", result=result))).result
        assert again is not None
        assert again.not_asked == result.not_asked


def test_a_model_that_refuses_other_values_is_no_mistake_of_ours() -> None:
    """What it refuses is told in its own words; the run passes, and says how much was not asked."""

    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise RuntimeError("this model is never evaluated")
            return self.body(x)  # type: ignore[no-any-return]

    result = run_overfit(Picky, pairs(), nn.CrossEntropyLoss(), optimizer=adam)
    assert result.passed
    refused = "the model, the loss or the step refuses it: RuntimeError: this model is never evaluated"
    assert NotAsked("the loss in evaluation mode", refused) in result.not_asked
    assert not [each for each in result.not_asked if each.ours]
    assert result.finding("defects").observed.startswith("none found; ")
    assert "not asked: the loss in evaluation mode" in result.summary()


def test_trials_that_found_no_time_are_counted() -> None:
    """A diagnosis that ran out of its seconds says what it left out."""
    result = run_overfit(mlp, pairs(), nn.CrossEntropyLoss(), max_steps=8, diagnose_seconds=1e-3)
    assert any("trials" in each.question and "out of time" in each.why for each in result.not_asked)
