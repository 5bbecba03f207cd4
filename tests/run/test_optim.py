"""Freezing by pattern, building the optimizer, clipping by group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_overfit.errors import ConfigError
from pytest_overfit.run.optim import GradientClipper, freeze, set_hyperparameter
from pytest_overfit.run.record import FreezeMatch
from pytest_overfit.settings.settings import ClipGroup
from pytest_overfit.trainer.build import build_optimizer


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"aggregator": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "camera_head": nn.Linear(4, 2)}
    )


def test_a_pattern_freezes_modules_and_keeps_them_in_eval_mode() -> None:
    """Frozen parameters take no gradient; frozen batch statistics do not drift."""
    net = model()
    frozen = freeze(net, ["*aggregator*"])
    assert frozen.matches == (FreezeMatch("*aggregator*", 4, 24),)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {
        "camera_head.weight",
        "camera_head.bias",
    }
    net.train()
    frozen.hold()
    assert not net["aggregator"][1].training  # type: ignore[index]
    assert net["camera_head"].training  # type: ignore[index]


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    """A typo in a pattern would train what should be frozen."""
    with pytest.raises(ConfigError) as caught:
        freeze(model(), ["*agregator*"])
    assert "matches no module and no parameter" in str(caught.value)
    assert "did you mean '*aggregator*'?" in str(caught.value)


def test_the_optimizer_takes_its_settings() -> None:
    """optim.optimizer is instantiated over the parameters."""
    net = model()
    optimizer = build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}, net.parameters())
    assert optimizer.param_groups[0]["momentum"] == 0.9
    set_hyperparameter(optimizer, "lr", 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.optim.NoSuch"},
        {"_target_": "torch.optim.AdamW", "learning_rate": 0.1},
        {"_target_": "torch.optim.AdamW", "lr": -1.0},
        {"_target_": "builtins.list"},
    ],
)
def test_a_wrong_optimizer_is_a_config_error(node: dict[str, object]) -> None:
    """Unknown class, unknown keyword, value out of range, not an optimizer."""
    with pytest.raises(ConfigError, match=r"optim\.optimizer"):
        build_optimizer(node, model().parameters())


def test_each_group_is_clipped_to_its_own_norm() -> None:
    """Groups match by part of the name or by glob; what no group claims is left alone and listed."""
    net = model()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    clip = GradientClipper(net, [ClipGroup(("aggregator.0",), max_norm=1.0), ClipGroup(("camera_*bias",), 2.0)])
    clip()
    norms = {name: float(p.grad.norm()) for name, p in net.named_parameters() if p.grad is not None}
    assert (norms["aggregator.0.weight"] ** 2 + norms["aggregator.0.bias"] ** 2) ** 0.5 == pytest.approx(1.0, abs=1e-4)
    assert norms["camera_head.bias"] == pytest.approx(2.0, abs=1e-4)
    assert norms["camera_head.weight"] == pytest.approx(10 * 8**0.5)
    assert clip.unclaimed == ("aggregator.1.weight", "aggregator.1.bias", "camera_head.weight")
