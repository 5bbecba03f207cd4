"""Two-view batches: every mistake is named, and nothing is said of what is sound, or of what is no scene at all."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gallery.scene import FOCAL, SIZE, render, scene_batch
from pytest_overfit.data.dataset import PairDataset
from pytest_overfit.data.normalize import normalize_batch
from pytest_overfit.diagnose.cause import IDS, Cause
from pytest_overfit.diagnose.gather.geometry import look_at_predictions, look_at_views
from pytest_overfit.diagnose.rules import two_view
from pytest_overfit.diagnose.views import (
    Agreement,
    Change,
    ConfidencePredicted,
    DepthPredicted,
    Frame,
    Pair,
    Picture,
    Plateau,
    Points,
    ViewsPredicted,
    ViewsSeen,
)
from pytest_overfit.pair.render import render_views
from tests.shared_data import GOLDEN, golden, shared_data
from tests.support.batches import two_view_batch

Batch = dict[str, Any]
OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


def causes(batch: Batch, predicted: ViewsPredicted | None = None) -> list[Cause]:
    """What all rules say of a batch."""
    seen = look_at_views(batch)
    assert seen is not None
    return [cause for rule in two_view.RULES for cause in rule(seen, predicted)]


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


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_a_rendered_pair_is_named_for_certain(name: str) -> None:
    """An aerial and a ground view that agree, with one mistake."""
    change, cause, words = MISTAKES[name]
    (found,) = causes(change(town()))
    assert (found.id, found.certain) == (cause, True)
    assert words in found.observed


SMALL = (
    "cam2world", "rotation transposed", "OpenGL in one view", "Blender", "millimetres", "cameras in centimetres",
    "depth mirrored", "larger image", "image mirrored", "image cropped", "no depth in the sky",
)  # fmt: skip


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_mistake_in_a_map_of_24_pixels_is_named_for_certain(name: str, normalised: bool) -> None:
    """Half-pixel centres, a wall that fills most of the view, metric and normalised."""
    change, cause, _ = MISTAKES[name]
    assert named(change(scene_batch(normalised))) == [(cause, True)]


def with_points(batch: Batch) -> Batch:
    """World points of the depths and cameras."""
    height, width = batch["depths"].shape[-2:]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).float()
    local = torch.einsum("bsij,hwj->bshwi", batch["intrinsics"].inverse(), pixels) * batch["depths"][..., None]
    poses = batch["extrinsics"]
    points = torch.einsum("bsji,bshwj->bshwi", poses[..., :3], local - poses[:, :, None, None, :, 3])
    return {**batch, "world_points": points}


def three_views() -> Batch:
    """The scene of the gallery from three places."""
    intrinsics = torch.tensor([[FOCAL, 0.0, SIZE / 2], [0.0, FOCAL, SIZE / 2], [0.0, 0.0, 1.0]])
    poses = []
    for yaw, x in ((0.0, 0.0), (0.12, -1.1), (-0.1, 0.9)):
        c, s = math.cos(yaw), math.sin(yaw)
        turn = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
        poses.append(torch.cat([turn, torch.tensor([[x], [0.1], [0.2]])], 1))
    views = [render(pose, intrinsics) for pose in poses]
    depths = torch.stack([depth for _, depth in views])[None]
    return {
        "images": torch.stack([image for image, _ in views])[None],
        "depths": depths,
        "point_masks": depths > 0,
        "extrinsics": torch.stack(poses)[None],
        "intrinsics": intrinsics.repeat(1, 3, 1, 1),
    }


def as_type(batch: Batch, dtype: torch.dtype) -> Batch:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}


def cropped(batch: Batch) -> Batch:
    """A crop that the intrinsics know of: the principal point is far from the middle."""
    crop = {key: batch[key][..., 10:60, 40:] for key in ("images", *DEPTH)}
    corner = torch.tensor([[0.0, 0, 40], [0, 0, 10], [0, 0, 0]])
    return {**batch, **crop, "intrinsics": batch["intrinsics"] - corner}


def nudged(batch: Batch) -> Batch:
    """Poses a degree off, and depth with noise of 1 %: a real data set."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.012, -0.01], [-0.012, 0.0, 0.01], [0.01, -0.01, 0.0]]))
    noise = 1 + 0.01 * noise_like(batch["depths"])
    moved = posed(lambda e: four(turn) @ e, 1)(batch)
    return changed(moved, depths=lambda z: z * noise)


def two_samples() -> Batch:
    """Normalised and metric."""
    first, second = scene_batch(), scene_batch(normalised=False)
    return {key: torch.cat([value, second[key]]) for key, value in first.items()}


def square_poses() -> Batch:
    """Extrinsics of 4 x 4."""
    last = torch.tensor([0.0, 0, 0, 1]).expand(1, 2, 1, 4)
    return changed(town(), extrinsics=lambda e: torch.cat([e, last], 2))


def noise_like(a: Tensor) -> Tensor:
    return torch.randn(a.shape, generator=torch.Generator().manual_seed(0))


HEALTHY: dict[str, Callable[[], Batch]] = {
    "scene": scene_batch,
    "metric scene": lambda: scene_batch(normalised=False),
    "three views": three_views,
    "two samples": two_samples,
    "half": lambda: as_type(scene_batch(), torch.float16),
    "bfloat16 images": lambda: changed(scene_batch(), images=lambda a: a.bfloat16()),
    "double": lambda: as_type(town(), torch.float64),
    "4 x 4": square_poses,
    "town 0": town,
    "town 1": lambda: town(1),
    "town 2": lambda: town(2),
    "normalised": lambda: normalize_batch(with_points(town())),
    "no masks": lambda: {key: value for key, value in town().items() if key != "point_masks"},
    "no images": lambda: {key: value for key, value in town().items() if key != "images"},
    "crop": lambda: cropped(town()),
    "poses a little off": lambda: nudged(town()),
    "clipped": lambda: changed(town(), depths=lambda z: z.clamp(max=float(z.quantile(0.9)))),
    "rounded": lambda: changed(town(), depths=lambda z: z.round()),
    "dark view": lambda: changed(town(), images=lambda a: a * torch.tensor([1.0, 0.4])[:, None, None, None]),
    "noisy images": lambda: changed(town(), images=lambda a: a + 0.1 * noise_like(a)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_a_sound_batch(name: str) -> None:
    """Whatever the size, the unit, the type, the keys: no cause at all, certain or not."""
    assert causes(HEALTHY[name]()) == []


@pytest.mark.parametrize("name", GOLDEN)
def test_nothing_is_said_of_the_golden_batches(name: str) -> None:
    """The reference data, metric and normalised."""
    reference = golden(name)
    dataset = PairDataset(
        reference.root,
        reference.split_file,
        reference.segmentation_root,
        img_size=reference.img_size,
        aspect_ratio=reference.aspect_ratio,
    )
    batch = batched(dataset[reference.pair_index])
    assert causes(batch) == []
    assert causes(normalize_batch(batch)) == []


def batched(item: dict[str, Any]) -> Batch:
    return {key: value[None] for key, value in item.items() if isinstance(value, Tensor)}


def test_nothing_is_said_of_real_views() -> None:
    """RGB-D frames of a Kinect: holes, noise, poses that are a little off, a baseline of a few centimetres."""
    root = shared_data("real_rgbd", "cropped")
    pairs = PairDataset(root, root / "train.npz", img_size=112, aspect_ratio=0.75)
    assert [causes(batched(pairs[k])) for k in range(len(pairs))] == [[]] * len(pairs)


def test_mistake_in_real_views_is_named() -> None:
    """The same frames with cam2world under the key of world2cam."""
    root = shared_data("real_rgbd", "cropped")
    pair = PairDataset(root, root / "train.npz", img_size=112, aspect_ratio=0.75)[2]
    assert named(posed(torch.inverse)(batched(pair))) == [("camera-convention", True)]


def made_up(seed: int, depth: str, pictures: str, poses: str) -> Batch:
    """What a smoke test hands over under these keys."""
    source = torch.Generator().manual_seed(seed)
    height, width = 24, 32
    coarse = torch.randn(2, 1, 4, 4, generator=source)
    smooth = (0.4 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0]).exp()
    depths = {
        "uniform": torch.rand(2, height, width, generator=source) + 0.1,
        "smooth": smooth,
        "same": smooth[:1].expand(2, -1, -1),
        "ramp": torch.linspace(0.8, 1.2, height)[:, None].expand(2, height, width),
        "ones": torch.ones(2, height, width),
        "zeros": torch.zeros(2, height, width),
        "half": torch.randn(2, height, width, generator=source).relu(),
    }[depth]
    noise = torch.rand(2, 3, height, width, generator=source)
    images = {"noise": noise, "same": noise[:1].expand(2, -1, -1, -1), "grey": torch.full_like(noise, 0.5)}[pictures]
    turns = torch.linalg.qr(torch.randn(2, 3, 3, generator=source)).Q
    turns = turns * torch.linalg.det(turns)[:, None, None]
    shifts, still = torch.randn(2, 3, 1, generator=source), torch.eye(3).repeat(2, 1, 1)
    extrinsics = {
        "identity": torch.cat([still, 0 * shifts], 2),
        "turned": torch.cat([turns, shifts], 2),
        "shifted": torch.cat([still, 10 * shifts], 2),
        "random": torch.cat([torch.randn(2, 3, 3, generator=source), shifts], 2),
    }[poses]
    K = torch.tensor([[30.0, 0, width / 2], [0, 30.0, height / 2], [0, 0, 1]]).repeat(2, 1, 1)
    batch = {"images": images, "depths": depths, "extrinsics": extrinsics, "intrinsics": K,
             "point_masks": torch.ones(2, height, width, dtype=torch.bool)}  # fmt: skip
    return {key: value[None] for key, value in batch.items()}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.sampled_from(["uniform", "smooth", "same", "ramp", "ones", "zeros", "half"]),
    pictures=st.sampled_from(["noise", "same", "grey"]),
    poses=st.sampled_from(["identity", "turned", "shifted", "random"]),
)
def test_nothing_is_said_of_what_is_no_scene(seed: int, depth: str, pictures: str, poses: str) -> None:
    """Random tensors under these keys: no change makes them agree, or everything does."""
    assert causes(made_up(seed, depth, pictures, poses)) == []


@pytest.mark.parametrize(
    "intrinsics", [torch.eye(3), torch.zeros(3, 3), torch.full((3, 3), math.nan), torch.ones(3, 3)]
)
def test_intrinsics_that_are_none_are_no_ground_for_anything(intrinsics: Tensor) -> None:
    """Placeholders for intrinsics are left alone."""
    assert causes(changed(town(), intrinsics=lambda K: intrinsics.expand_as(K))) == []


def test_nothing_is_said_of_views_that_do_not_overlap() -> None:
    """Back to back, in a town."""
    around = four(torch.diag(torch.tensor([-1.0, 1, -1])))
    assert causes(posed(lambda e: around @ e, 1)(town())) == []


def test_nothing_is_said_of_the_plane_of_other_tests() -> None:
    """A test double with depths and cameras that have nothing to do with each other."""
    assert causes(two_view_batch()) == []


@pytest.mark.parametrize("lost", ["depths", "extrinsics", "intrinsics"])
def test_batch_of_something_else_is_not_looked_at(lost: str) -> None:
    """All three keys are needed, as tensors of the shapes that belong together, and two views."""
    batch = scene_batch()
    assert look_at_views({key: value for key, value in batch.items() if key != lost}) is None
    assert look_at_views({**batch, lost: "a name"}) is None
    assert look_at_views({**batch, lost: batch[lost][0]}) is None
    assert look_at_views({**batch, lost: batch[lost][:, :1]}) is None
    assert look_at_views([batch]) is None
    assert look_at_predictions({}, {}) is None


def test_looking_changes_nothing() -> None:
    """The batch is the same afterwards, and so is the state of the random numbers."""
    batch, state, numbers = town(), torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    causes(batch)
    assert all(torch.equal(batch[key], value) for key, value in _town(0).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == numbers  # noqa: NPY002


def test_sky_that_carries_the_largest_value() -> None:
    """One number in both views, far away, where turned cameras would see a wall at two depths."""
    (cause,) = causes(filled(65.535)(scene_batch()))
    assert (cause.id, cause.certain) == ("sky", True)
    assert cause.evidence["depth"] == pytest.approx(65.535)


def test_mask_that_leaves_out_another_label() -> None:
    """The ground is left out, the sky counts with a depth like that of the scene."""
    batch = scene_batch()
    below = torch.arange(SIZE)[:, None] > 15
    depths = torch.where(batch["point_masks"], batch["depths"], 1.25)
    (cause,) = causes({**batch, "depths": depths, "point_masks": ~(batch["point_masks"] & below)})
    assert (cause.id, cause.certain) == ("sky", True)
    assert "another one" in cause.advice


def test_points_in_another_unit() -> None:
    """World points in metres beside normalised depths and cameras; nothing says that they are read."""
    batch = with_points(scene_batch())
    assert causes(batch) == []
    (cause,) = causes(changed(batch, world_points=lambda x: 5.6 * x))
    assert (cause.id, cause.certain) == ("units", False)
    assert cause.observed == "world_points are 5.6 times the points of depths, intrinsics and extrinsics"


def test_empty_masks() -> None:
    """Nothing is supervised."""
    batch = changed(scene_batch(), point_masks=torch.zeros_like)
    assert named(batch) == [("vacuous", False)]


# --- predictions ---


def predicted(batch: Batch, depth: Tensor, confidence: Tensor | None = None, **more: Tensor) -> ViewsPredicted:
    outputs = {"heads.depth": depth[..., None], **more}
    if confidence is not None:
        outputs["heads.depth_conf"] = confidence.expand_as(depth)
    seen = look_at_predictions(outputs, batch)
    assert seen is not None
    return seen


def poses_of(batch: Batch, factor: float = 1.0) -> Tensor:
    shifts = batch["extrinsics"][..., 3]
    return torch.cat([factor * shifts, torch.zeros(*shifts.shape[:2], 6)], -1)


def test_depth_off_by_a_factor_beside_cameras_that_are_not() -> None:
    """With cameras to scale it is a defect for certain, without it may be meant."""
    batch = scene_batch()
    alone = predicted(batch, 4.7 * batch["depths"] + 0.02)
    beside = predicted(batch, 4.7 * batch["depths"] + 0.02, pose_enc=poses_of(batch))
    scaled = predicted(batch, 4.7 * batch["depths"] + 0.02, pose_enc=poses_of(batch, 4.7))
    assert [[(c.id, c.certain) for c in causes(batch, seen)] for seen in (alone, beside, scaled)] == [
        [("scale", False)], [("scale", True)], [("scale", False)],
    ]  # fmt: skip
    assert causes(batch, predicted(batch, batch["depths"] + 0.02)) == []


def test_depth_that_is_wrong_altogether_is_no_matter_of_scale() -> None:
    """A constant, and noise."""
    batch = scene_batch()
    noise = torch.rand(batch["depths"].shape, generator=torch.Generator().manual_seed(0))
    assert causes(batch, predicted(batch, torch.full_like(batch["depths"], 0.05))) == []
    assert causes(batch, predicted(batch, 5 * noise)) == []


def test_confidence_that_grows_while_depth_stays_wrong() -> None:
    """Against one that is as large as its error allows."""
    batch = scene_batch()
    error = 0.05 + 0.1 * torch.rand(batch["depths"].shape, generator=torch.Generator().manual_seed(0))
    wrong = batch["depths"] + error
    assert [c.id for c in causes(batch, predicted(batch, wrong, torch.tensor(1e4)))] == ["confidence-runaway"]
    assert causes(batch, predicted(batch, wrong, 0.2 / error)) == []
    assert causes(batch, predicted(batch, batch["depths"] * 1.0001, torch.tensor(2000.0))) == []


def test_confidence_of_the_start_is_compared() -> None:
    """What was large from the beginning has not run away."""
    batch = scene_batch()
    outputs = {"depth": 1.2 * batch["depths"], "depth_conf": torch.full_like(batch["depths"], 1e3)}
    seen = look_at_predictions(outputs, batch, outputs)
    grown = look_at_predictions(outputs, batch, {"depth_conf": torch.ones_like(batch["depths"])})
    assert seen is not None
    assert grown is not None
    assert "confidence-runaway" not in [cause.id for cause in causes(batch, seen)]
    assert "confidence-runaway" in [cause.id for cause in causes(batch, grown)]


def test_predictions_that_are_not_finite_are_left_to_others() -> None:
    """NaN is another cause."""
    batch = scene_batch()
    assert look_at_predictions({"depth": batch["depths"] * math.nan}, batch) is None


# --- rules, on plain numbers ---

SOUND = Agreement(0.9, (0.9, 0.95, 0.99), 0.0, 0.97, 900)
WRONG = Agreement(0.8, (0.02, 0.05, 0.2), 0.4, 0.1, 900)
CHANGE = Change("inverted", None, 1.0, SOUND)
PICTURE = Picture("shifted", None, 0.4, 0.6, 0.95, 0.1, 0.5, 0.7, 0.5, 0.05, right=-0.25, down=0.0, pixels=400)
PLATEAU = Plateau(0, (0, 1), 65.535, 0.25, 60.0, 0.8, 0.1, 0.95, 50.0)
RUNAWAY = ConfidencePredicted("depth_conf", 850.0, 900.0, 2.0, 0.08, 40.0, 0.0)
SCALED = DepthPredicted("depth", 3.74, 4.74, 0.0041, 0.02, 0.999)


def seen(pair: Pair | None = None, **changes: Any) -> ViewsSeen:
    frames = (Frame(0, 0, 0.8, 0.0, 0.0, (0.5, 0.5)), Frame(0, 1, 0.7, 0.0, 0.0, (0.5, 0.5)))
    values = {"samples": 1, "views": 2, "height": 24, "width": 24, "frames": frames, "pairs": (pair,) if pair else ()}
    return ViewsSeen(**{**values, **changes})


TEXTS = {
    "camera-convention": (
        seen(Pair(0, 0, 1, WRONG, (replace(CHANGE, name="OpenGL", view=1),))), None,
        "camera-convention (shown): 4 % of the pixels of views 0 and 1 lie on the other view's surface within 1.5 %, "
        "86 % do once y and z of the camera axes of view 1 are negated\n"
        "  where: batch['extrinsics'], view 1\n"
        "  change: diag(1, -1, -1) @ extrinsics[:, 1]: from OpenGL axes (y up, z backwards) to OpenCV axes",
    ),
    "units": (
        seen(Pair(0, 0, 1, WRONG, (Change("baseline", None, 999.6, SOUND, beside=0.5),))), None,
        "units (shown): 4 % of the pixels of views 0 and 1 lie on the other view's surface within 1.5 %, "
        "86 % do once the translations of the extrinsics are multiplied by 1000\n"
        "  where: batch['extrinsics'], views 0 and 1\n"
        "  change: extrinsics[..., :3, 3] * 1000, or depths / 1000: both need one unit",
    ),
    "misalignment": (
        seen(Pair(0, 0, 1, SOUND, picture=PICTURE)), None,
        "misalignment (shown): depths and cameras of views 0 and 1 agree, but the colours of one surface correlate by "
        "0.40 only, and by 0.95 once the images are moved by about 6 pixels right\n"
        "  where: batch['images'], views 0 and 1\n"
        "  change: crop depths, point_masks and intrinsics with the images, by the same corner",
    ),
    "sky": (
        seen(plateaus=(PLATEAU,)), None,
        "sky (shown): 25 % of the pixels that count in view 0 and view 1 have depth 65.535 exactly; 80 % of them "
        "cannot be a surface under the cameras, while 95 % of the others agree\n"
        "  where: batch['depths'] and batch['point_masks'], view 0 and view 1\n"
        "  change: leave them out of point_masks: depth 65.535 stands for sky or for nothing",
    ),
    "scale": (
        seen(), ViewsPredicted((SCALED,), baseline=1.0, camera_error=0.01),
        "scale (shown): depth is 4.74 times the depth of the batch: off by 374 %, and by 0.41 % once it is divided by "
        "that; the predicted cameras have the batch's scale\n"
        "  where: output depth\n"
        "  change: compare depths in the batch's units, without aligning or normalising the prediction, or normalise "
        "both",
    ),
    "confidence-runaway": (
        seen(), ViewsPredicted((), (RUNAWAY,)),
        "confidence-runaway (shown): mean confidence is 850, from 2 at the start, while depth is off by 8 %: "
        "confidence times error is 40\n"
        "  where: output depth_conf\n"
        "  change: multiply the error by the confidence and let it have gradients: (c * error - a * log c).mean(), "
        "or bound the confidence",
    ),
    "vacuous": (
        seen(frames=(Frame(0, 0, 0.0, 0.0, 0.0, (0.5, 0.5)),), masked=True), None,
        "vacuous (shown): point_masks is false everywhere: no depth is supervised\n"
        "  where: batch['point_masks']\n"
        "  change: point_masks = depths > 0",
    ),
}  # fmt: skip


def test_rules_need_no_torch() -> None:
    """Evidence and rules are plain numbers."""
    code = (
        "import sys, pytest_overfit.diagnose.rules.two_view; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def told(views: ViewsSeen, said: ViewsPredicted | None = None) -> list[Cause]:
    return [cause for rule in two_view.RULES for cause in rule(views, said)]


@pytest.mark.parametrize("name", TEXTS)
def test_words(name: str) -> None:
    """What is said, word by word."""
    views, said, text = TEXTS[name]
    (cause,) = told(views, said)
    assert cause.text() == text
    assert cause.id == name
    assert name in IDS


def test_every_change_has_a_meaning() -> None:
    """Whatever can be found can be said, for one view and for all, and with the images."""
    for name in (*two_view.CONVENTIONS, *two_view.TURNS):
        for view in (None, 1):
            change = Change(name, view, 3.0, SOUND, pictures=name in two_view.TURNS and view is None)
            (cause,) = told(seen(Pair(0, 0, 1, WRONG, (change,))))
            assert cause.id in ("camera-convention", "misalignment", "units")
            assert "{" not in cause.text()


MEASURED = replace(SOUND, colour=math.nan)
UNCLEAR = {
    "nothing better": Pair(0, 0, 1, SOUND, (CHANGE,)),
    "not much better": Pair(0, 0, 1, replace(SOUND, agree=(0.8, 0.85, 0.9)), (CHANGE,)),
    "poses a little off": Pair(0, 0, 1, WRONG, (CHANGE,), nudged=0.8),
    "few pixels": Pair(0, 0, 1, WRONG, (Change("inverted", None, 1.0, replace(SOUND, pixels=120)),)),
    "hardly any overlap": Pair(0, 0, 1, WRONG, (Change("inverted", None, 1.0, replace(SOUND, landed=0.2)),)),
    "other colours": Pair(0, 0, 1, WRONG, (Change("inverted", None, 1.0, replace(SOUND, colour=0.6)),)),
    "without colour, by chance": Pair(0, 0, 1, WRONG, (Change("inverted", None, 1.0, MEASURED, chance=0.7),)),
    "any factor will do": Pair(0, 0, 1, WRONG, (Change("baseline", None, 1e-3, SOUND, beside=0.88),)),
    "hardly another focal length": Pair(0, 0, 1, WRONG, (Change("focal length scaled", None, 1.24, SOUND),)),
    "hardly a factor": Pair(0, 0, 1, WRONG, (Change("baseline", None, 1.2, SOUND),)),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_change_that_is_not_clear(name: str) -> None:
    """Every condition alone keeps a rule silent."""
    assert told(seen(UNCLEAR[name])) == []


def test_change_that_mends_the_rest() -> None:
    """Most of the scene agrees either way, and all of it only after the change."""
    given = Agreement(0.9, (0.66, 0.67, 0.68), 0.17, 0.97, 900)
    pair = Pair(0, 0, 1, given, (Change("flipped upside down", None, 1.0, replace(SOUND, agree=(0.93, 0.97, 1.0))),))
    assert [cause.id for cause in told(seen(pair))] == ["misalignment"]


OTHERWISE: dict[str, Any] = {
    "fits as it is": {"given": 0.85},
    "no texture": {"aside_difference": 0.1},
    "fits anywhere": {"aside": 0.9},
    "fine texture": {"rough": 0.5},
    "camera a little off": {"nudged": 0.9},
    "few pixels": {"pixels": 100},
    "half a pixel": {"right": 0.03},
    "one image, a little": {"view": 1, "right": 0.1},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_picture_that_is_not_clear(name: str) -> None:
    """The images may lie where they lie."""
    assert told(seen(Pair(0, 0, 1, SOUND, picture=replace(PICTURE, **OTHERWISE[name])))) == []


def test_picture_on_depths_that_disagree_says_nothing() -> None:
    """Colours are compared only where depths and cameras are sound."""
    assert told(seen(Pair(0, 0, 1, WRONG, picture=PICTURE))) == []


SURFACE: dict[str, dict[str, Any]] = {
    "a wall that agrees": {"contradicted": 0.0, "met": 0.9},
    "clipped depth": {"apart": 1.05, "beyond": 1.2},
    "clipped depth at the edge": {"apart": 1.149, "beyond": 1.2},
    "rest that does not agree": {"rest": 0.3},
    "seen through by some": {"views": (0,), "contradicted": 0.4, "beyond": 1.0},
}


@pytest.mark.parametrize("name", SURFACE)
def test_plateau_that_may_be_a_surface(name: str) -> None:
    """One number over a part of a view is no defect by itself."""
    assert told(seen(plateaus=(replace(PLATEAU, **SURFACE[name]),))) == []


def test_plateau_clearly_behind_the_rest_is_no_clipped_depth() -> None:
    """Depth that is clipped goes on up to the clip."""
    (cause,) = told(seen(plateaus=(replace(PLATEAU, apart=1.15, beyond=1.2),)))
    assert (cause.id, cause.certain) == ("sky", True)


def test_plateau_far_away_is_not_certain() -> None:
    """Nobody looks there from elsewhere."""
    (cause,) = told(seen(plateaus=(replace(PLATEAU, views=(1,), contradicted=0.0, met=math.nan),)))
    assert (cause.id, cause.certain) == ("sky", False)
    assert cause.observed.endswith("60 times as far as the rest")


def test_principal_point_of_a_larger_image_is_not_certain() -> None:
    """Where the views cannot be compared; where they agree it is a crop."""
    frames = (Frame(0, 0, 0.8, 0.0, 0.0, (1.0, 1.0)),)
    (cause,) = told(seen(frames=frames))
    assert (cause.id, cause.certain) == ("misalignment", False)
    assert told(seen(Pair(0, 0, 1, SOUND), frames=frames)) == []


def test_points_that_differ_by_more_than_a_factor() -> None:
    """Other axes, or none at all."""
    assert told(seen(points=(Points("cam_points", 4.0, 0.5),))) == []


QUIET: dict[str, ViewsPredicted] = {
    "small confidence": ViewsPredicted((), (replace(RUNAWAY, mean=8.0),)),
    "small error": ViewsPredicted((), (replace(RUNAWAY, cost=0.5),)),
    "follows the error": ViewsPredicted((), (replace(RUNAWAY, follows=-0.95),)),
    "nearly to scale": ViewsPredicted((replace(SCALED, factor=1.1, error=0.1),)),
    "another structure": ViewsPredicted((replace(SCALED, correlation=0.5),)),
    "no better aligned": ViewsPredicted((replace(SCALED, aligned=0.5),)),
    "negative": ViewsPredicted((replace(SCALED, factor=-1.0),)),
}


@pytest.mark.parametrize("name", QUIET)
def test_prediction_that_is_not_clear(name: str) -> None:
    """Every condition alone keeps a rule silent."""
    assert told(seen(), QUIET[name]) == []
