"""Every mistake in a two-view batch is named for certain."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gallery.scene import SIZE, scene_batch
from tests.two_view.diagnose.scenes import (
    MISTAKES,
    causes,
    changed,
    filled,
    named,
    town,
    with_points,
)


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
