"""One unit of length per sample."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.errors import OverfitError
from pytest_overfit.two_view.data.normalize import normalize_batch
from pytest_overfit.two_view.reference.pose import encode_pose, quaternion_to_rotation
from tests.shared_data import GOLDEN, golden
from tests.support.golden import golden_batch


def _random_batch(seed: int, *, samples: int = 2, side: int = 12) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rotation = quaternion_to_rotation(torch.randn(samples, 2, 4, generator=draw, dtype=torch.float64)).float()
    extrinsics = torch.cat([rotation, torch.randn(samples, 2, 3, 1, generator=draw)], dim=-1)
    masks = torch.rand(samples, 2, side, side, generator=draw) < 0.7
    depths = (1 + torch.rand(samples, 2, side, side, generator=draw)) * masks
    cam = torch.randn(samples, 2, side, side, 3, generator=draw) * masks[..., None]
    world = torch.einsum("bsji,bshwj->bshwi", rotation, cam - extrinsics[:, :, None, None, :, 3])
    return {
        "extrinsics": extrinsics, "depths": depths, "cam_points": cam, "world_points": world, "point_masks": masks
    }  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_normalisation(name: str) -> None:
    """Poses, depths, points, scale and pose encoding are the original's."""
    reference = golden(name).arrays
    batch = normalize_batch(golden_batch(name))
    for key in ("extrinsics", "depths"):
        np.testing.assert_allclose(batch[key].numpy(), reference[f"norm_{key}"], rtol=0, atol=1e-5)
    every7 = batch["world_points"].numpy()[:, :, ::7, ::7]
    np.testing.assert_allclose(every7, reference["norm_world_points_every7"], rtol=0, atol=1e-5)
    assert batch["avg_scale"].item() == pytest.approx(float(reference["norm_avg_scale"]), abs=1e-5)
    height, width = batch["images"].shape[-2:]
    encoded = encode_pose(batch["extrinsics"], batch["intrinsics"], (height, width))
    np.testing.assert_allclose(encoded.numpy(), reference["norm_gt_pose_enc"], rtol=0, atol=1e-5)


def test_golden_pair_at_the_size_of_the_guide() -> None:
    """At 518 x 476 the scale and the pose encoding are the ones measured on the original trainer."""
    batch = normalize_batch(golden_batch("pair0_112", img_size=518, aspect_ratio=0.92))
    assert batch["images"].shape == (1, 2, 3, 476, 518)
    assert batch["avg_scale"].item() == pytest.approx(33.885528564, abs=1e-5)
    encoded = encode_pose(batch["extrinsics"], batch["intrinsics"], (476, 518))[0].numpy()
    second = [-0.11903, 0.45518, 0.87129, 0.31714, 0.07834, 0.02765, 0.94473, 0.70454, 0.76107]
    np.testing.assert_allclose(encoded[1], second, rtol=0, atol=6e-6)
    np.testing.assert_allclose(encoded[0], [0, 0, 0, 0, 0, 0, 1, 0.79472, 0.85685], rtol=0, atol=6e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_first_camera_is_the_origin_and_the_mean_distance_one(seed: int) -> None:
    """E_0 is [I|0], the valid points lie 1 from it on average, and extrinsics still take world to camera points."""
    batch = normalize_batch(_random_batch(seed))
    origin = torch.eye(4)[:3].expand(2, 3, 4)
    torch.testing.assert_close(batch["extrinsics"][:, 0], origin, rtol=0, atol=1e-5)
    masks = batch["point_masks"]
    for sample in range(2):
        distances = batch["world_points"][sample][masks[sample]].norm(dim=-1)
        count = distances.numel()
        assert distances.mean().item() == pytest.approx((count + 1e-3) / count, rel=1e-5)
    rotation, translation = batch["extrinsics"][..., :3], batch["extrinsics"][..., 3]
    cam = torch.einsum("bsij,bshwj->bshwi", rotation, batch["world_points"]) + translation[:, :, None, None]
    torch.testing.assert_close(cam[masks], batch["cam_points"][masks], rtol=0, atol=1e-4)


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_unit_of_the_input_does_not_matter(seed: int, factor: float) -> None:
    """A batch in other units normalises to the same numbers, and `avg_scale` takes up the factor."""
    batch = _random_batch(seed)
    scaled = dict(batch)
    for key in ("depths", "cam_points", "world_points"):
        scaled[key] = batch[key] * factor
    scaled["extrinsics"] = torch.cat([batch["extrinsics"][..., :3], batch["extrinsics"][..., 3:] * factor], dim=-1)
    a, b = normalize_batch(batch), normalize_batch(scaled)
    for key in ("extrinsics", "depths", "cam_points", "world_points"):
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a["avg_scale"] * factor, b["avg_scale"], rtol=1e-5, atol=0)


def test_avg_scale_gives_metres_back() -> None:
    """Normalised depths times `avg_scale` are the metric depths."""
    batch = _random_batch(0)
    normalized = normalize_batch(batch)
    assert normalized["avg_scale"].shape == (2,)
    assert normalized["avg_scale"].dtype == torch.float32
    metres = normalized["depths"] * normalized["avg_scale"][:, None, None, None]
    torch.testing.assert_close(metres, batch["depths"])


def test_input_is_untouched_and_other_keys_are_handed_on() -> None:
    """A new dict comes back; tensors of the old one keep their numbers, and unknown keys pass."""
    batch: dict[str, Any] = {**_random_batch(1), "seq_name": ["a", "b"]}
    before = copy.deepcopy(batch)
    normalized = normalize_batch(batch)
    assert set(normalized) == set(batch) | {"avg_scale"}
    assert normalized["seq_name"] == ["a", "b"]
    assert all(torch.equal(before[key], batch[key]) for key in before if key != "seq_name")


def test_camera_points_may_be_absent() -> None:
    """A batch without `cam_points` normalises, and none are made up."""
    batch = _random_batch(2)
    del batch["cam_points"]
    assert "cam_points" not in normalize_batch(batch)


def test_empty_mask_is_finite() -> None:
    """Without a valid point the scale is its lower bound and nothing becomes NaN."""
    batch = {key: torch.zeros_like(value) for key, value in _random_batch(3).items()}
    normalized = normalize_batch(batch)
    assert normalized["avg_scale"].tolist() == pytest.approx([1e-6] * 2)
    assert all(value.isfinite().all() for value in normalized.values())


def test_nan_stays_visible() -> None:
    """A NaN among the valid points makes its sample NaN, not 0; one among the invalid stays where it is."""
    batch = _random_batch(4)
    batch["point_masks"][0, 0, 0, 0], batch["point_masks"][1, 0, 0, 0] = True, False
    batch["world_points"][:, 0, 0, 0] = math.nan
    normalized = normalize_batch(batch)
    assert normalized["avg_scale"].isnan().tolist() == [True, False]
    assert normalized["depths"][0].isnan().all()
    assert normalized["world_points"][1].isnan().any(-1).sum() == 1


def test_missing_keys_are_named() -> None:
    """Every missing key is in one error."""
    with pytest.raises(OverfitError, match=r"batch: no key world_points, depths, point_masks among \['extrinsics'\]"):
        normalize_batch({"extrinsics": torch.zeros(1, 2, 3, 4)})
