"""A floor is where every search over free predictions ends, and never above what the run reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Floor
from pytest_overfit.diagnose.questions.loss_floor import find_floor
from pytest_overfit.errors.asking import Unanswerable
from pytest_overfit.run.as_loss import as_loss
from pytest_overfit.run.call_task import CallTask

BATCH = torch.ones(4, 3), torch.full((4, 2), 0.5)


def searched(loss: Any, *, limit: float = 0.1, ran: float = 0.3, seconds: float = 600.0) -> Floor | None:
    """The floor of a loss of outputs and targets under one linear model."""
    net = nn.Linear(3, 2)
    task = CallTask(net, net, as_loss(lambda model, batch: loss(model(batch[0]), batch[1])), BATCH, torch.device("cpu"))
    return find_floor(task, [("", net)], limit=limit, seconds=seconds, scales={8: 0.5}, ran=ran)


def above(outputs: Tensor, target: Tensor) -> Tensor:
    """Never below 0.2."""
    return (outputs - target).square().mean() + 0.2


def test_a_floor_is_found() -> None:
    """From both starts, and the run ended above it."""
    found = searched(above)
    assert found is not None
    assert [found.reached, found.elsewhere] == pytest.approx([0.2, 0.2], abs=1e-3)
    assert not found.unbounded


@pytest.mark.parametrize("ran", [0.15, 0.09])
def test_a_floor_that_the_run_went_through_is_none(ran: float) -> None:
    """It is not asked, and not told."""
    with pytest.raises(Unanswerable, match="the run got below it"):
        searched(above, ran=ran)


def test_a_search_that_still_falls_is_no_floor() -> None:
    """An absolute error that is far away, in steps that are too small for it."""
    with pytest.raises(Unanswerable, match="still falls"):
        searched(lambda outputs, target: (outputs - 1e4 * target).abs().mean(), ran=5000.0)


def test_a_search_without_time_is_no_floor() -> None:
    """A slower machine says nothing, and not something else."""
    with pytest.raises(Unanswerable, match="no time"):
        searched(above, seconds=-1.0)


def test_a_likelihood_without_a_floor_is_bottomless() -> None:
    """One output alone brings it down without end."""
    found = searched(lambda outputs, target: (outputs - target).mean(), ran=-1.0)
    assert found is not None
    assert found.unbounded
    assert found.alone == ("output",)


@pytest.mark.parametrize(
    ("loss", "alone"),
    [
        (lambda outputs, target: -(outputs - target).square().mean().add(1e-6).log(), ["output"]),
        (lambda outputs, target: -nn.functional.cosine_similarity(outputs, target.cumsum(1)).mean(), []),
        (lambda outputs, target: -(outputs * target.sign()).tanh().mean(), []),
    ],
)  # fmt: skip
def test_a_loss_that_falls_as_slowly_as_a_logarithm_has_no_floor_either(loss: Any, alone: list[str]) -> None:
    """A hundred times as far is better still; what is bounded is not."""
    found = searched(loss, ran=-0.5)
    assert found is not None
    assert list(found.alone) == alone


@pytest.mark.parametrize("seed", [5, 10, 28])
def test_a_search_does_not_end_where_it_goes_through_zero(seed: int) -> None:
    """What the run brought below zero has no floor there, from whichever predictions it starts."""
    torch.manual_seed(seed)
    found = searched(lambda outputs, target: -(outputs - target).square().mean().add(1e-6).log(), ran=-0.5)
    assert found is not None
    assert found.reached < 0
    assert found.alone == ("output",)


@pytest.mark.parametrize(("factor", "reads"), [(1.0, True), (1e-6, False)])
def test_what_the_weights_hold_up_is_theirs(factor: float, reads: bool) -> None:
    """A penalty on them, and none where the floor would be there without it; the weights are as they were."""
    net = nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in net.parameters()]

    def loss(model: nn.Linear, batch: Any) -> Tensor:
        rest = 0.0 if reads else 0.2
        error: Tensor = (model(batch[0]) - batch[1]).square().mean()
        return error + factor * model.weight.square().sum() + rest

    task = CallTask(net, net, as_loss(loss), BATCH, torch.device("cpu"))
    found = find_floor(task, [("", net)], limit=0.01, seconds=600.0, scales={8: 0.5}, ran=9.0)
    assert found is not None
    assert found.reads_weights is reads
    assert all(map(torch.equal, before, net.parameters()))
