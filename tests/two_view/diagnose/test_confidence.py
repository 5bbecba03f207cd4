"""A confidence that the loss pays for whatever the depth is, against those that follow its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.scene import scene_batch
from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.evidence import Evidence, fact_name
from pytest_overfit.judge.finding import Finding
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.two_view.diagnose.confidence import ConfidencePrice, ConfidencePrices, confidence_pays, wrong_way
from pytest_overfit.two_view.reference import MultitaskLoss
from tests.support.records import record
from tests.support.told import told

Weigh = Callable[[Tensor, Tensor], Tensor]
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "unbounded": lambda raw: 1 + raw.exp(),
    "positive": F.softplus,
    "share": torch.sigmoid,
    "raw": lambda raw: raw,
}


class Sure(nn.Module):
    """Depths of the views of a pair, and how sure it is of each."""

    def __init__(self, batch: Any, shape: str, name: str) -> None:
        super().__init__()
        self.size, (height, width) = batch["depths"].shape, batch["depths"].shape[-2:]
        self.pool, self.trunk = nn.AdaptiveAvgPool2d(6), nn.Linear(3 * 6 * 6, 32)
        self.log_depth, self.raw = (nn.Linear(32, height * width) for _ in range(2))
        self.shape, self.name = SHAPES[shape], name

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(self.pool(images[0] - 0.5).flatten(1)).tanh()
        depth, raw = self.log_depth(hidden).exp().view(self.size), self.raw(hidden).view(self.size)
        return {"depth": depth[..., None], self.name: self.shape(raw)}


def run(weigh: Weigh, shape: str, *, name: str = "depth_conf", steps: int = 40, **limits: Any) -> OverfitResult:
    batch = scene_batch()

    def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        predicted, mask = model(batch["images"]), batch["point_masks"]
        error = (predicted["depth"][..., 0][mask] / batch["depths"][mask] - 1).abs()
        return {"objective": weigh(error, predicted[name][mask]).mean(), "loss_depth": error.mean()}

    adam = lambda p: torch.optim.Adam(p, lr=0.02)  # noqa: E731
    asked = {"objective": 0.03, "depth": 0.01, "unbounded": True, **limits}
    return run_overfit(Sure(batch, shape, name), batch, loss, optimizer=adam, max_steps=steps, **asked)


FREE: dict[str, tuple[Weigh, str, str]] = {
    "divided": (lambda error, c: error / c, "unbounded", "depth_conf"),
    "divided, beside a logarithm": (lambda error, c: error / c - 0.3 * c.log(), "unbounded", "depth_conf"),
    "no price of doubt": (lambda error, c: error * c, "positive", "depth_conf"),
    "no price of doubt, by another name": (lambda error, c: error * c, "share", "trust"),
    "doubt is paid for": (lambda error, c: error * c + 0.3 * c.log(), "positive", "depth_conf"),
    "certainty beside the error": (lambda error, c: error - 0.3 * c.log(), "unbounded", "depth_conf"),
    "a logarithm of a variance without its price": (lambda error, s: error * (-s).exp(), "raw", "log_var"),
}
SOUND: dict[str, tuple[Weigh, str]] = {
    "as in VGGT": (lambda error, c: error * c - 0.2 * c.log(), "unbounded"),
    "beside the error": (lambda error, c: error * c - 0.2 * c.log() + error, "unbounded"),
    "bounded": (lambda error, c: error * c.clamp(max=3) - 0.2 * c.clamp(max=3).log(), "unbounded"),
    "a likelihood": (lambda error, s: error * (-s).exp() + 0.1 * s, "raw"),
    "a share": (lambda error, c: error * c - 0.1 * c.log(), "share"),
    "not read": (lambda error, c: error + 0 * c, "unbounded"),
}


@pytest.mark.parametrize("name", FREE)
def test_a_confidence_that_costs_nothing_is_the_cause(name: str) -> None:
    """Whichever way it runs, from wherever it starts, whatever it is called."""
    weigh, shape, output = FREE[name]
    result = run(weigh, shape, name=output)
    assert told(result) == "confidence-runaway"
    assert result.causes[0].where == f"output {output}"


@pytest.mark.parametrize("steps", [3, 40, 300])
@pytest.mark.parametrize("name", SOUND)
def test_a_confidence_that_follows_the_error_is_none(name: str, steps: int) -> None:
    """Just begun, on its way and well trained."""
    weigh, shape = SOUND[name]
    result = run(weigh, shape, steps=steps, depth=1e-9)
    assert not result.passed
    assert "confidence-runaway" not in [cause.id for cause in result.causes]


def test_the_loss_of_vggt_pays_for_the_right_confidence() -> None:
    """With its clamps, its quantile and its terms beside."""
    batch, loss = scene_batch(), MultitaskLoss(camera=None)
    adam = lambda p: torch.optim.Adam(p, lr=0.02)  # noqa: E731
    for steps in (5, 120):
        result = run_overfit(
            Sure(batch, "unbounded", "depth_conf"), batch, lambda model, batch: loss(model(batch["images"]), batch),
            optimizer=adam, max_steps=steps, objective=-9.0, unbounded=True,
        )  # fmt: skip
        assert not result.passed
        assert "confidence-runaway" not in [cause.id for cause in result.causes]


def test_a_limit_that_the_confidence_alone_has_met_is_a_defect() -> None:
    """A run that passes fails for it; and passes where the depth has earned it."""
    weigh, shape, _ = FREE["divided"]
    swallowed = run(weigh, shape, steps=200, depth=None, objective=0.01)
    assert told(swallowed) == "confidence-runaway"
    assert swallowed.causes[0].certain
    assert run(weigh, shape, steps=200, depth=0.05, objective=0.05).passed


PRICE = ConfidencePrice("depth_conf", "larger", 1.0, 0.001, 0.4, 0.3)


@pytest.mark.parametrize(
    ("price", "passed", "found"),
    [
        (PRICE, False, [True]),
        (PRICE, True, [True]),  # that limit was met by the confidence alone
        (ConfidencePrice("depth_conf", "smaller", 1.0, 0.001, 0.009, 0.3), True, []),
        (ConfidencePrice("depth_conf", "apart", 1.0, 0.2, 0.3, 0.3), False, [False]),
    ],
)
def test_when_it_is_certain(price: ConfidencePrice, passed: bool, found: list[bool]) -> None:
    """By what the run came to, and by no size of a confidence."""
    facts = {fact_name(ConfidencePrices): ConfidencePrices([price])}
    curves, limits = {"objective": (1.0, price.end)}, {"objective": Limit(below=0.01)}
    finding = Finding("objective", passed, "", "")
    evidence = Evidence(record(planned_steps=2, curves=curves), (finding,), limits, facts=facts)
    assert [cause.certain for cause in confidence_pays(evidence)] == found


def test_ways_of_a_loss() -> None:
    """At the edges: a loss that rises anywhere, one that stays, one that is no number."""
    rising, falling, still = (1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (1.0, 1.0, 1.0)
    sound = {"larger": rising, "worse": rising, "smaller": rising, "better": rising}
    assert wrong_way(sound, 1e-6) == ""
    assert wrong_way(sound | {"larger": falling, "worse": falling}, 1e-6) == "larger"
    assert wrong_way(sound | {"smaller": falling, "better": falling}, 1e-6) == "smaller"
    assert wrong_way(dict.fromkeys(sound, still), 1e-6) == "apart"
    assert wrong_way(dict.fromkeys(sound, (1.0, float("nan"), 1.0)), 1e-6) == ""
    bounded = sound | {"smaller": (3.0, 1.0, 1.0), "better": (30.0, 10.0, 10.0)}  # at its bound an error still counts
    assert wrong_way(bounded, 1e-6) == ""
