"""Views to be looked at: a rendered town, and what can be done to a batch of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.diagnose import view_causes
from pytest_overfit.two_view.diagnose.view_geometry import measure_views
from pytest_overfit.two_view.diagnose.views import (
    ViewsPredicted,
)
from pytest_overfit.two_view.pair.synthetic import render_views

Batch = dict[str, Any]
OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


def causes(batch: Batch, predicted: ViewsPredicted | None = None) -> list[Cause]:
    """What all rules say of a batch."""
    seen = measure_views(batch)
    assert seen is not None
    return [cause for rule in view_causes.RULES for cause in rule(seen, predicted)]


def named(batch: Batch) -> list[tuple[str, bool]]:
    return [(cause.id, cause.certain) for cause in causes(batch)]


@cache
def _town(seed: int) -> Batch:
    """An aerial and a ground view of the town, as they are rendered; the sky has depth 0."""
    views = render_views(seed, 96, 72, Path("root"), Path("seg"))
    depths = torch.from_numpy(np.stack([np.where(view.labels == 2, 0.0, view.depth) for view in views])).float()
    poses = np.stack([np.linalg.inv(view.camera.cam2world)[:3] for view in views])
    return {
        "images": torch.from_numpy(np.stack([view.image.transpose(2, 0, 1) for view in views]))[None].float() / 255,
        "depths": depths[None],
        "point_masks": depths[None] > 0,
        "extrinsics": torch.from_numpy(poses)[None].float(),
        "intrinsics": torch.from_numpy(np.stack([view.camera.intrinsics for view in views]))[None].float(),
    }


def town(seed: int = 0) -> Batch:
    return {key: value.clone() for key, value in _town(seed).items()}


def changed(batch: Batch, **keys: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with some keys mapped."""
    return {**batch, **{key: change(batch[key]) for key, change in keys.items()}}


def posed(change: Callable[[Tensor], Tensor], view: int | None = None) -> Callable[[Batch], Batch]:
    """A change of the 4 x 4 poses, of all views or of one."""

    def made(poses: Tensor) -> Tensor:
        square = torch.eye(4).repeat(*poses.shape[:2], 1, 1)
        square[..., :3, :] = poses
        new = change(square)
        return new[..., :3, :] if view is None else torch.cat([*_replaced(square, new, view)], 1)[..., :3, :]

    return lambda batch: changed(batch, extrinsics=made)


def _replaced(old: Tensor, new: Tensor, view: int) -> list[Tensor]:
    return [(new if s == view else old)[:, s : s + 1] for s in range(old.shape[1])]


def rotation_only(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def made(poses: Tensor) -> Tensor:
        poses = poses.clone()
        poses[..., :3, :3] = change(poses[..., :3, :3].clone())
        return poses

    return made


def translation_only(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def made(poses: Tensor) -> Tensor:
        poses = poses.clone()
        poses[..., :3, 3] = change(poses[..., :3, 3])
        return poses

    return made


def four(matrix: Tensor) -> Tensor:
    square = torch.eye(4)
    square[:3, :3] = matrix
    return square


def centre_for_translation(poses: Tensor) -> Tensor:
    poses = poses.clone()
    poses[..., :3, 3] = poses.inverse()[..., :3, 3]
    return poses


def rows(first: float, second: float) -> Callable[[Tensor], Tensor]:
    """Intrinsics with their first two rows multiplied."""
    return lambda K: K * torch.tensor([first, second, 1.0])[:, None]


def filled(value: float) -> Callable[[Batch], Batch]:
    """The sky has a depth, and counts."""

    def made(batch: Batch) -> Batch:
        depths = torch.where(batch["point_masks"], batch["depths"], value)
        return {**batch, "depths": depths, "point_masks": torch.ones_like(batch["point_masks"])}

    return made


def along_the_ray(batch: Batch) -> Batch:
    height, width = batch["depths"].shape[-2:]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    K = batch["intrinsics"][..., None, None]
    x, y = (u - K[:, :, 0, 2]) / K[:, :, 0, 0], (v - K[:, :, 1, 2]) / K[:, :, 1, 1]
    return changed(batch, depths=lambda z: z * (x**2 + y**2 + 1).sqrt())


def turned(*keys: str, dim: int) -> Callable[[Batch], Batch]:
    return lambda batch: changed(batch, **{key: lambda a: a.flip(dim) for key in keys})


def rolled(share: float, dim: int, view: int | None = None) -> Callable[[Batch], Batch]:
    def made(images: Tensor) -> Tensor:
        moved = images.roll(round(share * images.shape[dim]), dim)
        return moved if view is None else torch.cat(_replaced(images, moved, view), 1)

    return lambda batch: changed(batch, images=made)


DEPTH = ("depths", "point_masks")
# What is done to a sound pair of views, the id, and words of the answer.
MISTAKES: dict[str, tuple[Callable[[Batch], Batch], str, str]] = {
    "cam2world": (posed(torch.inverse), "camera-convention", "once the extrinsics are inverted"),
    "cam2world of one view": (posed(torch.inverse, 1), "camera-convention", "inverted"),
    "inverted without turning": (
        posed(translation_only(lambda t: -t)), "camera-convention", "translation",
    ),
    "rotation transposed": (posed(rotation_only(lambda r: r.mT)), "camera-convention", "rotation is transposed"),
    "centre for translation": (posed(centre_for_translation), "camera-convention", "translation"),
    "OpenGL": (posed(lambda e: four(OPENGL) @ e), "camera-convention", "y and z of the camera axes are negated"),
    "OpenGL in one view": (posed(lambda e: four(OPENGL) @ e, 1), "camera-convention", "camera axes of view 1"),
    "Blender": (posed(lambda e: (four(OPENGL) @ e).inverse()), "camera-convention", "inverted and y and z"),
    "PyTorch3D": (
        posed(lambda e: four(torch.diag(torch.tensor([-1.0, -1, 1]))) @ e), "camera-convention", "x and y",
    ),
    "rays": (along_the_ray, "camera-convention", "taken along the ray"),
    "millimetres": (lambda b: changed(b, depths=lambda z: 1000 * z), "units", "translations"),
    "cameras in centimetres": (posed(translation_only(lambda t: 100 * t)), "units", "translations"),
    "another scale": (posed(translation_only(lambda t: t / 7.3)), "units", "multiplied by 7."),
    "one view in decimetres": (
        lambda b: changed(b, depths=lambda z: z * torch.tensor([1.0, 10.0])[:, None, None]), "units", "of view 1",
    ),
    "inverse depth": (lambda b: changed(b, depths=lambda z: torch.where(z > 0, 1 / z, 0.0)), "units", "inverted"),
    "depth mirrored": (turned(*DEPTH, dim=-1), "misalignment", "depths are flipped left to right"),
    "depth upside down": (turned(*DEPTH, dim=-2), "misalignment", "depths are flipped upside down"),
    "all but the cameras mirrored": (turned(*DEPTH, "images", dim=-1), "misalignment", "depths and images are flipped"),
    "larger image": (lambda b: changed(b, intrinsics=rows(2, 2)), "misalignment", "multiplied by 0.5"),
    "smaller image": (lambda b: changed(b, intrinsics=rows(0.25, 0.25)), "misalignment", "multiplied by 4"),
    "intrinsics transposed": (lambda b: changed(b, intrinsics=lambda K: K.mT), "misalignment", "are transposed"),
    "focal length of a larger image": (
        lambda b: changed(b, intrinsics=lambda K: K * torch.tensor([[2.0, 1, 1], [1, 2, 1], [1, 1, 1]])),
        "misalignment", "the focal length is multiplied by 0.",
    ),
    "depths in another order": (turned(*DEPTH, dim=1), "misalignment", "the depths of the two views are exchanged"),
    "image mirrored": (turned("images", dim=-1), "misalignment", "the images are flipped left to right"),
    "images in another order": (turned("images", dim=1), "misalignment", "the images are exchanged"),
    "image cropped": (rolled(-1 / 6, -1), "misalignment", "right"),
    "one image cropped": (rolled(-1 / 6, -1, 1), "misalignment", "the image of view"),
    "no depth in the sky": (filled(0.0), "sky", "have depth 0"),
}  # fmt: skip


def with_points(batch: Batch) -> Batch:
    """World points of the depths and cameras."""
    height, width = batch["depths"].shape[-2:]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).float()
    local = torch.einsum("bsij,hwj->bshwi", batch["intrinsics"].inverse(), pixels) * batch["depths"][..., None]
    poses = batch["extrinsics"]
    points = torch.einsum("bsji,bshwj->bshwi", poses[..., :3], local - poses[:, :, None, None, :, 3])
    return {**batch, "world_points": points}
