"""Cameras as nine numbers, and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_overfit.errors import OverfitError
from pytest_overfit.two_view.reference.pose import (
    decode_pose,
    encode_pose,
    quaternion_to_rotation,
    rotation_to_quaternion,
)
from tests.shared_data import GOLDEN, golden

HEIGHT, WIDTH = 100, 200
coordinate = st.floats(-1, 1, allow_nan=False)
quaternions = st.tuples(coordinate, coordinate, coordinate, coordinate).filter(lambda q: sum(x * x for x in q) > 0.01)
angles = st.floats(0.05, 3.0)


def _rotation(quaternion: tuple[float, ...]) -> torch.Tensor:
    return quaternion_to_rotation(torch.tensor(quaternion, dtype=torch.float64))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_encoding(name: str) -> None:
    """The encoding of a normalised golden pair is the original's."""
    reference = golden(name).arrays
    extrinsics, intrinsics = torch.tensor(reference["norm_extrinsics"]), torch.tensor(reference["intrinsics"])
    height, width = reference["images"].shape[-2:]
    encoded = encode_pose(extrinsics, intrinsics, (height, width))
    torch.testing.assert_close(encoded, torch.tensor(reference["norm_gt_pose_enc"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_decoding(name: str) -> None:
    """Decoding the original's encoding gives extrinsics and focal lengths back, and the centre as principal point.

    The real poses are rotations to 1e-4 only, and decoding gives exact ones: they may differ by that much.
    """
    reference = golden(name).arrays
    rotation = torch.tensor(reference["norm_extrinsics"])[..., :3]
    slack = float((rotation @ rotation.mT - torch.eye(3)).abs().max())
    height, width = reference["images"].shape[-2:]
    extrinsics, intrinsics = decode_pose(torch.tensor(reference["norm_gt_pose_enc"]), (height, width))
    torch.testing.assert_close(extrinsics, torch.tensor(reference["norm_extrinsics"]), rtol=0, atol=1e-5 + slack)
    assert slack < 5e-4
    for axis, centre in ((0, width / 2), (1, height / 2)):
        focal = torch.tensor(reference["intrinsics"][..., axis, axis])
        torch.testing.assert_close(intrinsics[..., axis, axis], focal, rtol=1e-6, atol=0)
        assert (intrinsics[..., axis, 2] == centre).all()


def test_order_of_the_nine_numbers() -> None:
    """Translation first, then the quaternion x y z w, then the field of view of the height, then of the width."""
    quarter_about_x = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    extrinsics = torch.cat([quarter_about_x, torch.tensor([[7.0], [8.0], [9.0]])], dim=1)
    intrinsics = torch.diag(torch.tensor([100.0, 50.0, 1.0]))
    encoded = encode_pose(extrinsics, intrinsics, (100, 346))
    half = math.sqrt(0.5)
    expected = [7.0, 8.0, 9.0, half, 0.0, 0.0, half, 2 * math.atan(1.0), 2 * math.atan(1.73)]
    assert encoded.tolist() == pytest.approx(expected, abs=1e-6)


@given(quaternions, st.tuples(coordinate, coordinate, coordinate), angles, angles)
@settings(deadline=None)
def test_round_trip(q: tuple[float, ...], t: tuple[float, ...], fov_h: float, fov_w: float) -> None:
    """Decoding and encoding again gives the same nine numbers, the quaternion of unit length and with w >= 0."""
    pose = torch.tensor([*t, *q, fov_h, fov_w], dtype=torch.float64)
    again = encode_pose(*decode_pose(pose, (HEIGHT, WIDTH)), (HEIGHT, WIDTH))
    unit = pose[3:7] / pose[3:7].norm()
    sign = torch.sign((unit * again[3:7]).sum())
    torch.testing.assert_close(again[3:7], sign * unit, rtol=0, atol=1e-9)
    torch.testing.assert_close(again[[0, 1, 2, 7, 8]], pose[[0, 1, 2, 7, 8]], rtol=1e-9, atol=1e-12)
    assert again[6] >= 0


@given(quaternions)
@settings(deadline=None)
def test_decoded_rotation_is_a_rotation(q: tuple[float, ...]) -> None:
    """R R^T is the identity and the determinant 1, whatever the length of the quaternion."""
    rotation = _rotation(q)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-12)


@given(quaternions)
@settings(deadline=None)
def test_gradients_are_those_of_finite_differences(q: tuple[float, ...]) -> None:
    """The gradient of the quaternion is right, away from the jump of the sign and from the switch of the formula."""
    rotation = _rotation(q)
    quaternion = rotation_to_quaternion(rotation)
    largest = quaternion.abs().sort().values
    assume(quaternion[3] > 1e-3 and largest[3] - largest[2] > 1e-3)
    assert torch.autograd.gradcheck(rotation_to_quaternion, rotation.requires_grad_(), atol=1e-4)


@pytest.mark.parametrize("diagonal", [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
def test_identity_and_half_turns(diagonal: tuple[int, int, int]) -> None:
    """Where textbook formulas divide by 0, value and gradient are finite and the rotation comes back."""
    rotation = torch.diag(torch.tensor(diagonal, dtype=torch.float32)).requires_grad_()
    quaternion = rotation_to_quaternion(rotation)
    torch.autograd.backward(quaternion.sum())
    assert rotation.grad is not None
    assert rotation.grad.isfinite().all()
    torch.testing.assert_close(quaternion_to_rotation(quaternion), rotation)


def test_zero_matrix_stays_finite() -> None:
    """An all-zero camera, as in the dummy batch of the original loader, gives finite numbers."""
    encoded = encode_pose(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 3), (HEIGHT, WIDTH))
    assert encoded.shape == (1, 2, 9)
    assert encoded.isfinite().all()


@pytest.mark.parametrize(
    ("extrinsics", "intrinsics", "where"),
    [((2, 4, 4), (2, 3, 3), "extrinsics"), ((2, 3, 4), (2, 3, 4), "intrinsics")],
)
def test_wrong_shapes(extrinsics: tuple[int, ...], intrinsics: tuple[int, ...], where: str) -> None:
    """A matrix of another shape is refused by name."""
    with pytest.raises(OverfitError, match=f"^{where}: shape"):
        encode_pose(torch.zeros(extrinsics), torch.zeros(intrinsics), (HEIGHT, WIDTH))


def test_decode_refuses_other_than_nine() -> None:
    """A pose of eight numbers is refused, with what was expected."""
    with pytest.raises(OverfitError, match=r"pose: shape \(2, 8\)\n  allowed: \(\.\.\., 9\)"):
        decode_pose(torch.zeros(2, 8), (HEIGHT, WIDTH))
