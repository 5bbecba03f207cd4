"""A run as lines of text: the headline, the table of criteria, and one line per call."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.limits import FELL
from pytest_overfit.run.record import RunRecord
from pytest_overfit.text.terminal_width import columns, padded
from pytest_overfit.text.translations import Words, translated, words

LIMITS = ("<", ">")
UNIT = 3  # letters
STOPS = {
    "passed": "stopped early: every limit held",
    "max_steps": "used its whole step budget",
    "max_seconds": "CUT SHORT by max_seconds",
    "hung": "HUNG",
    "non_finite": "stopped at the first non-finite value",
    "interrupted": "INTERRUPTED",
    "no_trainable_parameters": "not trained: no parameter is trainable",
    "detached": "not trained: the objective has no gradient",
}


def run_headline(record: RunRecord, findings: Sequence[Finding] = ()) -> str:
    """How far the run went, how fast, on what; and which of its findings were met by a small fall.

    Example:
        >>> run_headline(record)
        '412 of 1000 steps in 21.3 s (52 ms a step), stopped early: every limit held; cpu, 1 thread, seed 42'
    """
    threads = record.environment.get("threads", "")
    parts = [record.device] if record.device else []
    if threads and record.device == "cpu":
        parts.append(f"{threads} thread{'' if threads == '1' else 's'}")
    if record.environment.get("precision", "float32") != "float32":
        parts.append(record.environment["precision"])
    parts.append(f"seed {record.seed}")
    if record.peak_mib is not None:
        parts.append(f"{record.peak_mib:.0f} MiB peak")
    return (
        f"{record.steps} of {record.planned_steps} steps in {record.seconds:.1f} s ({record.step_ms:.0f} ms a step), "
        f"{', '.join([stop_text(record), *small_falls(findings)])}; {', '.join(parts)}"
    )


def stop_text(record: RunRecord) -> str:
    """Why a run has ended.

    Example:
        >>> stop_text(record)
        'HUNG: did not come back within 2 s (training): loss at test_model.py:7: queue.get()'
    """
    return STOPS[record.stop] if record.hung is None else f"{STOPS[record.stop]}: {record.hung.text()}"


def runs_line(runs: Sequence[tuple[RunRecord, Sequence[Finding]]]) -> str:
    """How far the runs of one verdict went, without what they ran on.

    Example:
        >>> runs_line([(record, findings)])
        '412 of 1000 steps in 21.3 s (52 ms a step), stopped early: every limit held'
    """
    if len(runs) == 1:
        return run_headline(*runs[0]).partition("; ")[0]
    steps = [record.steps for record, _ in runs]
    seconds, planned = sum(record.seconds for record, _ in runs), runs[0][0].planned_steps
    return f"{len(runs)} runs, {min(steps)} to {max(steps)} of {planned} steps in {seconds:.1f} s"


def criteria_table(findings: Sequence[Finding], *, width: int = 120, lang: str = "en") -> list[str]:
    """One aligned line per criterion under a header line, none wider than ``width``.

    Where there is nothing to show behind it, what was observed has the rest of the line. Of a text that does not fit
    ``Finding.text()`` has all. Several that could not be judged for one reason are one line. What holds has no margin:
    a run ends once it does, and the steps that are left of its budget are the reserve.

    Example:
        >>> print("\\n".join(criteria_table([Finding("camera", True, "loss_camera 0.0005", "< 0.001", margin=2.0)])))
        verdict  criterion  observed            allowed  margin  since step
        ok       camera     loss_camera 0.0005  < 0.001
    """
    said, groups = words(lang), _alike(findings)
    header = [said[key].lower() for key in ("verdict", "criterion", "observed", "allowed", "margin", "since")]
    told = {id(group[0]): _row(group[0], said, lang) for group in groups if len(group) == 1}
    rows = [header, *told.values()]
    name = max(columns(row[1]) for row in rows)
    numbers = [row for row in rows if row[3][:1] in LIMITS or row[4] or row[5]]
    allowed, margin = (max(columns(row[column]) for row in numbers) for column in (3, 4))
    rest = max(20, width - len("verdict  ") - name - 2)
    observed = min(max(columns(row[2]) for row in numbers), max(20, rest - allowed - margin - len("since step") - 6))

    def line(row: Sequence[str]) -> str:
        begin = f"{padded(row[0], 7)}  {padded(row[1], name)}  "
        if row in numbers and columns(_core(row[2])) > observed:
            return begin + _unaligned(row, rest, lang)
        if row in numbers:
            middle = f"{padded(_clip(row[2], observed, lang), observed)}  {padded(row[3], allowed)}"
            return f"{begin}{middle}  {padded(row[4], margin)}  {row[5]}".rstrip()
        return (begin + _clip(row[2], rest, lang)).rstrip()

    def skipped(group: Sequence[Finding]) -> str:
        why, room = group[0].observed, width - len("verdict  ")
        texts = [translated(f"{shorten([f.name for f in group], most)}: {told}", lang)
                 for told in (why, why.partition(" (")[0]) for most in (3, 2, 1)]  # fmt: skip
        shown = next((text for text in texts if columns(text) <= room), _clip(texts[-1], room, lang))
        return f"{padded(said['skipped'], 7)}  {shown}"

    return [line(header), *(line(told[id(g[0])]) if len(g) == 1 else skipped(g) for g in groups)]


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Each finding alone; those that could not be judged for one reason together, where the first of them is."""
    groups: dict[object, list[Finding]] = {}
    for place, finding in enumerate(findings):
        groups.setdefault(place if finding.judged else finding.observed, []).append(finding)
    return list(groups.values())


def call_line(findings: Sequence[Finding], records: Sequence[RunRecord], causes: Sequence[Cause] = ()) -> str:
    """One call of ``overfit`` in one line: steps, time, the tightest limit, what was missed and why, or declared.

    Example:
        >>> call_line([Finding("objective", True, "objective 0.0088", "< 0.01 for 5 steps", margin=1.14)], [record])
        '412 of 1000 steps in 21.3 s; objective 0.0088 < 0.01'
    """
    steps, planned = max(record.steps for record in records), records[0].planned_steps
    parts = [f"{steps} of {planned} steps in {sum(record.seconds for record in records):.1f} s"]
    if missed := [finding.name for finding in findings if finding.missed]:
        parts += [f"missed {', '.join(missed)}", *(f"why: {cause.id}" for cause in causes[:1])]
    if unjudged := [finding.name for finding in findings if not finding.judged]:
        parts.append(f"not judged: {', '.join(unjudged)}")
    if closest := tightest(findings):
        shown = closest.observed.partition(" (")[0].partition(";")[0]
        limit = closest.allowed.partition(" for ")[0]
        parts.append(f"{shown} {limit}" if closest.passed else f"{shown}, allowed {limit}")
    parts += small_falls(findings)
    parts += [text for finding in findings for text in finding.observed.split("; ") if text.startswith("declared")]
    return "; ".join(parts)


def small_falls(findings: Sequence[Finding]) -> list[str]:
    """Of every limit that was met by a fall of less than half: how small that was.

    Example:
        >>> small_falls([Finding("objective", True, "objective 0.009; fell by only 14%", "< 0.01")])
        ['objective fell by only 14%']
    """
    return [
        f"{finding.name} {text}"
        for finding in findings
        if finding.passed
        for text in finding.observed.split("; ")
        if text.startswith(FELL)
    ]


def tightest(findings: Sequence[Finding]) -> Finding | None:
    """The finding with the smallest margin: of upper limits where there are any, since a metric saturates at its best.

    A term that is within its limit and proves nothing all the same has a text of its own.

    Example:
        >>> tightest([Finding("a", True, "", "< 1", margin=9.0), Finding("b", True, "", "< 1", margin=2.0)]).name
        'b'
    """
    limited = [f for f in findings if f.margin is not None and (f.passed or f.margin < 1)]
    upper = [finding for finding in limited if finding.allowed.startswith("<")]
    stated = [finding for finding in findings if finding.steps_to_pass is not None]
    return min(upper or limited, key=lambda f: f.margin or 0.0, default=None) or next(iter(stated), None)


def _row(finding: Finding, said: Words, lang: str) -> tuple[str, ...]:
    return (
        said["ok" if finding.passed else "FAILED" if finding.judged else "skipped"],
        finding.name,
        translated(finding.observed, lang),
        finding.allowed.partition(" for ")[0],
        "" if finding.passed else margin_text(finding.margin, said),
        "" if finding.steps_to_pass is None else str(finding.steps_to_pass),
    )


def margin_text(margin: float | None, said: Words | None = None) -> str:
    """A margin as all forms show it: how often what was observed fits into what was allowed; 0.996 is no 1.

    Example:
        >>> margin_text(2.04), margin_text(float("inf")), margin_text(None)
        ('2.04x', 'below 0', '')
    """
    if margin is None:
        return ""
    return (said or words("en"))["below_zero"] if math.isinf(margin) else f"{margin:.3g}x"


def _unaligned(row: Sequence[str], width: int, lang: str) -> str:
    """A row whose number has no room in its column: what was observed comes whole, then what else fits."""
    cells = [_core(row[2]), *filter(None, row[3:])]
    while len(cells) > 1 and columns("  ".join(cells)) > width:
        cells.pop()
    return "  ".join(cells) if len(cells) > 1 else _clip(row[2], width, lang)


def _core(observed: str) -> str:
    """The number, without the curve that it ends."""
    return observed.partition(" (")[0].partition("; ")[0]


def _clip(text: str, width: int, lang: str) -> str:
    """What fits of a text: whole parts and how many more there are, else whole words; no dots behind a number."""
    line = " ".join(text.split())
    if columns(line) <= width:
        return line
    cut = line[: width - 3]
    while columns(cut) > width - 3:
        cut = cut[:-1]
    opened = max(line[: width + 2].rfind(" ("), line[: width + 2].rfind("（"))
    if kept := _parts(line, ("; ", "；"), width, lang):
        return kept
    if opened > max(0, cut.rfind(")")) and columns(line[:opened]) <= width:
        return line[:opened]  # dots behind a number would look like more of its digits
    kept = _parts(line, (", ", "，"), width, lang)
    return kept if columns(kept) > width // 2 else _whole_words(line, cut) + "..."


def _parts(line: str, marks: Sequence[str], width: int, lang: str) -> str:
    """As many parts of a list as fit, and how many more it has; empty where not even one does."""
    for mark in marks:
        parts = line.split(mark)
        for most in range(len(parts) - 1, 0, -1):
            kept = mark.join([*parts[:most], translated(f"{len(parts) - most} more", lang)])
            if columns(kept) <= width and kept.count("(") == kept.count(")") and kept.count("（") == kept.count("）"):
                return kept
    return ""


def _whole_words(line: str, cut: str) -> str:
    """The beginning of a line up to a word that is neither half of one, nor a number or its unit."""
    words = cut.split(" ")
    if line[len(cut) :][:1] not in ("", " ") and columns(words[-1]) == len(words[-1]):  # Chinese has no spaces
        words = words[:-1] or words
    while len(words) > 1 and (_is_number(words[-1]) or (len(words[-1]) <= UNIT and _is_number(words[-2]))):
        words.pop()
    return " ".join(words).rstrip(" ,;:(，；：（")


def _is_number(word: str) -> bool:
    return any(sign.isdigit() for sign in word.strip("(),;:.%")[-1:])
