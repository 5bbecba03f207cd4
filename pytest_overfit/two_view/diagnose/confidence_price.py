"""Asks a loss what it pays for a confidence: the predictions are held, and each changed alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.questions.held_outputs import Held, called, freed
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.two_view.diagnose.confidence import ConfidencePrice, ConfidencePrices, wrong_way
from pytest_overfit.two_view.diagnose.view_lookup import has_shape, is_two_view

DEPTHS, CONFIDENCES = ("depth", "depths"), ("depth_conf", "depth_confidence")
TENS = (1.0, 1e1, 1e2, 1e3, 1e4)  # times a confidence
GROSS, NEARLY = 100.0, 0.01  # times the error of the depth
ROUNDED = 1e-6  # of an objective: what float32 makes of it
UNLIKE = 1e-3  # of an objective: a confidence that counts


def measure_prices(context: RunContext, outputs: Mapping[str, Tensor]) -> ConfidencePrices | None:
    """Of each confidence of a depth whether the loss pays for one end of it alone, and what that bought in the run.

    Args:
        outputs: those of the trained model, by name.
    """
    task, batch = loss_of(context), context.task.batch
    if task is None or not is_two_view(batch):
        return None
    on, found = context.on(task), list[ConfidencePrice]()
    with context.at_start(), freed(listened_to(getattr(task, "given", task.model))) as free:
        held = Held(on.seeded, free, batch)
        leaves = {called(place): leaf for place, leaf in free.leaves.items()}
        start, began = _objective(held, batch), {name: leaf.detach().clone() for name, leaf in leaves.items()}
        trained = {name: outputs[name].to(leaf) for name, leaf in leaves.items() if _fits(outputs.get(name), leaf)}
        loss = _Loss(held, batch, leaves, began | trained)
        for name, depth in _pairs(leaves, batch["depths"]):
            if name in trained and depth in trained:
                found += loss.price(name, depth, began[name], start)
    return ConfidencePrices(found)


def _fits(tensor: Tensor | None, leaf: Tensor) -> bool:
    return tensor is not None and tensor.shape == leaf.shape and bool(torch.isfinite(tensor).all())


def _objective(held: Held, batch: Any) -> float:
    return float(held(batch)[1]["objective"].detach())


def _pairs(leaves: Mapping[str, Tensor], truth: Tensor) -> list[tuple[str, str]]:
    """Every map of the shape of the depth beside the depth that it may be the confidence of."""
    shapes = (tuple(truth.shape), (*truth.shape, 1))
    maps = [name for name, leaf in leaves.items() if tuple(leaf.shape) in shapes]
    depths = [name for name in maps if name.rpartition(".")[2] in DEPTHS]
    found = []
    for name in maps if depths else ():
        if name not in depths:
            beside = [depth for depth in depths if depth.rpartition(".")[0] == name.rpartition(".")[0]]
            found.append((name, min(beside or depths)))
    return found


class _Loss:
    """A loss under predictions that are all held but two."""

    def __init__(
        self, held: Held, batch: Mapping[str, Any], leaves: Mapping[str, Tensor], values: Mapping[str, Tensor]
    ) -> None:
        self.held, self.batch, self.leaves, self.values = held, batch, leaves, values
        truth = batch["depths"]
        counts = torch.isfinite(truth) & (truth > 0)
        if has_shape(batch.get("point_masks"), truth.shape):
            counts &= batch["point_masks"].bool()
        self.truth, self.counts = truth, counts

    def __call__(self, **changed: Tensor) -> float:
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(changed.get(name, self.values[name]))
        return _objective(self.held, self.batch)

    def price(self, name: str, depth: str, began: Tensor, start: float) -> Sequence[ConfidencePrice]:
        """Empty where the loss does not read it, or has a best confidence for each error."""
        end, without = self(), self(**{name: began})
        values, predicted = self.values[name], self.values[depth]
        truth, counts = self.truth.reshape(predicted.shape).to(predicted), self.counts.reshape(predicted.shape)
        times = bool((values >= 0).all())  # else it is a logarithm

        def wrong(k: float) -> Tensor:
            return torch.where(counts, truth + k * (predicted - truth), predicted)

        def step(s: float) -> Tensor:
            return values * s if times else values + math.log(s)

        def ladder(up: bool, error: float) -> tuple[float, ...]:
            return tuple(self(**{name: step(s if up else 1 / s), depth: wrong(error)}) for s in TENS)

        scaled = {
            "larger": ladder(True, GROSS), "worse": ladder(True, 10 * GROSS),
            "smaller": ladder(False, NEARLY), "better": ladder(False, 10 * NEARLY),
        }  # fmt: skip
        sizes = [abs(value) for values in scaled.values() for value in values[:1]]
        way = wrong_way(scaled, ROUNDED * max(*sizes, abs(end)))
        if way == "apart" and abs(without - end) <= UNLIKE * abs(without):
            way = ""  # it is not read
        error = float(((predicted - truth).abs() / truth)[counts].median()) if bool(counts.any()) else 0.0
        named = name.rpartition(".")[2] in CONFIDENCES or self._weighs(name, depth, began, wrong)
        return [ConfidencePrice(name, way, start, end, without, error)] if way and named else []

    def _weighs(self, name: str, depth: str, began: Tensor, wrong: Callable[[float], Tensor]) -> bool:
        """Whether an error costs another amount with this confidence than with that."""
        now = self(**{depth: wrong(2.0)}) - self()
        then = self(**{name: began, depth: wrong(2.0)}) - self(**{name: began})
        return abs(now - then) > UNLIKE * max(abs(now), abs(then))
