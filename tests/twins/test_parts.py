"""The batch in parts: accumulation that is not the whole batch, and samples that see each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.twins.parts import parts_of, weights_of

Batch = tuple[Tensor, Tensor]
LABELS = torch.tensor([[1, 2, 3, 4], [1, 2, -100, -100], [4, -100, -100, -100], [0, 1, 2, -100], [3, 3, 1, 0]])


def net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(6, 16), *more, nn.Tanh(), nn.Linear(16, 5))


def tokens() -> Batch:
    """Five samples of 4, 2, 1, 3 and 4 labelled tokens."""
    return torch.arange(20).reshape(5, 4) % 6, LABELS


def token_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def twins(model: nn.Module, batch: Any, loss: Any = None, *, twin: str, **more: Any) -> list[TwinResult]:
    """The results of one twin."""
    result = run_overfit(model, batch, loss, twins=twin, max_steps=10, diagnose=False, **more)
    return list(result.record.twins)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_unequal_token_counts_are_weighted_as_the_loss_weights_them(dropout: float) -> None:
    """A mean over tokens is no mean over samples; dropout draws others in parts: both in evaluation mode then."""
    found = twins(net(nn.Dropout(dropout)), tokens(), token_loss, twin="accumulation")
    assert [each.name for each in found] == ["accumulation (2 parts)", "accumulation (5 parts)"]
    assert all(each.outcome == "agreed" for each in found), [each.text() for each in found]
    assert all("weighted by what 1 labels" in each.exchanged for each in found)
    assert all(("evaluation mode" in each.exchanged) == bool(dropout) for each in found)


def test_the_users_own_step_is_run_in_parts() -> None:
    """Its zeroing, clipping and schedule stay where they are."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = token_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        return loss

    found = twins(model, tokens(), step=step, twin="accumulation")
    assert [each.outcome for each in found] == ["agreed", "agreed"], [each.text() for each in found]


def test_a_loss_over_the_batch_as_a_whole_is_not_asked() -> None:
    """Contrast among the samples: no accumulation of ours is meant to be that loss."""

    def contrast(model: nn.Module, batch: Batch) -> Tensor:
        made = model(batch[0]).mean(1)
        return F.cross_entropy(made @ made.T, torch.arange(len(made)))

    found = twins(net(), tokens(), contrast, twin="accumulation")
    assert all("do not add up" in each.why for each in found), [each.text() for each in found]


def test_samples_that_are_mixed_in_training_do_not_accumulate() -> None:
    """What the model takes away is the mean of another batch in parts."""
    model, batch = dense(Mixing(always=False))
    batch = batch[0], torch.zeros(5, 1)
    found = twins(model, batch, lambda model, batch: (model(batch[0]) * batch[0]).mean() ** 2, twin="accumulation")
    assert "agreed" not in [each.outcome for each in found], [each.text() for each in found]


class Accumulating:
    """A step over micro-batches, with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault, self.model = fault, net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.5)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

    def step(self, batch: Batch) -> Tensor:
        return self.accumulate([batch], fault="")

    def accumulate(self, batches: Sequence[Batch], *, fault: str | None = None) -> Tensor:
        """What is right, but for the fault."""
        fault, total = self.fault if fault is None else fault, torch.zeros(())
        count = sum(int((labels != -100).sum()) for _, labels in batches)
        self.optimizer.zero_grad()
        for index, (x, labels) in enumerate(batches):
            if fault == "incomplete window" and index == len(batches) - 1:
                break
            if fault == "zeroed inside":
                self.optimizer.zero_grad()
            summed = F.cross_entropy(self.model(x).flatten(0, 1), labels.flatten(), reduction="sum")
            share = {"not scaled": 1 / int((labels != -100).sum())}.get(fault, 1 / count)
            if fault == "mean of means":
                share = 1 / int((labels != -100).sum()) / len(batches)
            self.scaler.scale(summed * share).backward()  # type: ignore[no-untyped-call]
            total = total + summed.detach() * share
            if fault == "clipped inside":
                nn.utils.clip_grad_norm_(self.model.parameters(), 64 * 0.05)
            if fault == "unscaled inside" and index == 0:
                self.scaler.unscale_(self.optimizer)
            if fault == "stepped inside":
                self._update()
            if fault == "scheduled inside":
                self.scheduler.step()
        if fault != "stepped inside":
            self._update()
        if fault != "scheduled inside":
            self.scheduler.step()
        return total

    def _update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


def test_accumulation_of_the_users_own_that_is_right_agrees() -> None:
    """Unequal token counts included."""
    made = Accumulating("")
    found = twins(made.model, tokens(), step=made.step, accumulate=made.accumulate, twin="accumulation")
    assert [each.outcome for each in found] == ["agreed", "agreed"], [each.text() for each in found]


@pytest.mark.parametrize(
    "fault",
    [
        *("not scaled", "mean of means", "stepped inside", "scheduled inside"),
        *("zeroed inside", "clipped inside", "unscaled inside", "incomplete window"),
    ],
)
def test_faults_of_accumulation_are_found(fault: str) -> None:
    """The kinds that trainparity 0.1.0 lists, written anew."""
    made = Accumulating(fault)
    found = twins(made.model, tokens(), step=made.step, accumulate=made.accumulate, twin="accumulation")
    assert "disagreed" in [each.outcome for each in found], [each.text() for each in found]
    assert all(each.step for each in found if each.outcome == "disagreed")


class Mixing(nn.Module):
    """Takes the mean of the batch away, in training or always."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if self.always or self.training else x


class Stuck(nn.BatchNorm1d):
    """A batch norm that no eval() reaches."""

    def forward(self, x: Tensor) -> Tensor:
        self.training = True
        return super().forward(x)


def dense(layer: nn.Module) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 1)), (torch.randn(5, 3), torch.randn(5, 1))


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


def test_parts_and_weights() -> None:
    """What has no axis of samples is in every part; a sum is a sum."""
    parts = parts_of({"x": torch.arange(5), "scale": torch.tensor(2.0)}, 2)
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3, 4]]
    assert all(float(part["scale"]) == 2 for part in parts)
    assert weights_of([torch.zeros(1), torch.zeros(3)], [4.0, 2.0], 6.0) == [([1.0, 1.0], "added up")]


class Halved(torch.autograd.Function):
    """A backward pass that divides by the number of samples where the forward pass does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 5 / len(gradients[0])


class Wrong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = Halved.apply(x)  # type: ignore[no-untyped-call]
        return made


def spread(model: nn.Module, batch: Batch) -> Tensor:
    """Asks the samples to differ by one: at the start, where they are nearly alike, it is one whatever the parts."""
    made = model(batch[0])
    return F.relu(1 - 1e-7 * made.detach().abs().sum() - made.var(0, correction=0).sum() / 1e4).mean()


def test_a_loss_whose_parts_add_up_by_chance_is_not_asked() -> None:
    """Along the difference of the gradients it parts; where it does not, a backward pass is wrong."""
    model, batch = dense(nn.Tanh())
    found = twins(model, batch, spread, twin="accumulation")
    assert {each.outcome for each in found} == {"not asked"}, [each.text() for each in found]
    assert all("add up" in each.why for each in found)
    model, batch = dense(Wrong())
    found = twins(model, batch, F.mse_loss, twin="accumulation")
    assert {each.outcome for each in found} == {"disagreed"}, [each.text() for each in found]
    assert {(each.step, each.gradients) for each in found} == {(1, "0")}, [each.text() for each in found]


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


class Silent(nn.Module):
    """Gives nothing at the start, whatever it is fed: every part of a batch costs the same then."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(3, 2), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gate * self.linear(x)
        return out


def test_parts_that_cost_the_same_are_weighted_as_their_gradients_say() -> None:
    """By samples, though labels of zeros and ones could be a mask."""
    data = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    found = twins(Silent(), data, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), twin="accumulation")
    assert [each.outcome for each in found] == ["agreed", "agreed"], [each.text() for each in found]
    assert all("weighted by samples" in each.exchanged for each in found)


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
