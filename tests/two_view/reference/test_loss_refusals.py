"""What the multitask loss refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss
from tests.two_view.reference.cases import make_batch, noisy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"camera": {"loss_type": "l3"}}, "camera.loss_type: 'l3'\n  allowed: l1, l2, smooth_l1, huber"),
        ({"depth": {"gradient_loss_fn": "normal"}}, "depth.gradient_loss_fn: 'normal'\n  allowed: grad, null"),
        ({"depth": {"valid_range": 98}}, "depth.valid_range: 98\n  allowed: 0..1; 0 or null: off"),
        (
            {"camera": {"weigth": 1.0}},
            "camera: unknown key 'weigth', did you mean 'weight'?\n  allowed: weight, loss_type",
        ),
        ({"depth": {"weight": "1e-4"}}, "depth: weight is '1e-4', not a number\n"),
        (
            {"point": {"weight": 1.0}},
            "point: {'weight': 1.0}: this part is not supported by this loss\n  allowed: null",
        ),
        ({"track": {}}, "track: {}: this part is not supported by this loss\n  allowed: null"),
        ({"camera": None, "depth": None}, "loss: camera and depth are both null: nothing to learn"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    """A wrong setting is a configuration error that names the key, what was seen and what is allowed."""
    with pytest.raises(ConfigError) as error:
        MultitaskLoss(**settings)
    assert str(error.value).startswith(message)


def test_all_wrong_keys_are_reported_together() -> None:
    """Two unknown keys appear in one error."""
    with pytest.raises(ConfigError, match=r"unknown key 'aplha', did you mean 'alpha'.*; unknown key 'zzz'"):
        MultitaskLoss(depth={"aplha": 1.0, "zzz": 2.0})


def _without(key: str) -> Any:
    return lambda predictions, batch: (predictions if key in predictions else batch).pop(key)


def _reshaped(key: str, shape: tuple[int, ...]) -> Any:
    return lambda predictions, batch: predictions.update({key: torch.ones(shape)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("extrinsics"), "batch: no key 'extrinsics'"),
        (_without("depths"), "batch: no key 'depths'"),
        (_without("depth_conf"), "predictions: no key 'depth_conf'"),
        (
            _reshaped("depth", (1, 2, 56, 70)),
            r"predictions\['depth'\]: shape \(1, 2, 56, 70\)\n  allowed: \(1, 2, 56, 70, 1\)",
        ),
        (_reshaped("depth_conf", (1, 2, 56, 70, 1)), r"predictions\['depth_conf'\]: shape"),
        (_reshaped("pose_enc_list", (4, 1, 1, 9)), r"predictions\['pose_enc_list'\]\[0\]: shape \(1, 1, 9\)"),
        (_reshaped("pose_enc_list", (0, 1, 2, 9)), "no stage"),
    ],
)
def test_predictions_and_batches_that_are_refused(spoil: Any, message: str) -> None:
    """What would broadcast into a wrong number, or is missing, is refused by name."""
    batch = make_batch()
    predictions = noisy(batch)
    spoil(predictions, batch)
    with pytest.raises(OverfitError, match=message):
        MultitaskLoss()(predictions, batch)


def test_nothing_to_supervise() -> None:
    """Predictions without any known key are an error, not an objective of 0."""
    with pytest.raises(
        OverfitError, match=r"nothing to supervise among \['logits'\]\n  allowed: pose_enc_list or depth"
    ):
        MultitaskLoss()({"logits": torch.ones(1)}, make_batch())
