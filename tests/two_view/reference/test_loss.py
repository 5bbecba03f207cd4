"""The multitask loss has the original's values and gradients, and its settings do what they say."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss, _select_quantile, _sort_quantile
from tests.shared_data import GOLDEN
from tests.two_view.reference.cases import TERMS, golden_case, leaves, make_batch, noisy, perfect, target_pose


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name: str) -> None:
    """Every term on the golden predictions is the original's."""
    predictions, batch, expected = golden_case(name)
    terms = MultitaskLoss()(predictions, batch)
    assert set(terms) == {"objective", *TERMS}
    for key, value in terms.items():
        assert value.item() == pytest.approx(expected[key], abs=1e-6), key


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_gradients(name: str) -> None:
    """The gradient of the objective with respect to every prediction has the original's norm."""
    predictions, batch, expected = golden_case(name)
    MultitaskLoss()(predictions, batch)["objective"].backward()
    poses = torch.stack([stage.grad for stage in predictions["pose_enc_list"]])
    assert poses.norm().item() == pytest.approx(expected["grad_norm"]["pose_enc_list"], abs=1e-6)
    for key in ("depth", "depth_conf"):
        assert predictions[key].grad.norm().item() == pytest.approx(expected["grad_norm"][key], abs=1e-7), key


def _plain_depth_loss(
    predictions: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    valid_range: float | None,
    alpha: float,
    gamma: float,
) -> dict[str, Tensor]:
    """The depth terms of the original, written down with boolean indexing and loops."""
    mask, gt = batch["point_masks"], batch["depths"]
    pred = predictions["depth"][..., 0]
    reg = (gt[mask] - pred[mask]).abs().clamp(-100, 100)
    conf = predictions["depth_conf"][mask]
    weighted = (gamma * reg * conf - alpha * conf.log()).clamp(-100, 100)

    def trimmed(values: Tensor) -> Tensor:
        if not valid_range or valid_range < 0 or values.numel() <= 1000:
            return values.mean()
        limit = values.detach().sort().values[round(valid_range * (values.numel() - 1))]
        kept = values[values < limit]
        return kept.mean() if kept.numel() > 1000 else values.mean()

    grad = torch.zeros(())
    for step in (1, 2, 4, 8):
        m = mask[..., ::step, ::step]
        e = torch.where(m, (pred - gt)[..., ::step, ::step], 0.0)
        across = (e[..., :, 1:] - e[..., :, :-1])[m[..., :, 1:] & m[..., :, :-1]].abs().clamp(max=100).sum()
        down = (e[..., 1:, :] - e[..., :-1, :])[m[..., 1:, :] & m[..., :-1, :]].abs().clamp(max=100).sum()
        grad = grad + (across + down) / m.sum() / 4
    return {"loss_conf_depth": trimmed(weighted), "loss_reg_depth": trimmed(reg), "loss_grad_depth": grad}


@pytest.mark.parametrize("valid", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(("valid_range", "alpha", "gamma"), [(0.98, 0.2, 1.0), (0.5, 0.3, 2.0), (-1, 0.2, 1.0)])
def test_same_as_boolean_indexing(valid: float, valid_range: float, alpha: float, gamma: float) -> None:
    """Values and gradients, pixel by pixel, are those of the plain form, below and above the 1000-element floor."""
    batch = make_batch(valid=valid)
    ours, plain = noisy(batch), noisy(batch)
    terms = MultitaskLoss(depth={"valid_range": valid_range, "alpha": alpha, "gamma": gamma})(ours, batch)
    expected = _plain_depth_loss(plain, batch, valid_range, alpha, gamma)
    torch.autograd.backward(list(expected.values()))
    torch.autograd.backward([terms[key] for key in expected])
    for key, value in expected.items():
        torch.testing.assert_close(terms[key], value, rtol=1e-5, atol=1e-7)
    for key in ("depth", "depth_conf"):
        torch.testing.assert_close(ours[key].grad, plain[key].grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("count", [0, 1, 2, 26, 51, 76, 1001, 1026, 5000])
@pytest.mark.parametrize("q", [0.02, 0.5, 0.98, 1.0])
def test_quantile_of_cuda_is_that_of_the_cpu(count: int, q: float) -> None:
    """The sorting form for CUDA and the selecting form for the CPU give the same value, ties of the index included."""
    values = torch.rand(5000, generator=torch.Generator().manual_seed(count))
    values[torch.randperm(5000, generator=torch.Generator().manual_seed(count))[count:]] = math.inf
    expected = values.sort().values[max(round(q * (count - 1)), 0)]
    assert _sort_quantile(values, torch.tensor(count), q) == expected
    assert _select_quantile(values, torch.tensor(count), q) == expected


def test_residuals_are_clamped() -> None:
    """A prediction that is off by 1e6 counts as 100, and an outlier among many not at all in the trimmed terms."""
    batch = make_batch(valid=1.0)
    predictions = perfect(batch, conf=1.0)
    predictions["depth"] = predictions["depth"].detach() + 1e6
    predictions["pose_enc_list"] = [stage.detach() + 1e6 for stage in predictions["pose_enc_list"]]
    terms = MultitaskLoss()(predictions, batch)
    weights = sum(0.6**k for k in range(4)) / 4
    assert terms["loss_reg_depth"].item() == 100
    assert [terms[key].item() for key in ("loss_T", "loss_R", "loss_FL")] == pytest.approx(
        [100 * weights] * 3, rel=1e-6
    )

    predictions = noisy(batch, noise=0.01)
    before = MultitaskLoss()(predictions, batch)
    with torch.no_grad():
        predictions["depth"][0, 0, 5, 5] += 50
    after = MultitaskLoss()(predictions, batch)
    assert after["loss_reg_depth"].item() == pytest.approx(before["loss_reg_depth"].item(), rel=1e-3)
    rise = (after["loss_grad_depth"] - before["loss_grad_depth"]).item()
    assert rise == pytest.approx(4 * 50 / batch["depths"].numel() / 4, rel=1e-2)


def test_clamps_of_the_depth_terms() -> None:
    """The target, the confidence term and each difference of the gradient term stop at 100."""
    batch = make_batch(valid=1.0)
    far = perfect(batch, conf=1.0)
    far["depth"] = torch.full_like(far["depth"], 150.0)
    at_150 = MultitaskLoss()(far, {**batch, "depths": torch.full_like(batch["depths"], 150.0)})
    assert at_150["loss_reg_depth"].item() == 50

    sure = perfect(batch, conf=1000.0)
    sure["depth"] = sure["depth"].detach() + 1
    assert MultitaskLoss()(sure, batch)["loss_conf_depth"].item() == 100

    spike = perfect(batch)
    with torch.no_grad():
        spike["depth"][0, 0, 5, 5] += 1e4
    grad = MultitaskLoss()(spike, batch)["loss_grad_depth"].item()
    assert grad == pytest.approx(4 * 100 / batch["depths"].numel() / 4, rel=1e-6)


def test_later_stages_weigh_more() -> None:
    """Stage k of n counts 0.6^(n-1-k) / n."""
    batch = make_batch()
    target = target_pose(batch)
    for wrong in range(3):
        stages = [target + (0.1 if k == wrong else 0.0) for k in range(3)]
        terms = MultitaskLoss(depth=None)({"pose_enc_list": stages}, batch)
        assert terms["loss_T"].item() == pytest.approx(0.1 * 0.6 ** (2 - wrong) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("loss_type", "per_number"),
    [
        ("l1", (0.3, 0.3, 0.3)),
        ("l2", (0.3 * 3**0.5, 0.3 * 2, 0.3 * 2**0.5)),
        ("smooth_l1", (0.045,) * 3),
        ("huber", (0.045,) * 3),
    ],
)
def test_loss_types(loss_type: str, per_number: tuple[float, float, float]) -> None:
    """An error of 0.3 in each number costs what the loss type says."""
    batch = make_batch()
    terms = MultitaskLoss(camera={"loss_type": loss_type}, depth=None)(
        {"pose_enc_list": [target_pose(batch) + 0.3]}, batch
    )
    assert [terms[key].item() for key in ("loss_T", "loss_R", "loss_FL")] == pytest.approx(per_number, rel=1e-4)


def test_weights_enter_as_named() -> None:
    """The objective and the camera term are the weighted sums of their parts."""
    batch = make_batch()
    camera = {"weight": 3.0, "weight_trans": 2.0, "weight_rot": 0.5, "weight_focal": 4.0}
    terms = {k: v.item() for k, v in MultitaskLoss(camera=camera, depth={"weight": 7.0})(noisy(batch), batch).items()}
    assert terms["loss_camera"] == pytest.approx(2 * terms["loss_T"] + 0.5 * terms["loss_R"] + 4 * terms["loss_FL"])
    depth = terms["loss_conf_depth"] + terms["loss_reg_depth"] + terms["loss_grad_depth"]
    assert terms["objective"] == pytest.approx(3 * terms["loss_camera"] + 7 * depth)


def test_gradient_term_can_be_switched_off() -> None:
    """`gradient_loss_fn: null` gives a gradient term of exactly 0 and leaves the others alone."""
    batch = make_batch()
    on = MultitaskLoss()(noisy(batch), batch)
    off = MultitaskLoss(depth={"gradient_loss_fn": None})(noisy(batch), batch)
    assert on["loss_grad_depth"] > 0
    assert off["loss_grad_depth"] == 0
    assert off["loss_reg_depth"] == on["loss_reg_depth"]


@pytest.mark.parametrize(("key", "left"), [("pose_enc_list", TERMS[4:]), ("depth", TERMS[:4])])
def test_missing_prediction_leaves_its_part_out(key: str, left: tuple[str, ...]) -> None:
    """Without a prediction its terms are absent, and the objective is the other part alone."""
    batch = make_batch()
    predictions = noisy(batch)
    del predictions[key]
    assert set(MultitaskLoss()(predictions, batch)) == {"objective", *left}


def test_half_precision_predictions() -> None:
    """Predictions in bfloat16 are compared in float32."""
    batch = make_batch()
    predictions = noisy(batch)
    half = {key: predictions[key].detach().bfloat16() for key in ("depth", "depth_conf")}
    terms = MultitaskLoss()(half, batch)
    wide = MultitaskLoss()({key: value.float() for key, value in half.items()}, batch)
    assert all(terms[key].dtype == torch.float32 and torch.equal(terms[key], wide[key]) for key in wide)


def test_inputs_are_untouched() -> None:
    """Neither predictions nor batch are written to."""
    batch = make_batch()
    predictions = noisy(batch)
    before = copy.deepcopy((leaves(predictions), batch))
    MultitaskLoss()(predictions, batch)["objective"].backward()
    assert all(torch.equal(a, b) for a, b in zip(before[0], leaves(predictions), strict=True))
    assert all(torch.equal(before[1][key], batch[key]) for key in batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_on_cuda_without_a_sync(name: str) -> None:
    """On CUDA the values are the same and no host-device sync happens in forward or backward."""
    predictions, batch, expected = golden_case(name)
    on_device = {
        key: value.detach().cuda().requires_grad_() for key, value in predictions.items() if key != "pose_enc_list"
    }
    poses = [stage.detach().cuda().requires_grad_() for stage in predictions["pose_enc_list"]]
    batch = {key: value.cuda() for key, value in batch.items()}
    loss = MultitaskLoss()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = loss({**on_device, "pose_enc_list": poses}, batch)
        terms["objective"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for key, value in terms.items():
        assert value.item() == pytest.approx(expected[key], abs=1e-6), key
    assert np.isclose(on_device["depth"].grad.norm().item(), expected["grad_norm"]["depth"], atol=1e-7)
