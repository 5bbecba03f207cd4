"""Nothing is said of a batch that is sound, or that is no scene at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gallery.scene import FOCAL, SIZE, render, scene_batch
from pytest_overfit.two_view.data.normalize import normalize_batch
from pytest_overfit.two_view.diagnose.predicted_views import measure_predictions
from pytest_overfit.two_view.diagnose.view_geometry import measure_views
from tests.support.batches import two_view_batch
from tests.two_view.diagnose.scenes import (
    DEPTH,
    Batch,
    _town,
    causes,
    changed,
    four,
    posed,
    town,
    with_points,
)


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
    assert measure_views({key: value for key, value in batch.items() if key != lost}) is None
    assert measure_views({**batch, lost: "a name"}) is None
    assert measure_views({**batch, lost: batch[lost][0]}) is None
    assert measure_views({**batch, lost: batch[lost][:, :1]}) is None
    assert measure_views([batch]) is None
    assert measure_predictions({}, {}) is None


def test_looking_changes_nothing() -> None:
    """The batch is the same afterwards, and so is the state of the random numbers."""
    batch, state, numbers = town(), torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    causes(batch)
    assert all(torch.equal(batch[key], value) for key, value in _town(0).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == numbers  # noqa: NPY002
