"""No rule takes the shape of anything for granted: scalars, empty tensors and single columns are outputs too."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.catalogue import FAMILIES
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.two_view.diagnose.view_causes import FAMILY as VIEWS

RULES = tuple(rule for family in (*FAMILIES, VIEWS) for rule in family.rules)

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (5,), (0, 3), (3, 0), (1, 1), (2, 3, 4), (2, 0, 4, 1))
LABELS = torch.arange(6) % 3


class Returned(nn.Module):
    """Returns its own loss, and its inner module does so too, as the models of transformers do."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner = Inner(layer)

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return {"loss": self.inner(x, labels)[0]}


class Inner(nn.Module):
    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body = layer()

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return (F.cross_entropy(self.body(x), labels),)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
    "narrow": lambda: nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 3)),
    "normalised": lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 3)),
}


def failed(name: str) -> Evidence:
    batch = {"x": torch.randn(6, 4), "labels": LABELS}
    result = run_overfit(lambda: Returned(LAYERS[name]), batch, max_steps=20, objective=1e-9)
    assert result.evidence is not None
    return result.evidence


@pytest.mark.parametrize("name", LAYERS)
def test_a_failed_run_of_a_model_that_returns_its_own_loss(name: str) -> None:
    """Ends with its verdict."""
    batch = {"x": torch.randn(6, 4), "labels": LABELS}
    result = run_overfit(lambda: Returned(LAYERS[name]), batch, max_steps=3)
    assert "objective" in result.failure_text()
    assert [each.text() for each in result.not_asked if each.ours] == []


@pytest.mark.parametrize("name", LAYERS)
def test_every_rule_takes_every_shape(name: str) -> None:
    """Of modules, parameters, outputs and tensors of the batch, in a run that failed and in one that passed."""
    evidence = failed(name)
    passed = replace(evidence, findings=tuple(replace(each, passed=True) for each in evidence.findings))
    for shape, seen, rule in itertools.product(SHAPES, (evidence, passed), RULES):
        for given in (shaped(seen, shape), without_steps(shaped(seen, shape))):
            list(rule(given))


def shaped(evidence: Evidence, shape: tuple[int, ...]) -> Evidence:
    """The same evidence of tensors of another shape."""
    probed = replace(
        evidence.probed,
        modules=tuple(replace(each, shape=shape) for each in evidence.probed.modules),
        outputs=tuple(replace(each, shape=shape, gradient=1.0) for each in evidence.probed.outputs),
        tensors=tuple(replace(each, shape=shape) for each in evidence.probed.tensors),
    )
    steps = tuple(
        replace(step, modules=tuple(replace(each, shape=shape) for each in step.modules)) for step in evidence.steps
    )
    updates = tuple(replace(each, shape=shape) for each in evidence.updates)
    both = [updates, evidence.updates]
    return replace(evidence, probed=probed, steps=steps, updates=both[len(shape) % 2])


def without_steps(evidence: Evidence) -> Evidence:
    """Where no step was seen."""
    return replace(evidence, steps=())
