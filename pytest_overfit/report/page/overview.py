"""A session at a glance: how many runs passed, and a row per run, what failed first."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_overfit.report.page import sentences as words
from pytest_overfit.report.page.charts import levels
from pytest_overfit.report.page.sparkline import sparkline_points
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import RUNS

ORDER = ("failed", "interrupted", "running", "passed")


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
    cause: str
    seeds: str
    seconds: float
    points: str
    limit_height: float | None

    @property
    def order(self) -> tuple[float, float, float]:
        """What its columns of steps, margin and time are sorted by."""
        margin = float(self.margin[1].rstrip("x") or "inf") if self.margin[1][:1].isdigit() else float("inf")
        return (float("inf") if self.steps_to_pass is None else self.steps_to_pass, margin, self.seconds)


@dataclass(frozen=True)
class Overview:
    """Every run, and how many there are of each verdict."""

    rows: tuple[Row, ...]
    counts: Mapping[str, int]
    written: str
    commands: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

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
    rows.sort(key=lambda row: (ORDER.index(row.badge), row.planned is None, row.title, row.href))
    counts = {name: sum(row.badge == name for row in rows) for name in ORDER}
    failed = [document for document in documents if words.badge(document) == "failed"]
    counts["errors"] = sum(not document.records for document in failed)
    counts["killed"] = sum(document.state == "killed" and bool(document.records) for document in failed)
    commands = _joined([document.command for document in documents if document.command])
    shared = set.intersection(*(set(document.environment.items()) for document in documents)) if documents else set()
    ordered = (
        {name: value for name, value in documents[0].environment.items() if (name, value) in shared} if shared else {}
    )
    written = max((document.written for document in documents), default="")
    return Overview(tuple(rows), counts, written, commands, ordered)


def _joined(commands: Sequence[str]) -> tuple[str, ...]:
    """The commands of runs as those of a session: what differs in its file alone is one command of all files."""
    files: dict[tuple[str, ...], dict[str, None]] = {}
    for command in commands:
        program, target, *rest = [*shlex.split(command), ""]
        files.setdefault((program, *filter(None, rest)), {})[target.partition("::")[0]] = None
    return tuple(shlex.join([program, *filter(None, targets), *rest]) for (program, *rest), targets in files.items())


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
        sentence=words.lead(document) or words.sentence(document),
        state=words.STATES[document.state],
        steps_to_pass=words.steps_to_pass(document),
        steps=record.steps if record else None,
        planned=record.planned_steps if record else None,
        objective=words.judged_objective(document),
        limit=words.objective_limit(document),
        margin=words.tightest_margin(document),
        cause=cause.id if cause else "",
        seeds=words.seeds_text(document),
        seconds=words.seconds_of(document),
        points=points,
        limit_height=height,
    )
