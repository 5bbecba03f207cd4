"""What was asked of a run, in one line per question: numbers of this run, or why there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.answers import NOT_NEEDED, QUESTIONS, answers, still_open
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.text.translations import translated

NAMES = tuple(name for name, *_ in QUESTIONS)
BATCH = torch.linspace(-1, 1, 32).reshape(8, 4), torch.linspace(1, -1, 8).reshape(8, 1) ** 2


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.BatchNorm1d(32), nn.Linear(32, 1))


def trained(lr: float, **settings: Any) -> OverfitResult:
    optimizer = lambda parameters: torch.optim.Adam(parameters, lr)  # noqa: E731
    return run_overfit(network, BATCH, nn.MSELoss(), optimizer=optimizer, objective=0.01, max_steps=150, **settings)


def told(result: OverfitResult) -> dict[str, str]:
    assert tuple(answer.question for answer in result.answers) == NAMES
    return {answer.question: answer.answer for answer in result.answers}


def test_a_passing_run_answers_every_question_but_that_of_trials() -> None:
    """With numbers that are those of the run."""
    result = trained(1e-2)
    answer = told(result)
    assert result.passed
    assert "the outputs follow 0" in answer["depends"]
    assert "the loss reads 100% of 8 elements" in answer["depends"]
    assert answer["moves"].startswith("6 of 6 trainable tensors moved")
    assert "in evaluation mode" in answer["repeats"]
    assert f"{min(result.record.curves['objective']):.4g}" in answer["reaches"]
    assert answer["learns"] == "not asked: the run passed, it needs no trial"
    assert [each.question for each in result.answers if not each.asked] == ["learns"]


def test_a_failed_run_lists_its_trials() -> None:
    answer = told(trained(1e-8))
    assert "over free outputs it reaches" in answer["reaches"]
    assert "learns in " in answer["learns"]


def test_randomness_and_frozen_tensors_are_counted() -> None:
    """The dropout of a training step is a number, and so are the tensors that nobody trains."""

    def build() -> nn.Module:
        model = nn.Sequential(network(), nn.Dropout(0.5), nn.Linear(1, 1))
        model[2].requires_grad_(requires_grad=False)
        return model

    answer = told(run_overfit(build, BATCH, nn.MSELoss(), objective=1e-9, max_steps=5, diagnose_seconds=5))
    assert "in training mode the loss differs by" in answer["repeats"]
    assert "2 frozen" in answer["moves"]


def test_without_a_diagnosis_nothing_was_asked() -> None:
    assert trained(1e-2, diagnose=False).answers == ()


def test_a_loss_without_outputs_says_what_is_not_there() -> None:
    """A step that reports a number alone leaves nothing to ask the trained model."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    result = run_overfit(network, BATCH, step=step, objective=0.01, max_steps=100)
    answer = told(result)
    assert "reported" in answer["agrees"]
    assert all(each.answer for each in result.answers)


def test_a_cause_that_needs_no_trial_has_no_list_of_them() -> None:
    """Nor a note that some of them were not made; what is open beside stays."""
    sure = Cause("units", "extrinsics", "off by 1000", "divide", "shown", certain=True)
    result = trained(1e-8)
    assert result.evidence is not None
    assert result.evidence.attempts
    listed = {answer.question: answer for answer in answers(result.evidence, [sure])}
    assert (listed["learns"].answer, listed["learns"].asked) == (NOT_NEEDED, False)
    assert translated(NOT_NEEDED, "zh") != NOT_NEEDED
    open_ = [NotAsked("6 of 10 trials", "out of time"), NotAsked("the floor of the loss", "out of time")]
    assert still_open(open_, [sure]) == (open_[1],)
    for other in (replace(sure, certain=False), replace(sure, strength="proven")):
        assert answers(result.evidence, [other]) == result.answers
        assert still_open(open_, [other]) == tuple(open_)
