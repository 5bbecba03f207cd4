"""A pair whose views do not agree is told the one thing that makes them agree, measured on its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_overfit.two_view.diagnose.pair_causes import cause_of_views, files_of
from pytest_overfit.two_view.pair.check import CheckedView, checked_view
from pytest_overfit.two_view.pair.pair_files import view_files
from pytest_overfit.two_view.pair.synthetic import render_views
from tests.support.chinese import assert_chinese

Change = Callable[[CheckedView], CheckedView]


def _views(change: Change = lambda view: view) -> list[CheckedView]:
    raw = render_views(0, 320, 240, Path(), Path())
    return [change(checked_view(view)) for view in raw]


def _halved(view: CheckedView) -> CheckedView:
    return replace(view, intrinsics=np.diag([0.5, 0.5, 1.0]) @ view.intrinsics)


def _millimetres(view: CheckedView) -> CheckedView:
    pose = view.world2cam.copy()
    pose[:3, 3] *= 1000
    return replace(view, world2cam=pose)


@pytest.mark.parametrize(
    ("change", "cause", "once", "factor"),
    [
        (_halved, "misalignment", "once the intrinsics are multiplied by", 2.0),
        (_millimetres, "units", "once the translations of the extrinsics are multiplied by", 0.001),
    ],
)
def test_the_change_is_told_with_its_factor(change: Change, cause: str, once: str, factor: float) -> None:
    found = cause_of_views(_views(change))
    assert found is not None
    assert found.id == cause
    assert once in found.observed
    assert found.evidence["factor"] == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize(
    ("depth", "translation", "at_fault", "by"),
    [
        (1 / 0.3048, 1, "depth", "depths * 0.305"),
        (0.001, 1, "depth", "depths * 1000"),
        (1, 1000, "camera", "extrinsics[..., :3, 3] * 0.001"),
        (1, 1 / 0.3048, "camera", "extrinsics[..., :3, 3] * 0.305"),
        (1, 2.0, "both", ""),
    ],
)
def test_the_file_whose_unit_it_is_is_named(depth: float, translation: float, at_fault: str, by: str) -> None:
    def change(view: CheckedView) -> CheckedView:
        pose = view.world2cam.copy()
        pose[:3, 3] *= translation
        return replace(view, world2cam=pose, depth=np.float32(depth) * view.depth)

    found = cause_of_views(_views(change))
    assert found is not None
    files = view_files(Path(), None, "0000", "a"), view_files(Path(), None, "0000", "b")
    kinds = {"depth": [".exr"] * 2, "camera": [".npz"] * 2, "both": [".exr", ".exr", ".npz", ".npz"]}[at_fault]
    assert [path.suffix for path in files_of(found, files)] == kinds
    assert found.advice.startswith(by)
    assert_chinese(found)


def test_a_pair_that_agrees_has_none() -> None:
    assert cause_of_views(_views()) is None


def test_views_of_two_sizes_are_not_asked() -> None:
    first, second = _views(_halved)
    smaller = replace(second, depth=second.depth[::2, ::2], image=second.image[::2, ::2])
    assert cause_of_views([first, smaller]) is None
