"""What is paid at a step where nothing looks: no hook on a model whose outputs are at hand, none on an optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import optimizer as hooks

from pytest_overfit import run_overfit

STEPS = 60
LOOKED_AT = [*range(8), 17, 41, 49, 50]


def listeners(loss: Any, **more: Any) -> tuple[list[int], list[int]]:
    """The hooks on the model, and those on optimizers, at every step of a run that passes."""
    on_model: list[int] = []
    on_optimizers: list[int] = []

    class Hearing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            on_model.append(sum(len(module._forward_hooks) for module in net.modules()))
            on_optimizers.append(len(hooks._global_optimizer_pre_hooks))
            return super().step(closure)

    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    batch = torch.randn(6, 4), torch.arange(6) % 3
    result = run_overfit(
        net, batch, loss, optimizer=lambda p: Hearing(p, 0.1), objective=100.0, hold_steps=STEPS, **more
    )
    assert (result.record.steps, result.record.stop) == (STEPS, "passed"), result.summary()
    return on_model[:STEPS], on_optimizers[:STEPS]


def test_nothing_listens_between_two_looks() -> None:
    """A criterion is given the outputs; optimizers are heard in the steps that are looked at."""
    on_model, on_optimizers = listeners(F.cross_entropy)
    assert not any(on_model[8:])
    assert [step for step, count in enumerate(on_optimizers) if count] == LOOKED_AT


def test_a_loss_of_the_model_is_listened_to_at_every_step() -> None:
    """What it does with the outputs nobody knows: a NaN that it hides is found by a hook on the model alone."""
    on_model, on_optimizers = listeners(lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    assert set(on_model[8:]) == {1}
    assert [step for step, count in enumerate(on_optimizers) if count] == LOOKED_AT


def test_two_runs_look_at_the_same_steps() -> None:
    """What is looked at follows from the number of the step, and not from a clock."""
    assert listeners(F.cross_entropy) == listeners(F.cross_entropy)


@pytest.mark.parametrize("own", [False, True])
def test_every_step_of_an_optimizer_counts(own: bool) -> None:
    """Also those that are not looked at: half of the steps of a train step without an update are told."""
    calls: list[int] = []

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        calls.append(1)
        loss = F.mse_loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if not own or len(calls) % 2:
            optimizer.step()
        return loss

    batch = torch.randn(6, 4), torch.randn(6, 3)
    result = run_overfit(
        nn.Linear(4, 3), batch, step=step, optimizer=lambda p: torch.optim.SGD(p, 1e-4), max_steps=200, objective=1e-9
    )
    told = [cause.evidence["optimizer_steps"] for cause in result.causes if cause.id == "no-step"]
    assert told == ([100] if own else [])
