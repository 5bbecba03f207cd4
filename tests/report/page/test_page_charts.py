"""What the pages draw: curves, limits, sparklines and bars, of the numbers of the record."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from pytest_overfit.report.page.charts import COLORS, charts_of, levels
from pytest_overfit.report.page.downsample import MOST_POINTS, kept_indices, symlog, symlog_threshold
from pytest_overfit.report.page.sentences import margin_share
from pytest_overfit.report.page.sparkline import sparkline_points
from pytest_overfit.settings.criteria import Limit
from tests.report.page.pages import charts_in, compared, page_of, plain, text_of
from tests.support.documents import broken, two_view


def test_curves_are_those_of_the_record(tmp_path: Path) -> None:
    """Every term, in training and in validation, with its limit and the step at which that was met."""
    document = two_view()
    assert document.result is not None
    made = document.result.record
    losses, rates, gradients = charts_in(page_of(tmp_path, document))
    lines = {(line["name"], line["kind"]): line for line in losses["lines"]}
    for name, curve in made.curves.items():
        shown = lines[name, "training"]["values"]
        assert len(shown) == made.steps
        assert shown == pytest.approx(curve, rel=1e-6)
        assert lines[name, "validation"]["steps"] == list(made.val_steps)
    assert {bound["name"]: bound["value"] for bound in losses["bounds"]} == {
        "objective": 0.01,
        "loss_camera": 0.001,
        "loss_reg_depth": 0.01,
    }
    met = {mark["name"]: mark["step"] for mark in losses["marks"]}
    assert met["loss_camera"] == document.result.finding("camera").steps_to_pass
    assert rates["lines"][0]["values"] == pytest.approx(made.learning_rate, rel=1e-6)
    assert {line["name"] for line in gradients["lines"]} == set(made.grad_norms)


def test_seeds_are_laid_over_each_other(tmp_path: Path) -> None:
    """One curve per seed, and a switch for each."""
    document = broken("head_swapped_late", (0, 1, 2))
    page = page_of(tmp_path, document)
    assert [line["seed"] for line in charts_in(page)[0]["lines"]] == [0, 1, 2]
    assert page.count('data-field="seed"') == 6  # of losses and of gradient norms
    assert "seed 0, which did worst" in text_of(page)


def test_saved_curves_and_changes_are_shown(tmp_path: Path) -> None:
    """Dashed beside the new ones, with a table of what moved and whether that was allowed."""
    document = two_view()
    assert document.result is not None
    page = page_of(tmp_path, replace(document, comparison=compared(document.result)))
    saved = [line for line in charts_in(page)[0]["lines"] if line["kind"] == "saved run"]
    assert {line["name"] for line in saved} == set(document.result.record.curves)
    text = text_of(page)
    assert "steps to pass 80 160 2×" in text
    assert "failed more than allowed" in text
    assert "another torch: 2.4 then, 2.6 now" in text


def test_numbers_that_are_none_stay_out_of_the_json(tmp_path: Path) -> None:
    """NaN and infinities are gaps of a curve, and strict JSON."""
    document = plain(curves={"objective": (1.0, math.nan, math.inf, 0.5)}, learning_rate=(), grad_norms={})
    (chart,) = charts_in(page_of(tmp_path, document))
    assert chart["lines"][0]["values"] == [1.0, None, None, 0.5]


def test_long_curves_keep_their_extremes() -> None:
    """A spike of one step survives, whatever the curve beside it does."""
    calm, spiked = [1.0] * 30_000, [2.0] * 30_000
    spiked[12_345], spiked[20_001] = 9.0, -9.0
    kept = kept_indices([calm, spiked], always=[777, 50_000])
    assert {0, 777, 12_345, 20_001, 29_999} <= set(kept)
    assert len(kept) < 1.1 * MOST_POINTS
    assert kept == sorted(set(kept))


def test_symlog_is_odd_and_grows() -> None:
    """Below zero as above it, and steadily."""
    threshold = symlog_threshold([-3.0, 40.0])
    heights = [symlog(value, threshold) for value in (-40.0, -0.01, 0.0, 0.01, 40.0)]
    assert heights == sorted(heights)
    assert heights[0] == -heights[-1]


@pytest.mark.parametrize("curve", [(), (1.0,), (math.nan, 1.0), (math.inf, math.nan)])
def test_a_curve_of_one_number_has_no_sparkline(curve: tuple[float, ...]) -> None:
    """Nothing is drawn of nothing."""
    assert sparkline_points(curve) == ("", None)


def test_a_sparkline_shows_its_limit() -> None:
    """A limit below the curve lies below it, also where values are negative."""
    points, height = sparkline_points([1.0, 0.1, -0.5], -1.0)
    assert height == 26
    assert len(points.split()) == 3


def test_a_relative_limit_is_drawn_at_its_share_of_the_start() -> None:
    """A twentieth of 4 is 0.2; without a start above zero there is no line."""
    limit = Limit(below=0.05, relative=True)
    assert [*levels(limit, (4.0, 1.0))] == [0.2]
    assert [*levels(limit, (-4.0, 1.0))] == [*levels(limit, ())] == []


@pytest.mark.parametrize(
    ("margin", "share"),
    [(1.0, 0.0), (100.0, 1.0), (1e9, 1.0), (0.01, -1.0), (0.0, -1.0), (math.inf, 1.0), (math.nan, None)],
)
def test_margins_as_bars(margin: float, share: float | None) -> None:
    """The limit in the middle, a hundredfold at either end."""
    assert margin_share(margin) == share


def test_groups_without_end_are_cut() -> None:
    """The ten largest gradient groups are drawn, and the chart says of how many."""
    norms = {f"group{index}": (float(index),) for index in range(30)}
    gradients = next(chart for chart in charts_of(plain(grad_norms=norms)) if chart.id == "gradients")
    assert {line.name for line in gradients.lines} == {f"group{index}" for index in range(20, 30)}
    assert gradients.note == "The 10 largest of 30 module groups."


def luminance(color: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("color", COLORS)
def test_a_line_is_seen_on_light_and_on_dark(color: str) -> None:
    """WCAG 1.4.11: 3:1 against the ground of a chart, which page.css names once for each."""
    style = files("pytest_overfit.report.page").joinpath("static/page.css").read_text(encoding="utf-8")
    grounds = re.findall(r"--surface: (#\w{6})", style)
    assert len(grounds) == 2
    for ground in grounds:
        dark, light = sorted((luminance(color), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 3
