"""A run says what it is busy with, from the first probe to the last trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pytest_overfit.api import run_subject
from pytest_overfit.diagnose.trial import Trial
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.subject import Subject
from pytest_overfit.settings.call_settings import settings_of_call


class Listener(Observer):
    """Writes down the phases."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, float | None]] = []

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        self.told.append((name, detail, seconds_left))

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        self.told.append(("step", "", None))


def phases_of(*, lr: float, **settings: Any) -> list[tuple[str, str, float | None]]:
    """What a run of a small net says, steps aside."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    batch = torch.randn(8, 4), torch.randn(8, 1)
    listener = Listener()
    subject = Subject(net, batch, F.mse_loss, lambda p: torch.optim.Adam(p, lr=lr), name="net")
    given = settings_of_call(None, None, {"max_steps": 200, **settings})
    run_subject(subject, given, observers=lambda seed: [listener])
    names = [name for name, _, _ in listener.told]
    assert "step" not in names[: names.index("training")]
    return [each for each in listener.told if each[0] != "step"]


def test_a_run_that_passes_has_three_phases() -> None:
    """The time left is known where it is bounded."""
    phases = phases_of(lr=0.02, max_seconds=30)
    assert [(name, detail) for name, detail, _ in phases] == [("warm-up", ""), ("training", ""), ("probes", "")]
    training = phases[1][2]
    assert training is not None
    assert 0 < training <= 30  # from the first step on: what comes before it takes nothing of them
    assert (phases[0][2], phases[2][2]) == (None, None)


def test_a_run_that_fails_says_what_every_trial_changes() -> None:
    """Which of how many, and how far it is; a trial is no training of its own. The diagnosis has a time of its own."""
    told = phases_of(lr=1e-5, diagnose_seconds=20)
    assert [name for name, _, _ in told].count("training") == 1
    assert told[3][:2] == ("probes", "the floor of the loss")
    trials = [each for each in told if each[0].startswith("trial ")]
    assert trials[0][0].startswith("trial 1/")
    assert any(re.fullmatch(r"lr [\d.e-]+, step 0/200", detail) for _, detail, _ in trials)
    assert any(detail.endswith(", step 20/200") for _, detail, _ in trials)
    left = [seconds for _, _, seconds in trials if seconds is not None]
    assert len(left) == len(trials)
    assert left == sorted(left, reverse=True)
    assert left[0] <= 20


@pytest.mark.parametrize(("lr", "first"), [(5e-5, "lr 0.001,"), (5e-4, "lr 0.005,")])
def test_the_usual_rate_comes_first_where_the_loss_falls_steadily_far_below_it(lr: float, first: str) -> None:
    """Trials end with the time: the rate of a model that is fine-tuned is too low for one sample in so few steps."""
    told = [detail for name, detail, _ in phases_of(lr=lr, diagnose_seconds=20) if "trial 1/" in name]
    assert told[0].startswith(first)


def test_a_run_without_diagnosis_has_no_probes() -> None:
    """Nobody looks."""
    assert [name for name, _, _ in phases_of(lr=1e-5, diagnose=False)] == ["warm-up", "training"]


def test_changes_are_spoken_in_a_few_words() -> None:
    """A rate by its value, others by name, with what they are about."""
    assert Trial("learning rate", 1e-3, 1e-4).text == "lr 0.0001"
    assert Trial("standardised inputs", detail="0").text == "standardised inputs (0)"
    assert Trial("unfrozen").text == "unfrozen"
