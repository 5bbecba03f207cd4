"""What is wrong with a two-view batch, in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_overfit.two_view.data.contract import batch_problems

HEIGHT, WIDTH = 20, 30
Spoil = Callable[[dict[str, Any]], object]


def _batch(samples: int = 1) -> dict[str, Any]:
    """A batch without fault."""
    draw = torch.Generator().manual_seed(0)
    return {
        "images": torch.rand(samples, 2, 3, HEIGHT, WIDTH, generator=draw),
        "depths": 1 + torch.rand(samples, 2, HEIGHT, WIDTH, generator=draw),
        "extrinsics": torch.eye(4)[:3].repeat(samples, 2, 1, 1),
        "intrinsics": torch.diag(torch.tensor([30.0, 30.0, 1.0])).repeat(samples, 2, 1, 1),
        "world_points": torch.rand(samples, 2, HEIGHT, WIDTH, 3, generator=draw),
        "point_masks": torch.ones(samples, 2, HEIGHT, WIDTH, dtype=torch.bool),
        "seq_name": ["a"] * samples,
    }


def _problems(batch: dict[str, Any]) -> tuple[str, ...]:
    return batch_problems(batch, height=HEIGHT, width=WIDTH)


@pytest.mark.parametrize("samples", [1, 3])
def test_good_batch_has_no_problem(samples: int) -> None:
    """A batch that keeps the contract passes, whatever the number of samples."""
    assert _problems(_batch(samples)) == ()


def test_number_of_frames_is_free() -> None:
    """Two frames are the default, another number is checked on request."""
    batch = _batch()
    assert batch_problems(batch, height=HEIGHT, width=WIDTH, frames=3)[0] == (
        "images: shape (1, 2, 3, 20, 30), expected (1, 3, 3, 20, 30)"
    )


def test_everything_missing_is_one_line() -> None:
    """An empty batch is one problem that lists every key."""
    assert _problems({}) == ("missing: images, depths, extrinsics, intrinsics, world_points, point_masks",)


def test_dummy_batch_is_named() -> None:
    """The all-zero batch of the original loader, on which every loss is 0, is recognised and nothing else is said."""
    batch = {key: value if key == "seq_name" else torch.zeros_like(value) for key, value in _batch().items()}
    (problem,) = _problems(batch)
    assert problem.startswith(
        "images and depths are all zero: the dummy batch that a loader hands out after a failed load"
    )


def _put(key: str, index: tuple[Any, ...], value: Any) -> Spoil:
    return lambda batch: batch[key].__setitem__(index, value)


def _set(key: str, make: Callable[[Any], Any]) -> Spoil:
    return lambda batch: batch.__setitem__(key, make(batch[key]))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_set("depths", lambda d: d[..., None]), "depths: shape (1, 2, 20, 30, 1), expected (1, 2, 20, 30)"),
        (_set("images", lambda x: x[0]), "images: shape (2, 3, 20, 30), expected (1, 2, 3, 20, 30)"),
        (_set("images", lambda x: x.double()), "images: torch.float64, expected torch.float32"),
        (_set("point_masks", lambda x: x.float()), "point_masks: torch.float32, expected torch.bool"),
        (_set("depths", lambda d: d.numpy()), "depths: ndarray, expected a tensor (1, 2, 20, 30)"),
        (
            _put("depths", (0, 1, 4, slice(5, 8)), math.nan),
            "depths: 3 of 1200 are not finite, the first at (0, 1, 4, 5): nan",
        ),
        (
            _put("world_points", (0, 0, 2, 3, 1), -math.inf),
            "world_points: 1 of 3600 are not finite, the first at (0, 0, 2, 3, 1): -inf",
        ),
        (
            _set("images", lambda x: torch.where(x > 0.5, 255.0, 0.0)),
            "images: 0 .. 255, expected 0 .. 1: divide by 255",
        ),
        (
            _set("images", lambda x: torch.where(x > 0.5, 1.0, -1.0)),
            "images: -1 .. 1, expected 0 .. 1: mean and deviation",
        ),
        (_put("images", (0, 1), 0.25), "images: sample 0 frame 1 is one colour, 0.25"),
        (_put("point_masks", (0, 1), False), "point_masks: sample 0 frame 1 has no valid depth"),
        (
            _put("point_masks", (0, 0, slice(0, 17)), False),
            "point_masks: sample 0 frame 0 has 90 valid points, expected more than 100: "
            "with fewer the camera loss is exactly 0",
        ),
        (_put("depths", (0, 0, 3, slice(0, 5)), 0.0), "point_masks: 5 valid pixels have no depth above 0"),
        (
            lambda batch: (
                batch["depths"].__setitem__((0, 0, 0, 0), -3.0),
                batch["point_masks"].__setitem__((0, 0, 0, 0), False),
            ),
            "depths: 1 are below 0, the lowest -3; 0 marks invalid",
        ),
        (
            _put("extrinsics", (0, 1, 0, 0), 2.0),
            "extrinsics: sample 0 frame 1 is no rotation: R R^T is off the identity by 3, determinant 2",
        ),
        (
            _put("extrinsics", (0, 1, 0, 0), -1.0),
            "extrinsics: sample 0 frame 1 is no rotation: R R^T is off the identity by 0, determinant -1",
        ),
        (_put("intrinsics", (0, 0, 1, 1), 0.0), "intrinsics: sample 0 frame 0 has focal lengths 30, 0"),
    ],
)
def test_one_fault_one_line(spoil: Spoil, problem: str) -> None:
    """Each fault gives exactly one line, with what was seen and what was expected."""
    batch = _batch()
    spoil(batch)
    (seen,) = _problems(batch)
    assert seen.startswith(problem)


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (torch.tensor([0.0, 255.0]), ": divide by 255"),
        (torch.tensor([-1.0, 1.0]), ": mean and deviation are the model's business"),
        (torch.tensor([0.0, 1.5]), "expected 0 .. 1"),
    ],
)
def test_images_out_of_range_say_why(images: torch.Tensor, hint: str) -> None:
    """Bytes and normalised colours are told apart."""
    batch = _batch()
    batch["images"] = images[torch.randint(2, batch["images"].shape, generator=torch.Generator().manual_seed(0))]
    (seen,) = _problems(batch)
    assert seen.endswith(hint)


def test_hundred_points_are_too_few() -> None:
    """A first frame with 100 valid points is named, one with 101 is not."""
    batch = _batch()
    batch["point_masks"][0, 0] = False
    batch["point_masks"][0, 0].view(-1)[:100] = True
    assert "has 100 valid points" in _problems(batch)[0]
    batch["point_masks"][0, 0].view(-1)[100] = True
    assert _problems(batch) == ()


def test_faults_are_reported_together() -> None:
    """Missing keys, wrong shapes and non-finite numbers appear side by side."""
    batch = _batch()
    del batch["intrinsics"]
    batch["depths"] = batch["depths"][..., :-1]
    batch["images"][0, 0, 0, 0, 0] = math.nan
    problems = _problems(batch)
    assert [problem.split(":")[0] for problem in problems] == ["missing", "depths", "images"]


def test_extra_keys_may_be_anything() -> None:
    """A key of the team's own is not judged by shape, but a NaN in it is reported under its dotted name."""
    batch = _batch() | {"extra": {"sparse": torch.eye(3).to_sparse(), "flags": torch.tensor([True])}}
    assert _problems(batch) == ()
    batch["extra"]["weights"] = torch.tensor([1.0, math.nan])
    assert _problems(batch) == ("extra.weights: 1 of 2 are not finite, the first at (1,): nan",)


def test_batch_is_only_read() -> None:
    """Looking for problems changes nothing in the batch."""
    batch, twin = _batch(), _batch()
    _problems(batch)
    assert all(torch.equal(batch[key], twin[key]) for key in batch if key != "seq_name")
