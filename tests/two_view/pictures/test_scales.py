"""The range of a picture's colours travels in its file, and a page reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_overfit.report.page.images import pictures_of
from pytest_overfit.two_view.pair.pair_files import FramePicture
from pytest_overfit.two_view.pictures.drawing import blank, save_png
from pytest_overfit.two_view.pictures.frames import write_pictures


def test_both_depths_have_one_scale(tmp_path: Path) -> None:
    """That of the true one; an error ends at a tenth of the scene; a confidence has no unit."""
    truth = np.linspace(1, 2, 48, dtype=np.float32).reshape(6, 8)
    ones = np.ones((6, 8), dtype=np.float32)
    picture = FramePicture(0, blank(8, 6), truth, truth > 0, 3 * truth, ones)
    (frame,) = pictures_of(tmp_path, write_pictures(tmp_path, [picture])).frames
    depth = frame.panels["depth_true"].scale
    assert depth is not None
    assert depth == frame.panels["depth_predicted"].scale
    assert [float(depth[0]), float(depth[1])] == pytest.approx([1, 2], abs=0.02)
    assert depth[2] == "normalised"
    assert frame.panels["depth_error"].scale == ("0", "0.1", "normalised")
    assert frame.panels["confidence"].scale == ("1", "1", "")
    assert frame.panels["image"].scale is None


@pytest.mark.parametrize("said", ["", "a b", "1", "1 2 <b>", "1 2 m and more"])
def test_a_scale_that_is_none_is_left_out(tmp_path: Path, said: str) -> None:
    """The picture is shown all the same."""
    save_png(tmp_path / "frame_0_image.png", blank(3, 2), said)
    (frame,) = pictures_of(tmp_path, ["frame_0_image.png"]).frames
    assert (frame.panels["image"].width, frame.panels["image"].scale) == (3, None)
