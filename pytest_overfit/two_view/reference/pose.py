"""Cameras as nine numbers, `absT_quaR_FoV`, and back.

Shape legend: ... any leading axes (B samples, S frames), H W image height and width in pixels.
Axes: OpenCV (x right, y down, z forward); an extrinsic `[R|t]` is world2cam, `x_cam = R x_world + t`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pytest_overfit.errors import OverfitError


def encode_pose(extrinsics: Tensor, intrinsics: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Encode world2cam cameras as translation, quaternion and field of view.

    Example:
        >>> eye = torch.eye(3)
        >>> K = torch.tensor([[100.0, 0.0, 50.0], [0.0, 100.0, 50.0], [0.0, 0.0, 1.0]])
        >>> [round(x, 4) for x in encode_pose(torch.cat([eye, torch.zeros(3, 1)], 1), K, (100, 200)).tolist()]
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.9273, 1.5708]

    Args:
        extrinsics: (..., 3, 4) world2cam `[R|t]`, OpenCV axes.
        intrinsics: (..., 3, 3) pixels. The principal point is not encoded.
        image_size: (H, W) pixels, height first.

    Returns:
        (..., 9): [0:3] t in the units of `extrinsics`; [3:7] unit quaternion of R, x y z w with w >= 0;
        [7] `2 atan((H/2)/fy)` and [8] `2 atan((W/2)/fx)` in radians, height first.

    Raises:
        OverfitError: a matrix does not end in the axes above.

    Source: the pose encoding of VGGT (Wang et al., CVPR 2025, section 3.3: g = [q, t, f]) in the order that its
    public training code gives it.
    """
    _expect_tail("extrinsics", extrinsics, (3, 4))
    _expect_tail("intrinsics", intrinsics, (3, 3))
    height, width = image_size
    quaternion = rotation_to_quaternion(extrinsics[..., :3])
    fov_h = 2 * torch.atan((height / 2) / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan((width / 2) / intrinsics[..., 0, 0])
    return torch.cat([extrinsics[..., 3], quaternion, fov_h[..., None], fov_w[..., None]], dim=-1)


def decode_pose(pose: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Decode `absT_quaR_FoV` into world2cam extrinsics and intrinsics.

    Example:
        >>> pose = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.9273, 1.5708])
        >>> extrinsics, intrinsics = decode_pose(pose, (100, 200))
        >>> tuple(extrinsics.shape), [round(x) for x in intrinsics.diagonal().tolist()]
        ((3, 4), [100, 100, 1])

    Args:
        pose: (..., 9) as `encode_pose` gives it; the quaternion may have any length but zero, and any sign.
        image_size: (H, W) pixels, height first.

    Returns:
        extrinsics (..., 3, 4) world2cam, OpenCV axes, and intrinsics (..., 3, 3) in pixels. The principal point is
        not encoded: it comes back as (W/2, H/2), as in the original, whatever it was.

    Raises:
        OverfitError: `pose` does not end in nine numbers.

    Source: the inverse of `encode_pose`.
    """
    _expect_tail("pose", pose, (9,))
    height, width = image_size
    extrinsics = torch.cat([quaternion_to_rotation(pose[..., 3:7]), pose[..., :3, None]], dim=-1)
    fy = (height / 2) / torch.tan(pose[..., 7] / 2)
    fx = (width / 2) / torch.tan(pose[..., 8] / 2)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [fx, zero, one * (width / 2), zero, fy, one * (height / 2), zero, zero, one]
    return extrinsics, torch.stack(rows, dim=-1).reshape(*pose.shape[:-1], 3, 3)


def rotation_to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions, x y z w with w >= 0, of rotation matrices.

    Example:
        >>> rotation_to_quaternion(torch.eye(3)).tolist()
        [0.0, 0.0, 0.0, 1.0]

    Args:
        rotation: (..., 3, 3), taken as given: of a matrix that is no rotation the quaternion is not of unit length.

    Returns:
        (..., 4). Values and gradients are finite for every finite input, half turns and the identity included.

    Source: the four candidates of Shepperd (J. Guidance and Control 1(3), 1978); row i of the symmetric matrix below
    is 4 q_i q, and the row of the largest q_i is divided by 2 q_i.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotation.flatten(-2).unbind(-1)
    xx, yy, zz, ww = 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    xw, yw, zw = m21 - m12, m02 - m20, m10 - m01
    products = torch.stack([xx, xy, xz, xw, xy, yy, yz, yw, xz, yz, zz, zw, xw, yw, zw, ww], dim=-1)
    products = products.reshape(*rotation.shape[:-2], 4, 4)
    squares = torch.stack([xx, yy, zz, ww], dim=-1)
    # The four squares add up to 4, so the largest is at least 1: no root of, and no division by, a small number.
    largest, index = squares.max(dim=-1, keepdim=True)
    row = products.gather(-2, index[..., None].expand(*index.shape, 4)).squeeze(-2)
    quaternion = row / (2 * largest.sqrt())
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def quaternion_to_rotation(quaternion: Tensor) -> Tensor:
    """Rotation matrices of quaternions x y z w of any length but zero; q and -q give the same matrix.

    Example:
        >>> quaternion_to_rotation(torch.tensor([0.0, 0.0, 0.0, 2.0])).diagonal().tolist()
        [1.0, 1.0, 1.0]

    Args:
        quaternion: (..., 4). A zero quaternion is no rotation and gives NaN.

    Returns:
        (..., 3, 3) rotation matrices.

    Source: the textbook formula with 2 / |q|^2 in place of 2.
    """
    x, y, z, w = quaternion.unbind(-1)
    s = 2 / quaternion.square().sum(dim=-1)
    rows = [
        1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w),
        s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w),
        s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quaternion.shape[:-1], 3, 3)


def _expect_tail(name: str, tensor: Tensor, tail: tuple[int, ...]) -> None:
    if tuple(tensor.shape[-len(tail) :]) != tail:
        expected = ", ".join(map(str, tail))
        raise OverfitError(f"shape {tuple(tensor.shape)}", where=name, allowed=f"(..., {expected})")
