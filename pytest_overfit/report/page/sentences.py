"""What a document says in words and numbers: verdict, state, one sentence."""

from __future__ import annotations

import math
import re
from typing import Literal

from markupsafe import Markup

from pytest_overfit.judge.finding import Finding, judged_value, number
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.table import margin_text, stop_text, tightest

Badge = Literal["passed", "failed", "interrupted", "running"]
NOTHING = "–"
MOST_NAMED = 4
TRAINED = ("warm-up", "training")  # phases; the others look for causes
STATES = {
    "running": "still running",
    "finished": "finished",
    "interrupted": "interrupted",
    "killed": "killed before it ended",
    "not_run": "never ran",
}
STRENGTHS = {
    "proven": "a trial that changes only this one thing was run",
    "shown": "a part was asked on its own and answered",
    "observed": "seen while the run went",
}


def badge(document: Document) -> Badge:
    """The verdict, or why there is none."""
    if document.state == "running":
        return "running"
    return "interrupted" if document.cut else document.verdict


def missed(document: Document) -> tuple[Finding, ...]:
    """The findings that did not hold."""
    return tuple(finding for finding in document.findings if finding.missed)


def sentence(document: Document) -> str:
    """What happened, in one sentence.

    Example:
        >>> sentence(document)                                                           # doctest: +SKIP
        'Memorised the sample in 540 of 600 steps: all 13 criteria hold.'
    """
    if not document.records:
        return _without_run(document)
    record = max(document.records, key=lambda record: record.steps)
    steps = f"{record.steps} of {record.planned_steps} steps"
    if document.state == "running":
        return f"Running: {steps} so far; nothing is judged yet."
    if document.state == "killed":
        return f"The process ended after {steps}, before there was a verdict."
    if document.state == "interrupted" and document.error and document.error.startswith("ended by "):
        return f"E{document.error[1:]}: it proves nothing."
    if document.verdict == "passed":
        seeds = f", with {len(document.records)} seeds" if len(document.records) > 1 else ""
        return f"Memorised the sample in {steps}{seeds}: all {len(document.findings)} criteria hold."
    stop = f"{steps} ({stop_text(record)})"
    lost = missed(document)
    if not lost:
        return f"Not finished: {stop}."
    names = ", ".join(finding.name for finding in lost[:MOST_NAMED])
    more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
    return f"{len(lost)} of {len(document.findings)} criteria missed after {stop}: {names}{more}."


def lead(document: Document) -> str:
    """What was missed and why, of a run that was judged, as the terminal begins to tell it."""
    return document.first_line if document.records and document.state == "finished" else ""


def _without_run(document: Document) -> str:
    if document.state == "running":
        return "Running: no step so far."
    return f"Nothing was trained: {document.first_line.rstrip('.') or STATES[document.state]}."


def steps_to_pass(document: Document) -> int | None:
    """The step from which on every criterion of a passed run held."""
    if document.verdict != "passed":
        return None
    return max((f.steps_to_pass for f in document.findings if f.steps_to_pass is not None), default=None)


def judged_objective(document: Document) -> str:
    """The value of the objective that was judged."""
    if document.result is None or not (curve := document.result.record.curves.get("objective")):
        return NOTHING
    return judged_value(document.findings, "objective", curve)


def objective_limit(document: Document) -> str:
    """What the objective has to reach, or nothing."""
    limit = document.limits.get("objective")
    return "" if limit is None else limit.text()


def seeds_text(document: Document) -> str:
    """The seeds of the runs."""
    return ", ".join(str(record.seed) for record in document.records) or NOTHING


def seconds_of(document: Document) -> float:
    """Of all seeds together."""
    return sum(record.seconds for record in document.records)


def diagnosis(document: Document) -> tuple[str, str]:
    """The time that the search for causes took, and in which phases; two empty texts where there was none."""
    spent = {phase: seconds for phase, seconds in document.times.items() if phase not in TRAINED}
    return duration(sum(spent.values())) if spent else "", ", ".join(f"{k} {duration(v)}" for k, v in spent.items())


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> duration(0.0042), duration(2.345), duration(75.0), duration(7260.0)
        ('4 ms', '2.3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def tightest_margin(document: Document) -> tuple[str, str]:
    """The tightest limit that was missed and its margin, as texts; two empty ones where there is none."""
    found = tightest(missed(document))
    return ("", "") if found is None or found.margin is None else (found.name, margin_text(found.margin))


def margin_share(margin: float | None) -> float | None:
    """A margin as a place between -1 (a hundredth of what is needed) and 1 (a hundredfold); 0 is the limit itself.

    Example:
        >>> margin_share(10.0), margin_share(0.1), margin_share(None)
        (0.5, -0.5, None)
    """
    if margin is None or math.isnan(margin):
        return None
    if margin <= 0:
        return -1.0
    return 1.0 if math.isinf(margin) else max(-1.0, min(1.0, math.log10(margin) / 2))


def breakable(text: str) -> Markup:
    """A path or the id of a test, escaped, which may be broken where a reader would break it.

    Signs that are not seen and turn the text around them (U+202E) are left out.

    Example:
        >>> breakable("a/b.py::<i>")
        Markup('a/<wbr>b.py::<wbr>&lt;i&gt;')
    """
    return Markup("<wbr>").join(
        re.split(r"(?<=::)|(?<=[/_\[])", "".join(sign if sign.isprintable() else " " for sign in text))
    )


def when(text: str) -> str:
    """A time of ISO 8601, to be read.

    Example:
        >>> when("2026-03-01T10:00:21+01:00")
        '2026-03-01 10:00:21'
    """
    return text[:19].replace("T", " ")


def count(value: int) -> str:
    """A count with its thousands apart, which no line breaks at."""
    return f"{value:,}".replace(",", "\u202f")


def value_text(value: float | None, unit: str = "") -> str:
    """A number with its unit, or a dash."""
    return NOTHING if value is None else f"{number(value)}{unit}"
