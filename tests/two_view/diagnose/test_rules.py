"""The rules of two views on plain numbers: their words, and every condition at its edge."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.settings.cause_ids import IDS
from pytest_overfit.text.translations import translated
from pytest_overfit.two_view.diagnose import conventions, view_causes
from pytest_overfit.two_view.diagnose.conventions import CONVENTIONS, TURNS, meaning_of
from pytest_overfit.two_view.diagnose.view_agreement import pictures_lie_off, views_disagree
from pytest_overfit.two_view.diagnose.views import (
    Agreement,
    Change,
    DepthPredicted,
    Frame,
    Pair,
    Picture,
    Plateau,
    Points,
    ViewsPredicted,
    ViewsSeen,
)
from tests.support.chinese import ENGLISH

SOUND = Agreement(0.9, (0.9, 0.95, 0.99), 0.0, 0.97, 900)
WRONG = Agreement(0.8, (0.02, 0.05, 0.2), 0.4, 0.1, 900)
CHANGE = Change("inverted", None, 1.0, SOUND)
PICTURE = Picture("shifted", None, 0.4, 0.6, 0.95, 0.1, 0.5, 0.7, 0.5, 0.05, right=-0.25, down=0.0, pixels=400)
PLATEAU = Plateau(0, (0, 1), 65.535, 0.25, 60.0, 0.8, 0.1, 0.95, 50.0)
SCALED = DepthPredicted("depth", 3.74, 4.74, 0.0041, 0.02, 0.999)


def seen(pair: Pair | None = None, **changes: Any) -> ViewsSeen:
    frames = (Frame(0, 0, 0.8, 0.0, 0.0, (0.5, 0.5)), Frame(0, 1, 0.7, 0.0, 0.0, (0.5, 0.5)))
    values = {"samples": 1, "views": 2, "height": 24, "width": 24, "frames": frames, "pairs": (pair,) if pair else ()}
    return ViewsSeen(**{**values, **changes})


TEXTS = {
    "camera-convention": (
        seen(Pair(0, 0, 1, WRONG, (replace(CHANGE, name="OpenGL", view=1),))), None,
        "camera-convention (shown): the views agree once y and z of the camera axes of view 1 are negated: 86 % of the "
        "pixels of views 0 and 1 lie on the other view's surface within 1.5 % then, 4 % as given\n"
        "  where: batch['extrinsics'], view 1\n"
        "  change: diag(1, -1, -1) @ extrinsics[:, 1]: from OpenGL axes (y up, z backwards) to OpenCV axes",
    ),
    "units": (
        seen(Pair(0, 0, 1, WRONG, (Change("baseline", None, 999.6, SOUND, beside=0.5),))), None,
        "units (shown): the views agree once the translations of the extrinsics are multiplied by 1000: 86 % of the "
        "pixels of views 0 and 1 lie on the other view's surface within 1.5 % then, 4 % as given\n"
        "  where: batch['extrinsics'], views 0 and 1\n"
        "  change: extrinsics[..., :3, 3] * 1000, or depths / 1000: both need one unit",
    ),
    "misalignment": (
        seen(Pair(0, 0, 1, SOUND, picture=PICTURE)), None,
        "misalignment (shown): the colours fit once the images are moved by about 6 pixels right: those of one surface "
        "in views 0 and 1 correlate by 0.95 then, by 0.40 as given, and depths and cameras agree\n"
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
        "import sys, pytest_overfit.two_view.diagnose.view_causes;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def told(views: ViewsSeen, said: ViewsPredicted | None = None) -> list[Cause]:
    return [cause for rule in view_causes.RULES for cause in rule(views, said)]


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
    for name in (*conventions.CONVENTIONS, *conventions.TURNS):
        for view in (None, 1):
            change = Change(name, view, 3.0, SOUND, pictures=name in conventions.TURNS and view is None)
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
    "nearly to scale": ViewsPredicted((replace(SCALED, factor=1.1, error=0.1),)),
    "another structure": ViewsPredicted((replace(SCALED, correlation=0.5),)),
    "no better aligned": ViewsPredicted((replace(SCALED, aligned=0.5),)),
    "negative": ViewsPredicted((replace(SCALED, factor=-1.0),)),
}


@pytest.mark.parametrize("name", QUIET)
def test_prediction_that_is_not_clear(name: str) -> None:
    """Every condition alone keeps a rule silent."""
    assert told(seen(), QUIET[name]) == []


CHANGES = [
    replace(CHANGE, name=name, view=view, factor=2.0, pictures=pictures)
    for name in (*CONVENTIONS, *TURNS)
    for view in (None, 1)
    for pictures in ([False, True] if name in TURNS else [False])
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.name}, {change.view}, {change.pictures}")
def test_what_to_change_stands_first_and_in_chinese_too(change: Change) -> None:
    meaning = meaning_of(change)
    of = "" if change.view is None else f" of view {change.view}"
    once = meaning.once.format(of=of, factor="2")
    (cause,) = views_disagree(seen(Pair(0, 0, 1, WRONG, (replace(change, beside=0.1),))), None)
    assert cause.observed.startswith(f"the views agree once {once}: ")
    assert not ENGLISH.search(translated(cause.observed, "zh"))


PICTURES = [(name, view) for name in ("shifted", "zoomed", "exchanged", *TURNS) for view in (None, 1)]


@pytest.mark.parametrize(("name", "view"), [each for each in PICTURES if each != ("exchanged", 1)])
def test_what_to_do_with_the_pictures_stands_first_and_in_chinese_too(name: str, view: int | None) -> None:
    picture = replace(PICTURE, name=name, view=view, right=0.3, down=0.2, zoom=2.0)
    for cause in pictures_lie_off(seen(Pair(0, 0, 1, SOUND, picture=picture)), None):
        assert cause.observed.startswith("the colours fit once the image")
        assert not ENGLISH.search(translated(cause.observed, "zh")), translated(cause.observed, "zh")
