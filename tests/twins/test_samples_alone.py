"""Each sample alone against its batch: models that let samples see each other, and those that do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.twins.small_batches import Mixing, dense, twins


class Stuck(nn.BatchNorm1d):
    """A batch norm that no eval() reaches."""

    def forward(self, x: Tensor) -> Tensor:
        self.training = True
        return super().forward(x)


@pytest.mark.parametrize(
    ("layer", "evaluation", "training"),
    [
        (nn.Tanh(), "agreed", "agreed"),
        (nn.LayerNorm(8), "agreed", "agreed"),
        (nn.Dropout(0.2), "agreed", "not asked"),
        (nn.BatchNorm1d(8), "agreed", "not asked"),
        (nn.BatchNorm1d(8, track_running_stats=False), "disagreed", "not asked"),
        (Stuck(8), "disagreed", "not asked"),
        (Mixing(always=True), "disagreed", "disagreed"),
        (Mixing(always=False), "agreed", "disagreed"),
    ],
)
def test_samples_that_see_each_other_are_found_where_they_do(layer: nn.Module, evaluation: str, training: str) -> None:
    """In each mode of its own; a batch norm in training mode is what it says it is, and named."""
    model, batch = dense(layer)
    found = twins(model, batch, F.mse_loss, twin="batch")
    assert [each.outcome for each in found] == [evaluation, training], [each.text() for each in found]
    assert all(each.outputs == "1" for each in found if each.outcome == "disagreed")
    if isinstance(layer, nn.BatchNorm1d):
        assert "1 (" in found[1].why


class Pixels(nn.Module):
    """Takes images of three channels alone: the leading axis of its batch is none of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[0] == 3
        out: Tensor = self.linear(image.flatten(1).T)
        return out


def test_an_axis_that_is_none_of_samples_is_not_asked() -> None:
    """Where no part of the batch is taken either."""
    images = [torch.randn(3, 4, 4) for _ in range(2)]

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        return torch.stack([model(image).square().mean() for image in batch]).mean()

    for twin in ("batch", "accumulation"):
        found = twins(Pixels(), images, loss, twin=twin)
        assert {each.outcome for each in found} == {"not asked"}, [each.text() for each in found]


def test_one_sample_is_no_batch() -> None:
    """Not asked, and why."""
    model, _ = dense(nn.Tanh())
    for twin in ("batch", "accumulation"):
        (found,) = twins(model, (torch.randn(1, 3), torch.randn(1, 1)), F.mse_loss, twin=twin)[:1]
        assert (found.outcome, found.why) == ("not asked", "the batch has one sample")


class Remembering(nn.Module):
    """Keeps what it saw last, a row for each sample, as a spiking layer its potential."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor
        self.register_buffer("last", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.detach().clone()
        return torch.tanh(x)


@pytest.mark.parametrize("twin", ["accumulation", "ranks"])
def test_a_state_of_each_sample_shrinks_with_the_batch(twin: str) -> None:
    """It is none that training goes on from."""
    model, (x, y) = dense(Remembering())
    found = twins(model, (x[:4], y[:4]), F.mse_loss, twin=twin)
    assert {each.outcome for each in found} == {"agreed"}, [each.text() for each in found]


class Scores(nn.Module):
    """Takes as many targets as there are predictions, as a CRF does."""

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        assert made.shape == target.shape, f"{tuple(made.shape)} and {tuple(target.shape)}"
        return (made - target).square().mean(-1)


class Ragged(nn.Module):
    """Pads a batch to its longest sample, as packed sequences do: whoever cuts the batch leaves another length."""

    def __init__(self, squeezes: bool) -> None:
        super().__init__()
        self.linear, self.scores, self.squeezes = nn.Linear(3, 1), Scores(), squeezes

    def forward(self, x: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        made: Tensor = self.linear(x)[:, : int(lengths.max()), 0]
        scores: Tensor = self.scores(made.squeeze() if self.squeezes else made, target)
        return scores


@pytest.mark.parametrize("squeezes", [False, True])
def test_a_sample_that_is_refused_twice_is_not_refused_for_being_alone(squeezes: bool) -> None:
    """One that is taken twice and refused once is: its axis is squeezed away."""
    lengths = torch.tensor([4, 4, 4] if squeezes else [4, 2, 3])
    data = torch.randn(3, 4, 3), lengths, torch.randn(3, 4)
    found = twins(Ragged(squeezes), data, lambda model, batch: model(*batch).mean(), twin="batch")
    assert {each.outcome for each in found} == {"disagreed" if squeezes else "not asked"}, [t.text() for t in found]
    assert all(each.outputs == "scores" for each in found if squeezes)


class Times(nn.Module):
    """Goes on from point to point of its batch, as a solver does: its leading axis is time."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([[0.3]]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x * self.rate, 0)


class First(nn.Module):
    """Looks at the first sample for all of them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * (1 + x[:1])


def test_an_axis_whose_order_counts_has_no_samples() -> None:
    """Points of time are not asked alone; samples that all look at the first one are found."""
    for count in (3, 6):
        found = twins(Times(), (torch.rand(count, 1), torch.rand(count, 1)), F.mse_loss, twin="batch")
        assert all("the order along" in each.why for each in found), [each.text() for each in found]
    model, batch = dense(First())
    found = twins(model, batch, F.mse_loss, twin="batch")
    assert {(each.outcome, each.outputs) for each in found} == {("disagreed", "1")}, [each.text() for each in found]
