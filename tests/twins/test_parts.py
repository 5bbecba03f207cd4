"""The batch in parts: accumulation that is not the whole batch, and samples that see each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.twins.parts import parts_of, weights_of
from tests.twins.small_batches import Batch, Mixing, dense, net, token_loss, tokens, twins


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
