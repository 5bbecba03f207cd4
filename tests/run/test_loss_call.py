"""One call of the loss tells all that its graph knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.as_loss import as_loss
from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.loss_call import LossCall
from pytest_overfit.run.snapshot import Snapshot


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Any:
        COUNTS.append(1)
        return self.inner(x)


COUNTS: list[int] = []


def call_of(loss: Any) -> LossCall:
    net, batch = Counted(), (torch.randn(5, 3), torch.arange(5) % 4)
    snapshot = Snapshot()
    snapshot.add(net)
    COUNTS.clear()
    return LossCall(CallTask(net, net, as_loss(loss), batch, torch.device("cpu")), snapshot, seed=0)


def test_slopes_along_the_outputs_come_from_the_first_call() -> None:
    """Those of another batch from a call of its own; without a first call they are asked by themselves."""
    call = call_of(lambda out, y: F.cross_entropy(out[:3], y[:3]))
    call.as_the_run_does(call.task.batch)
    ((name, shape, grid),) = call.along_outputs(call.task.batch)["objective"]
    assert (name, tuple(shape), len(COUNTS)) == ("output", (5, 4), 1)
    assert grid is not None
    assert grid.any(1).tolist() == [True, True, True, False, False]
    x, y = call.task.batch
    call.along_outputs((x, y.flip(0)))
    assert len(COUNTS) == 2

    alone = call_of(F.cross_entropy)
    alone.along_outputs(alone.task.batch)
    alone.along_outputs(alone.task.batch)
    assert len(COUNTS) == 1


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError("no way back")


def test_what_cannot_be_differentiated_is_told_where_its_slopes_are_asked_for() -> None:
    """The call itself gives its numbers: a run may get as far as that."""
    call = call_of(lambda out, y: Refusing.apply(F.cross_entropy(out, y)))  # type: ignore[no-untyped-call]
    outputs, terms = call.as_the_run_does(call.task.batch)
    assert [name for name, _ in outputs] == ["output"]
    assert terms["objective"] > 0
    with pytest.raises(Refused, match="no way back"):
        call.along_outputs(call.task.batch)
