"""The traps of the multitask loss: the ones it keeps from the original, and the ones it closes."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss
from tests.two_view.reference.cases import TERMS, leaves, make_batch, noisy, perfect


def test_dummy_batch_gives_exactly_zero() -> None:
    """Trap 1: on the original's all-zero batch every term is exactly 0, so no criterion on a term can see it."""
    batch = {key: torch.zeros_like(value) for key, value in make_batch().items()}
    terms = MultitaskLoss()(noisy(make_batch()), batch)
    assert {key: value.item() for key, value in terms.items()} == dict.fromkeys(("objective", *TERMS), 0.0)


@pytest.mark.parametrize(("points", "zero"), [(99, True), (100, False)])
def test_depth_gate(points: int, zero: bool) -> None:
    """Fewer than 100 valid pixels in all frames together give a depth part of exactly 0, without gradient."""
    batch = make_batch(valid=0.0)
    batch["point_masks"].view(-1)[:points] = True
    predictions = noisy(batch)
    terms = MultitaskLoss(camera=None)(predictions, batch)
    terms["objective"].backward()
    assert [bool(terms[key] == 0) for key in TERMS[4:]] == [zero] * 3
    assert bool((predictions["depth"].grad == 0).all()) is zero


@pytest.mark.parametrize(("points", "zero"), [(100, True), (101, False)])
def test_camera_gate(points: int, zero: bool) -> None:
    """A sample counts for the camera only if its first frame has more than 100 valid points; others are left out."""
    batch = make_batch(samples=2)
    batch["point_masks"][0, 0] = False
    batch["point_masks"][0, 0].view(-1)[:points] = True
    predictions = noisy(batch)
    loss = MultitaskLoss(depth=None)
    gated = loss(predictions, batch)["loss_camera"]
    second = {key: value[1:] for key, value in batch.items()}
    alone = loss({"pose_enc_list": [stage[1:] for stage in predictions["pose_enc_list"]]}, second)["loss_camera"]
    assert math.isclose(gated.item(), alone.item(), rel_tol=1e-6) is zero


def test_confidence_has_no_floor() -> None:
    """Trap 3: a perfect prediction with confidence 1000 gives -0.2 ln 1000 = -1.38."""
    batch = make_batch()
    objective = MultitaskLoss()(perfect(batch, conf=1000.0), batch)["objective"].item()
    assert objective == pytest.approx(-0.2 * math.log(1000), abs=1e-5)
    assert round(objective, 2) == -1.38


def test_confidence_hides_a_wrong_camera() -> None:
    """Trap 3: depth off by 0.02, confidence 10 and a camera off by 0.03 pass as a negative objective."""
    batch = make_batch(valid=1.0)
    predictions = perfect(batch, conf=10.0)
    predictions["depth"] = predictions["depth"].detach() + 0.02
    predictions["pose_enc_list"] = [stage.detach() + 0.03 for stage in predictions["pose_enc_list"]]
    terms = MultitaskLoss()(predictions, batch)
    assert terms["loss_camera"].item() == pytest.approx(0.0408, abs=5e-5)
    assert terms["objective"].item() == pytest.approx(-0.0365, abs=5e-5)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("key", "poisoned"),
    [
        ("pose_enc_list", {"loss_camera", "loss_T", "loss_R", "loss_FL"}),
        ("depth", {"loss_conf_depth", "loss_reg_depth", "loss_grad_depth"}),
        ("depth_conf", {"loss_conf_depth", "loss_reg_depth", "loss_grad_depth"}),
    ],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_non_finite_prediction_stays_visible(key: str, poisoned: set[str], poison: float, everywhere: bool) -> None:
    """Trap 2 is closed: one NaN or Inf, clamped, masked or an outlier as it may be, makes its terms NaN."""
    batch = make_batch()
    predictions = copy.deepcopy(noisy(batch))
    tensor = predictions[key][0] if key == "pose_enc_list" else predictions[key]
    with torch.no_grad():
        (tensor if everywhere else tensor.view(-1)[:1]).fill_(poison)
    terms = MultitaskLoss()(predictions, batch)
    assert {name for name, value in terms.items() if not value.isfinite()} == poisoned | {"objective"}


def test_non_finite_target_stays_visible() -> None:
    """A NaN among the valid depths of the target is no outlier to be trimmed away."""
    batch = make_batch(valid=1.0)
    predictions = noisy(batch)
    batch["depths"][0, 0, 3, 3] = math.nan
    assert MultitaskLoss()(predictions, batch)["loss_reg_depth"].isnan()


def test_negative_confidence_is_no_outlier() -> None:
    """A finite confidence below 0 has no logarithm: the NaN is not trimmed away with the worst pixels."""
    batch = make_batch(valid=1.0)
    predictions = noisy(batch)
    with torch.no_grad():
        predictions["depth_conf"][0, 0, 3, 3] = -1.0
    terms = MultitaskLoss()(predictions, batch)
    assert terms["loss_conf_depth"].isnan()
    assert terms["loss_reg_depth"].isfinite()


def test_unsupervised_confidence_sends_no_nan_back() -> None:
    """A confidence of 0 at an invalid pixel does not reach the gradient."""
    batch = make_batch()
    predictions = noisy(batch)
    with torch.no_grad():
        predictions["depth_conf"][~batch["point_masks"]] = 0.0
    MultitaskLoss()(predictions, batch)["objective"].backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(predictions))
