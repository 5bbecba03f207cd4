"""Damaged pairs: the item that names the damage is red, and nothing that depends on it is green."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pytest_overfit.two_view.pair.exr_depth import write_exr
from pytest_overfit.two_view.pair.readers import read_depth
from tests.sabotage.conftest import AERIAL, GROUND, Victim
from tests.support.sessions import CRITERIA, ITEMS, expect_red, not_judged, outcomes, reports_of

BEHIND = ("loader", "run", *CRITERIA)
RUN = ("run", *(name for name in CRITERIA if name != "supervised"))


def test_the_undamaged_pair_is_green(victim: Victim) -> None:
    """So each red below has one reason."""
    assert outcomes(victim.run()) == dict.fromkeys(ITEMS, "passed")


def test_a_missing_depth_file_is_named_once(victim: Victim) -> None:
    """No dummy batch: nothing is judged on a failed load, and the error is written out in one place."""
    victim.file(f"{GROUND}.exr").unlink()
    result = victim.run()
    expect_red(
        result,
        {
            "pair": f"no such file: {GROUND}.exr, allowed only valid files, and two views that agree "
            f"where: {victim.file(GROUND)}.exr",
            **not_judged("pair", BEHIND),
        },
        green=("config",),
    )
    short = ("FAILED", "tiny.yaml::pair")  # the table, pytest's summary, and the last word
    assert sum("no such file" in line for line in result.outlines if not line.startswith(short)) == 1


def test_a_truncated_depth_file_is_named(victim: Victim) -> None:
    """A download that broke off."""
    exr = victim.file(f"{GROUND}.exr")
    exr.write_bytes(exr.read_bytes()[: exr.stat().st_size // 2])
    expect_red(victim.run(), {"pair": "allowed a complete file", **not_judged("pair", BEHIND)}, green=("config",))


def test_a_nan_in_the_depth_file_is_located(victim: Victim) -> None:
    """One pixel is enough; its place is told."""
    path = victim.file(f"{AERIAL}.exr")
    depth = read_depth(path)
    depth[7, 11] = np.nan
    write_exr(path, depth)
    expect_red(
        victim.run(),
        {"pair": "1 of 19200 depths are NaN, the first at column 11, row 7", **not_judged("pair", BEHIND)},
        green=("config",),
    )


def test_depth_that_is_zero_everywhere_supervises_nothing(victim: Victim) -> None:
    """One frame without depth: the pair says so; the other frame can still be memorised."""
    path = victim.file(f"{GROUND}.exr")
    write_exr(path, np.zeros_like(read_depth(path)))
    expect_red(
        victim.run(),
        {
            "pair": f"{GROUND}: no valid depth at all",
            **not_judged("pair", BEHIND),
        },
        green=("config",),
    )
    alone = victim.pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "supervised or depth")
    assert outcomes(alone) == {"supervised": "failed", "depth": "passed"}
    assert "frame 1 has 0 valid depth pixels" in reports_of(alone)["supervised"].longreprtext


def test_two_identical_views_are_no_pair(victim: Victim, swap: Callable[[str, str], None]) -> None:
    """The same file twice: image, depth and camera."""
    for suffix in ("jpg", "exr", "npz"):
        swap(f"{AERIAL}.{suffix}", f"{GROUND}.{suffix}")
    (victim.pair / "seg" / "0000" / f"{GROUND}.png").write_bytes(
        (victim.pair / "seg" / "0000" / f"{AERIAL}.png").read_bytes()
    )
    expect_red(
        victim.run(),
        {"pair": "are the same image", "supervised": "the two images are the same"},
        green=("config", "loader", *RUN),
    )


def test_two_identical_cameras_are_no_motion(victim: Victim, swap: Callable[[str, str], None]) -> None:
    """Two images, one pose: there is no camera to learn."""
    swap(f"{AERIAL}.npz", f"{GROUND}.npz")
    expect_red(
        victim.run(),
        {"pair": "have the same pose", "supervised": "the two cameras are the same"},
        green=("config", "loader", *RUN),
    )


def test_an_inverted_pose_is_found_by_geometry(victim: Victim) -> None:
    """world2cam in the place of cam2world: a model can memorise that too, so the pair check has to see it."""
    path = victim.file(f"{GROUND}.npz")
    with np.load(path) as camera:
        np.savez(path, intrinsics=camera["intrinsics"], cam2world=np.linalg.inv(camera["cam2world"]))
    result = victim.run()
    expect_red(
        result,
        {"pair": "is cam2world stored as world2cam"},
        green=("config", "loader", "supervised", *RUN),
    )


def test_a_missing_sky_mask_is_named(victim: Victim) -> None:
    """The sky's bogus depth would be taken for real."""
    path = victim.pair / "seg" / "0000" / f"{GROUND}.png"
    path.unlink()
    result = victim.run()
    expect_red(
        result,
        {"pair": f"remove_sky is on, but {GROUND} has no mask ({path} is not there)"},
        green=("config", "loader", "supervised", *RUN),
    )
    result.stdout.fnmatch_lines([f"  where: {path}"])
    assert "is cam2world stored" not in result.stdout.str()  # an echo: sky is where no other view has it


@pytest.mark.parametrize(
    "name", ["0000/{GROUND}.jpg", "0000/{GROUND}.npz", "0000/{GROUND}.exr", "seg/0000/{GROUND}.png", "train.npz"]
)
def test_garbage_names_the_file_and_the_folder(victim: Victim, name: str) -> None:
    """The next step can be pasted as it is."""
    path = victim.pair / name.replace("{GROUND}", GROUND)
    path.write_bytes(b"garbage")
    result = victim.run()
    result.stdout.fnmatch_lines(
        [f"  where: {path}*", f"  next: pytest-overfit pair check {victim.pair} shows every file of it"]
    )


def test_a_broken_pair_shows_in_whatever_item_runs(victim: Victim) -> None:
    """Without the pair item in the session the first item that meets the error tells it."""
    victim.file(f"{GROUND}.exr").unlink()
    result = victim.pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "camera or depth")
    result.assert_outcomes(failed=1, skipped=1, deselected=len(ITEMS) - 2)
    result.stdout.fnmatch_lines(["camera: no such file*"])
    assert f"not judged: ::camera failed (no such file: {GROUND}.exr, " in reports_of(result)["depth"].longreprtext


def test_a_sky_that_carries_depth_is_named(victim: Victim) -> None:
    """Without the mask the views contradict; the item says which key works."""
    result = victim.run("+data.train.dataset.dataset_configs.0.remove_sky=false", "overfit.budget.max_steps=2")
    result.stdout.fnmatch_lines(["*set remove_sky: true: the sky carries depth, and without it the pair holds*"])
