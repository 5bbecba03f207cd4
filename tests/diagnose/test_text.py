"""What a failing test says: literally, on one screen, the strongest cause first."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit import Cause, run_overfit
from pytest_overfit.judge.finding import Finding
from pytest_overfit.settings.cause_ids import IDS
from pytest_overfit.text.failure import HEAD_WIDTH, MOST_LINES, NOT_NAMED, cause_lines, failure_text, headline

TOO_HIGH = Cause(
    "lr-high",
    "(SGD), group 0",
    "passes in 140 steps with a learning rate of 0.0001 instead of 0.01",
    "set lr=0.0001",
    "proven",
    {"lr": 0.01, "works": 0.0001},
)


def missed(name: str) -> Finding:
    """A finding that takes three lines."""
    return Finding(name, False, f"{name} 0.5", "< 0.01", where="step 9", hint="look")


def test_a_cause_says_what_where_and_what_to_change() -> None:
    """Three lines, literally."""
    assert TOO_HIGH.text() == (
        "lr-high (proven): passes in 140 steps with a learning rate of 0.0001 instead of 0.01\n"
        "  where: (SGD), group 0\n"
        "  change: set lr=0.0001"
    )


def test_a_failure_reads_in_one_line_then_says_what_to_change() -> None:
    """The text of a failing test, literally: where a cause stands, the criteria give no advice of their own."""
    assert failure_text([missed("objective"), Finding("finite", True, "", "")], [TOO_HIGH], diagnosed=True) == (
        "objective 0.5, allowed < 0.01: passes in 140 steps with a learning rate of 0.0001 instead of 0.01\n"
        "  where: (SGD), group 0\n"
        "  change: set lr=0.0001\n"
        "  why: lr-high (proven); pytest-overfit explain lr-high\n"
        "1 of 2 criteria missed\n"
        "objective: objective 0.5, allowed < 0.01"
    )


def test_a_failure_without_a_cause_has_the_criterion_in_full() -> None:
    assert failure_text([missed("objective"), Finding("finite", True, "", "")], [], diagnosed=True) == (
        "objective 0.5, allowed < 0.01\n"
        "1 of 2 criteria missed\n"
        "objective: objective 0.5, allowed < 0.01\n"
        "  where: step 9\n"
        "  next: look\n" + NOT_NAMED
    )


@pytest.mark.parametrize("observed", ["loss_camera 0.158 (start 0.2)", "frame 1 rotation 41 deg; " * 9])
def test_the_first_line_keeps_the_number_and_the_cause(observed: str) -> None:
    """Within 120 characters, whatever there is to say."""
    finding = Finding("camera", False, observed, "< 0.001 for 5 steps in a row")
    line = headline([finding], [TOO_HIGH])
    assert len(line) <= HEAD_WIDTH
    assert observed.split()[1] in line
    assert ": passes in 140 steps with a learning rate" in line


def test_a_mistake_in_a_run_that_learns_is_told_once() -> None:
    """The criterion of defects repeats its cause."""
    defects = Finding("defects", False, f"lr-high: {TOO_HIGH.observed}", "no mistake that is certain", hint="set lr")
    text = failure_text([defects, Finding("finite", True, "", "")], [TOO_HIGH], diagnosed=True)
    assert text.splitlines()[0] == f"lr-high: {TOO_HIGH.observed}"
    assert text.splitlines()[-1] == "1 of 2 criteria missed: defects"
    assert text.count("change:") == 1
    assert "next:" not in text


def test_nothing_named_is_said() -> None:
    """No cause is no silence."""
    assert failure_text([missed("objective")], [], diagnosed=True).splitlines()[-1] == NOT_NAMED
    assert NOT_NAMED not in failure_text([missed("objective")], [], diagnosed=False)


@pytest.mark.parametrize(("criteria", "causes"), [(1, 1), (5, 3), (9, 12), (40, 0), (40, 30)])
def test_a_failure_fits_one_screen(criteria: int, causes: int) -> None:
    """At most 25 lines, whatever there is to say; every criterion or cause that is left out is counted or named."""
    findings = [missed(f"term{i}") for i in range(criteria)]
    text = failure_text(findings, [TOO_HIGH] * causes, diagnosed=True, notes=["interrupted"])
    assert len(text.splitlines()) <= MOST_LINES
    assert text.startswith("term0 0.5, allowed < 0.01")
    assert f"\n{criteria} of {criteria} criteria missed\nterm0: " in text
    if causes > 3:
        assert "less likely: lr-high" in text


def test_only_three_causes_are_told_in_full() -> None:
    """The rest by name."""
    lines = cause_lines([TOO_HIGH] * 5)
    assert len(lines) == 10
    assert lines[-1].split() == ["less", "likely:", "lr-high,", "lr-high"]


def test_the_check_of_a_real_failure_names_its_cause() -> None:
    """End to end, outside pytest: a rate of zero."""
    torch.manual_seed(0)
    net, batch = nn.Linear(3, 1), (torch.randn(8, 3), torch.randn(8, 1))
    result = run_overfit(net, batch, F.mse_loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.0), max_steps=20)
    with pytest.raises(AssertionError, match=re.escape("why: lr-low (")) as caught:
        result.check()
    assert len(str(caught.value).splitlines()) <= MOST_LINES
    assert "the learning rate is 0 in every group" in str(caught.value)
    assert result.causes[0].evidence["lr"] == 0.0
    assert "why: lr-low" in result.summary()


def test_ids_are_those_of_the_catalogue() -> None:
    """58 and more, none twice."""
    assert len(IDS) == len(set(IDS)) >= 58
