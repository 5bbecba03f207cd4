"""What is listened to in the first step: the user's code, and neither our own work nor that of torch's optimizers."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.step_calls import calls_told
from pytest_overfit.diagnose.questions.torch_functions import TorchFunctions, steps_unheard
from pytest_overfit.errors.asking import Questions

MOST_EVENTS = 2500  # of a profile, in the first step of a network of two layers


def run(**how: Any) -> OverfitResult:
    source = torch.Generator().manual_seed(0)
    batch = torch.randn(8, 16, generator=source), torch.arange(8) % 4
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    return run_overfit(net, batch, F.cross_entropy, objective=0.05, max_steps=300, **how)


def events(result: OverfitResult) -> list[str]:
    """The kinds of calls that were heard in the first step."""
    assert result.evidence is not None
    return [event.kind for event in result.evidence.steps[0].events]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the interpreter tells of single functions there")
def test_our_own_work_is_not_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, setprofile = [0], sys.setprofile

    def counting(profile: Any) -> None:
        def each(*event: Any) -> None:
            counted[0] += 1
            profile(*event)

        each.__module__ = getattr(profile, "__module__", "")
        setprofile(profile if profile is None or profile.__name__ == "each" else each)

    run(lr=1e-2)  # what is imported, and kept
    monkeypatch.setattr(sys, "setprofile", counting)
    result = run(lr=1e-2)
    assert result.passed
    assert {"backward", "step"} <= {*events(result)}
    assert 0 < counted[0] <= MOST_EVENTS


def test_a_hook_of_the_users_is_heard_within_the_step_of_an_optimizer() -> None:
    def clipping(parameters: Any) -> torch.optim.Optimizer:
        held = list(parameters)
        optimizer = torch.optim.Adam(held, lr=1e-2)
        optimizer.register_step_pre_hook(lambda *_: void(nn.utils.clip_grad_norm_(held, 1e3)))
        return optimizer

    assert "clip" in events(run(optimizer=clipping))
    assert "clip" not in events(run(lr=1e-2))


def void(_: Any) -> None:
    """A hook that returns something changes what the step is given."""


def test_an_optimizer_that_raises_is_heard_again_after_it() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    raising, told, names = torch.optim.SparseAdam([weight]), [], []

    def operation(name: str, *_: Any) -> None:
        names.append(name)

    listening = TorchFunctions(operation, (), Questions())
    with calls_told(lambda kind, frame: told.append(kind)) as heard:
        profile = sys.getprofile()
        with listening:
            with steps_unheard(), pytest.raises(RuntimeError, match="dense"):
                raising.step()  # type: ignore[no-untyped-call]
            mode = _get_current_function_mode()  # type: ignore[no-untyped-call]
            assert (sys.getprofile(), mode) == (profile, listening)
            value: Tensor = (weight * weight).sum()
            value.backward()  # type: ignore[no-untyped-call]
    assert heard
    assert sys.getprofile() is None
    assert "backward" in told
    assert "mul" in names or "__mul__" in names
