"""Looking changes nothing: state is bit-identical, time is bounded, Ctrl-C leaves what is known."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose import inspector
from pytest_overfit.diagnose.trials import candidates as schedule
from pytest_overfit.diagnose.trials import changes as trials
from pytest_overfit.diagnose.trials.changes import Change

Batch = dict[str, Tensor]


def net() -> nn.Sequential:
    """A model with everything that a forward pass may change."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))


def data() -> Batch:
    source = torch.Generator().manual_seed(1)
    return {"x": torch.randn(8, 5, generator=source), "y": torch.randint(0, 3, (8,), generator=source)}


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"])


def step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    """The user's own, with the gradients of a frozen zero: it cannot learn."""
    optimizer.zero_grad()
    value = loss(model, batch)
    (1e-12 * value).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def state(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, Any]:
    """Everything that a run may touch, copied."""
    return {
        "model": copy.deepcopy(model.state_dict()),
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "trainable": [p.requires_grad for p in model.parameters()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "batch": {key: tensor.clone() for key, tensor in batch.items()},
        "random": (torch.get_rng_state(), np.random.get_state(), random.getstate()),  # noqa: NPY002
    }


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if isinstance(a, Tensor):
        return bool(a.shape == b.shape and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes())
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_the_comparison_can_fail() -> None:
    """One flipped sign of a zero is seen."""
    assert not same({"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])})


@pytest.mark.parametrize(
    ("lr", "max_steps", "own"),
    [(1e-2, 300, False), (1e-9, 40, False), (1e-2, 40, True), (1e9, 40, False)],
    ids=["passing", "failing", "own step, failing", "not finite"],
)
def test_state_is_bit_identical_after_probes_and_trials(lr: float, max_steps: int, own: bool) -> None:
    """Model, optimizer, batch, gradients, hooks, modes and every random generator."""
    model, batch = net(), data()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    step(model, batch, optimizer)  # with a state and gradients to lose
    before = state(model, optimizer, batch)
    result = run_overfit(
        model,
        batch,
        None if own else loss,
        optimizer=optimizer,
        step=step if own else None,
        stochastic=True,
        objective=0.3,
        max_steps=max_steps,
    )
    after = state(model, optimizer, batch)
    assert result.evidence is not None
    assert bool(result.evidence.attempts) is not (lr == 1e-2 and not own)
    assert {key for key in before if not same(before[key], after[key])} == set()
    assert torch.autograd.backward.__module__ == "torch.autograd"


def test_the_trained_state_is_kept_through_trials() -> None:
    """With keep_trained the model is that of the run, not of a trial."""
    kept, plain = net(), net()
    for model, diagnose in ((kept, True), (plain, False)):
        result = run_overfit(
            model, data(), loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-6), max_steps=30, keep_trained=True,
            diagnose=diagnose, defects=diagnose,
        )  # fmt: skip
        assert not result.passed
    assert same(kept.state_dict(), plain.state_dict())


def test_the_curve_is_that_of_a_run_that_nobody_looks_into() -> None:
    """Watching moves no number."""
    curves = []
    for diagnose in (True, False):
        result = run_overfit(net(), data(), loss, max_steps=60, stochastic=True, diagnose=diagnose, defects=diagnose)
        curves.append(result.record.curves["objective"])
    assert curves[0] == curves[1]


def test_a_diagnosis_keeps_to_its_seconds() -> None:
    """No trial begins after the time is over; with time for it some are made."""
    attempts = []
    for seconds in (1e-3, 60.0):
        result = run_overfit(
            net(), data(), loss, optimizer=lambda p: torch.optim.SGD(p, lr=1e-9), max_steps=40, diagnose_seconds=seconds
        )
        assert result.evidence is not None
        attempts.append(len(result.evidence.attempts))
    assert attempts[0] == 0
    assert attempts[1] > 2


def interrupting(after: int) -> Callable[..., Any]:
    """Trials of which one is interrupted."""
    made: list[str] = []
    original = trials.attempt

    def attempt(context: Any, change: Change, **limits: Any) -> Any:
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(change.trial.kind)
        return original(context, change, **limits)

    return attempt


def test_control_c_in_a_trial_keeps_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The causes so far, and a note; the model as it was."""
    monkeypatch.setattr(schedule, "attempt", interrupting(after=1))
    model = net()
    before = copy.deepcopy(model.state_dict())
    result = run_overfit(
        model, data(), loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), max_steps=30
    )
    assert result.interrupted
    assert result.causes[0].id == "optimizer-hyperparameter"
    assert "the diagnosis was interrupted after 1 trials" in result.failure_text()
    assert same(before, model.state_dict())


def test_user_code_is_called_no_more_often_than_documented() -> None:
    """Seven more calls of the loss after a run that passes, in two of which no model runs, and two to four for each of
    two layers; else none.
    """
    calls = []

    def counted(model: nn.Module, batch: Batch) -> Tensor:
        calls.append(1)
        return loss(model, batch)

    counts = []
    for diagnose in (True, False):
        calls.clear()
        model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 3))
        torch.manual_seed(0)
        for layer in (model[0], model[2]):
            layer.reset_parameters()  # type: ignore[operator]
        result = run_overfit(
            model, data(), counted, optimizer=lambda p: torch.optim.Adam(p, lr=0.01), max_steps=300, diagnose=diagnose,
            defects=diagnose, supervised=False,
        )  # fmt: skip
        assert result.passed
        counts.append(len(calls) - result.record.steps)
    assert 7 < counts[0] - counts[1] <= 7 + 4 * 2


def test_a_run_without_diagnosis_is_not_probed() -> None:
    """Nothing is looked for, and the defects criterion is not judged."""
    result = run_overfit(net(), data(), loss, max_steps=5, diagnose=False)
    assert result.evidence is None
    assert result.causes == ()
    assert "defects" not in [finding.name for finding in result.findings]


def test_at_least_two_seconds_are_left_for_a_run_that_ends_at_once() -> None:
    """The documented least time."""
    assert inspector.LEAST_SECONDS == 2.0
