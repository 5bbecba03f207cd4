"""A session at a glance: how many runs passed, and a row per run, what failed first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_overfit.report.page import sentences as words
from pytest_overfit.report.page.charts import levels
from pytest_overfit.report.page.sparkline import sparkline_points
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import RUNS

ORDER = ("failed", "running", "passed")


@dataclass(frozen=True)
class Row:
    """One run in the table."""

    badge: words.Badge
    title: str
    href: str
    sentence: str
    state: str
    steps_to_pass: int | None
    steps: int | None
    planned: int | None
    objective: str
    limit: str
    margin: tuple[str, str]
    cause: tuple[str, str] | None
    seeds: str
    seconds: float
    points: str
    limit_height: float | None


@dataclass(frozen=True)
class Overview:
    """Every run, and how many there are of each verdict."""

    rows: tuple[Row, ...]
    counts: Mapping[str, int]
    written: str

    @property
    def badge(self) -> str:
        """Of the session: the worst of its runs; nothing ran is no success."""
        return next((name for name in ORDER if self.counts[name]), "failed")


def overview_of(documents: Sequence[Document]) -> Overview:
    """The overview of these runs.

    Example:
        >>> overview_of(documents).counts                                                 # doctest: +SKIP
        {'failed': 1, 'running': 0, 'passed': 12}
    """
    rows = [_row(document) for document in documents]
    rows.sort(key=lambda row: (ORDER.index(row.badge), row.title, row.href))
    counts = {name: sum(row.badge == name for row in rows) for name in ORDER}
    return Overview(tuple(rows), counts, max((document.written for document in documents), default=""))


def _row(document: Document) -> Row:
    result = document.result
    record = result.record if result else None
    curve = record.curves.get("objective", ()) if record else ()
    limit = document.limits.get("objective")
    points, height = sparkline_points(curve, next(levels(limit, curve), None) if limit else None)
    cause = result.causes[0] if result and result.causes else None
    return Row(
        badge=words.badge(document),
        title=document.title if document.call == 1 else f"{document.title} (call {document.call})",
        href=f"{RUNS}/{document.id}/index.html",
        sentence=words.sentence(document),
        state=words.STATES[document.state],
        steps_to_pass=words.steps_to_pass(document),
        steps=record.steps if record else None,
        planned=record.planned_steps if record else None,
        objective=words.final_objective(document),
        limit=words.objective_limit(document),
        margin=words.tightest_margin(document),
        cause=(cause.id, cause.observed) if cause else None,
        seeds=words.seeds_text(document),
        seconds=words.seconds_of(document),
        points=points,
        limit_height=height,
    )
