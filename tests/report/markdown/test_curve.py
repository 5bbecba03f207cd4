"""A curve in signs: its height, its axis, its limit."""

from __future__ import annotations

import math

import pytest

from pytest_overfit.report.markdown.curve import HEIGHT, WIDTH, limit_value, text_curve
from pytest_overfit.settings.criteria import Limit

HALVING = [2.0**-step for step in range(16)]


def test_a_straight_fall_on_the_log_scale() -> None:
    """Literally: sixteen halvings are sixteen half rows."""
    assert text_curve(HALVING, Limit(below=0.01)) == [
        "        1 ▀█▄",
        "            ▀█▄",
        "              ▀█▄",
        "     0.01 ------▀█▄------- limit",
        "                  ▀█▄",
        "                    ▀█▄",
        "                      ▀█▄",
        "3.052e-05               ▀█",
        "          1             16 step, log scale",
    ]


def test_every_line_is_within_its_width() -> None:
    """Sixty columns for any number of steps, and eight rows with an axis."""
    for steps in (60, 61, 100, 5000):
        lines = text_curve([1 / step for step in range(1, steps + 1)])
        assert len(lines) == HEIGHT + 1
        margin = lines[-1].index("1 ")
        assert {len(line) - margin for line in lines[:HEIGHT] if line.strip()} <= set(range(1, WIDTH + 1))
        assert lines[-1].split() == ["1", str(steps), "step,", "log", "scale"]


def test_labels_are_the_extremes_and_the_limit() -> None:
    """Top, bottom, and the number of the limit on its line."""
    lines = text_curve([10.0, 1.0, 0.1, 0.001], Limit(below=0.01))
    assert lines[0].split()[0] == "10"
    assert lines[HEIGHT - 1].split()[0] == "0.001"
    (limited,) = [line for line in lines if line.endswith(" limit")]
    assert limited.split()[0] == "0.01"


def test_negative_values_have_a_scale_too() -> None:
    """Logarithmic on both sides of zero."""
    lines = text_curve([8.0, 1.0, -0.5, -1.0], Limit(below=0.01))
    assert lines[0].split()[0] == "8"
    assert lines[HEIGHT - 1].split()[0] == "-1"
    assert lines[-1].endswith("step, log scale on both sides of 0")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_marked(bad: float) -> None:
    """Below the step where it was."""
    lines = text_curve([4.0, 2.0, bad, 1.0])
    assert lines[-2].strip() == "x  not finite"
    assert lines[-2].index("x") == lines[0].index("▀") + 2


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan]])
def test_nothing_to_draw(values: list[float]) -> None:
    """No number, no curve."""
    assert text_curve(values) == []


def test_a_level_curve_is_one_line() -> None:
    """No height to show."""
    assert text_curve([0.5, 0.5]) == ["0.5 ▄▄", "    1 2 step, log scale"]
    assert text_curve([0.0, 0.0]) == ["0 ▄▄", "  1 2 step, linear scale"]


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        (None, None),
        (Limit(below=0.01), 0.01),
        (Limit(above=0.9), 0.9),
        (Limit(below=0.05, relative=True), 0.2),
        (Limit(below=0.05, relative=True, window=2), 0.15),
    ],
)
def test_where_the_limit_is(limit: Limit | None, line: float | None) -> None:
    """A share of the start is a number."""
    assert limit_value(limit, [4.0, 2.0, 1.0]) == (pytest.approx(line) if line is not None else None)


def test_a_share_of_nothing_has_no_line() -> None:
    """The start is not above zero."""
    assert limit_value(Limit(below=0.05, relative=True), [0.0, 1.0]) is None
    assert limit_value(Limit(below=0.05, relative=True), [math.nan]) is None


@pytest.mark.parametrize("values", [[1e300, -1e300, 1e-300], [5e-324, 1e308], [-1.0, 1e12]])
def test_extreme_numbers_are_drawn(values: list[float]) -> None:
    """No overflow on the way."""
    assert len(text_curve(values, Limit(below=1e-320))) == HEIGHT + 1
