"""A result as a notebook shows it: verdict, causes and the curve of the objective. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.text.failure import headline, told
from pytest_overfit.text.table import criteria_table

WIDTH, HEIGHT, EDGE = 480, 120, 4  # pixels
POINTS = 240


def notebook_html(
    summary: str, findings: Sequence[Finding], causes: Sequence[Cause], curve: Sequence[float], *, passed: bool
) -> str:
    """HTML without a script or a style sheet, in the colours of the notebook.

    Example:
        >>> print(notebook_html("2 of 2 steps", [], [], [2.0, 1.0], passed=True)[:38])
        <div><b style="color:#1a7f37">passed</

    Args:
        summary: how far the run went.
        curve: of the objective.
    """
    head = "" if passed else headline([finding for finding in findings if finding.missed], causes)
    verdict, colour = ("passed", "#1a7f37") if passed else ("FAILED", "#cf222e")
    lines = "\n".join(html.escape(line) for line in (*told(head, causes), *criteria_table(findings or ())))
    first = f'<b style="color:{colour}">{verdict}</b> {html.escape(head or summary)}'
    return f"<div>{first}{_svg(curve, colour)}<pre>{lines}</pre></div>"


def _svg(curve: Sequence[float], colour: str) -> str:
    """The curve on a logarithmic scale where all of it is above zero; nothing of fewer than two numbers."""
    every = max(1, len(curve) // POINTS)
    shown = [(place, value) for place, value in enumerate(curve) if place % every == 0 or place == len(curve) - 1]
    points = [(place, value) for place, value in shown if math.isfinite(value)]
    if len(points) < 2:
        return ""
    log = min(value for _, value in points) > 0
    heights = [math.log10(value) if log else value for _, value in points]
    low, high = min(heights), max(heights)
    line = " ".join(
        f"{EDGE + place / (len(curve) - 1) * (WIDTH - 2 * EDGE):.1f},"
        f"{EDGE + (high - height) / ((high - low) or 1) * (HEIGHT - 2 * EDGE):.1f}"
        for (place, _), height in zip(points, heights, strict=True)
    )
    title = f"objective, {points[0][1]:.4g} to {points[-1][1]:.4g}{', logarithmic' if log else ''}"
    return (
        f'<br><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/></svg>'
    )
