"""Can the module memorise one batch of its own data?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")

import torch
from broken import ForgottenHead, NothingZeroed, SoftmaxFirst
from digits import Digits, DigitsData, ManualDigits

from pytest_overfit import run_overfit

Overfit = Callable[..., Any]
MISTAKES = [
    (ForgottenHead, "optimizer-coverage", "head.weight, head.bias"),
    (SoftmaxFirst, "double-activation", "module.py"),
    (NothingZeroed, "grad-accumulation", "broken.py"),
]


@pytest.mark.overfit(max_steps=400, seeds=[0, 1], train_accuracy={"above": 0.99})
@pytest.mark.parametrize("module", [Digits, ManualDigits])
def test_memorises_a_batch(overfit: Overfit, module: type[Digits]) -> None:
    """What ``self.log`` gets is a term, and may have a limit of its own."""
    overfit(module, DigitsData())


def test_leaves_nothing_behind(overfit: Overfit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lightning_logs, no checkpoints, and the weights are as they were."""
    monkeypatch.chdir(tmp_path)
    module = Digits()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    overfit(module, DigitsData(), max_steps=400)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("module", "cause", "where"), MISTAKES, ids=[mistake[1] for mistake in MISTAKES])
def test_the_first_cause_is_the_mistake(module: type[Digits], cause: str, where: str) -> None:
    """Outside of a test function the same call gives a record."""
    result = run_overfit(module, DigitsData(), max_steps=300)
    assert not result.passed
    assert (result.causes[0].id, where in result.causes[0].where) == (cause, True)


def test_each_mistake_is_found(overfit: Overfit) -> None:
    """As the test of a team would show it."""
    with pytest.raises(AssertionError, match=r"(?s)where: head\.weight.*gradients: 2 .*: not in the optimizer"):
        overfit(ForgottenHead, DigitsData(), max_steps=300)
