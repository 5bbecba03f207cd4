"""A curve as lines of text, in signs that every monospaced font has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from pytest_overfit.judge.finding import number
from pytest_overfit.settings.criteria import Limit

WIDTH, HEIGHT = 60, 8
_HALVES = 2  # of a row: that much finer than the rows is what can be told apart
_SIGNS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def text_curve(
    values: Sequence[float], limit: Limit | None = None, *, width: int = WIDTH, height: int = HEIGHT
) -> list[str]:
    """A curve over its steps, with a line where its limit is; a column shows all that its steps went through.

    The scale is logarithmic, on both sides of zero where there are two. An ``x`` on the axis marks steps that were no
    number. Empty where nothing was a number.

    Example:
        >>> print("\\n".join(text_curve([1.0, 0.1, 0.01], Limit(below=0.05), width=3, height=3)))
           1 ▀█
        0.05 -▀█ limit
        0.01   █
             1 3 step, log scale
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return []
    bound = limit_value(limit, values)
    shown = finite if bound is None else [*finite, bound]
    scale, named = _scale(shown, bound)
    low, high = min(map(scale, shown)), max(map(scale, shown))
    height = height if high > low else 1
    rows = height * _HALVES

    def place(value: float) -> int:
        """Half rows from the top."""
        return round((rows - 1) * (high - scale(value)) / (high - low)) if high > low else rows - 1

    columns = min(width, len(values))
    cuts = [len(values) * column // columns for column in range(columns + 1)]
    buckets = [values[start:end] for start, end in itertools.pairwise(cuts)]
    reach = [_reach(bucket, place) for bucket in _joined(buckets)]
    labels = {0: number(max(shown)), height - 1: number(min(shown))}
    if bound is not None:
        labels[place(bound) // _HALVES] = number(bound)
    margin = max(map(len, labels.values()))
    lines = []
    for row in range(height):
        limited = bound is not None and row == place(bound) // _HALVES
        signs = "".join(_SIGNS[_covers(span, 2 * row), _covers(span, 2 * row + 1)] for span in reach)
        drawn = f"{signs.replace(' ', '-')} limit" if limited else signs
        lines.append(f"{labels.get(row, ''):>{margin}} {drawn}".rstrip())
    broken = ["x" if any(not math.isfinite(value) for value in bucket) else " " for bucket in buckets]
    if "x" in broken:
        lines.append(f"{'':{margin}} {''.join(broken)} not finite".rstrip())
    last = str(len(values))
    lines.append(f"{'':{margin}} 1{last:>{max(columns - 1, len(last) + 1)}} step, {named}")
    return lines


def limit_value(limit: Limit | None, values: Sequence[float]) -> float | None:
    """Where the line of a limit is: a share of the start is a number once there is a start."""
    if limit is None:
        return None
    bound = limit.below if limit.below is not None else limit.above
    if bound is None or not limit.relative:
        return bound
    start = values[: limit.window]
    mean = math.fsum(start) / len(start) if start else math.nan
    return bound * mean if math.isfinite(mean) and mean > 0 else None


def _scale(shown: Sequence[float], bound: float | None) -> tuple[Callable[[float], float], str]:
    if min(shown) > 0:
        return math.log10, "log scale"
    largest = max(map(abs, shown))
    threshold = max(abs(bound), largest * 1e-12) if bound else largest / 100
    if not threshold:
        return (lambda value: value), "linear scale"
    return (lambda value: math.asinh(value / threshold)), "log scale on both sides of 0"


def _joined(buckets: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Each bucket with the last value before it: no gap between two columns."""
    return [buckets[0], *([before[-1], *bucket] for before, bucket in itertools.pairwise(buckets))]


def _reach(bucket: Sequence[float], place: Callable[[float], int]) -> tuple[int, int] | None:
    places = [place(value) for value in bucket if math.isfinite(value)]
    return (min(places), max(places)) if places else None


def _covers(span: tuple[int, int] | None, half: int) -> bool:
    return span is not None and span[0] <= half <= span[1]
