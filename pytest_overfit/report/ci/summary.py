"""The runs of a session in Markdown, as a CI service shows it on the page of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.markdown.curve import text_curve
from pytest_overfit.report.markdown.escape import block, line, table, text
from pytest_overfit.report.markdown.tables import comparison_table, criteria_table, seeds_table
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.table import run_headline
from pytest_overfit.text.translations import words

MOST_BYTES = 1_000_000  # GitHub drops a summary of more than 1 MiB as a whole
MOST_SECTIONS = 3  # of runs that passed; more of them are one table
MOST_TITLES = 20
MOST_ROWS = 60  # of a table of criteria
MOST_CAUSES = 5
MOST_NOTES = 5  # under the table of those that passed
WORDS = words("en")
STATES = {"running": "Not finished", "killed": "Killed", "interrupted": "Interrupted", "not_run": "Not run"}


def summary_markdown(
    documents: Sequence[Document], *, expected: Container[str] = (), most_bytes: int = MOST_BYTES
) -> str:
    """The verdict of all runs, then one section for each, those that failed first.

    More than ``MOST_SECTIONS`` runs that passed are one table. What does not fit into ``most_bytes`` is left out, and
    the last line says what that was.

    Args:
        expected: titles of finished runs that missed what their test expects them to miss.

    Example:
        >>> print(summary_markdown(documents).splitlines()[0])                  # doctest: +SKIP
        ## pytest-overfit: 1 of 3 runs failed
    """
    missed = [document for document in documents if document.verdict == "failed"]
    meant = [document for document in missed if document.state == "finished" and document.title in expected]
    failed = [document for document in missed if document not in meant]
    passed = [document for document in documents if document.verdict == "passed"]
    parts = [(document.title, _section(document)) for document in failed]
    parts += [(document.title, _section(document, "missed as expected")) for document in meant]
    if len(passed) <= MOST_SECTIONS:
        parts += [(document.title, _section(document)) for document in passed]
    else:
        parts.append((f"the table of {len(passed)} runs that passed", _compact(passed, most_bytes // 2)))
    return _fitted(_headline(documents, len(failed), len(meant)), parts, most_bytes)


def _headline(documents: Sequence[Document], failed: int, meant: int) -> str:
    if not documents:
        return "## pytest-overfit: no run"
    runs = f"{len(documents)} run{'' if len(documents) == 1 else 's'}"
    if failed:
        told = f"{failed} of {runs} failed"
    elif meant == len(documents):
        told = f"{runs} missed as expected"
    else:
        told = f"{len(documents) - meant} of {runs} passed" if meant else f"{runs} passed"
    return f"## pytest-overfit: {told}{f', {meant} missed as expected' if 0 < meant < len(documents) else ''}"


def _section(document: Document, missed: str = "FAILED") -> str:
    mark = "passed" if document.verdict == "passed" else missed
    call = f", call {document.call}" if document.call > 1 else ""
    return "\n\n".join([f"### {mark}: {text(document.title)}{call}", *_body(document)])


def _body(document: Document) -> Iterator[str]:
    result = document.result
    if document.state != "finished":
        yield f"**{STATES[document.state]}**" + (f": {text(document.error)}" if document.error else "")
    elif document.error:
        yield f"**Error**: {text(document.error)}"
    if result is not None:
        yield "\n".join(f"- {line(run_headline(run.record, run.findings))}" for run in result.runs or (result,))
        yield from _causes(document)
    if open_ := [finding for finding in document.findings if not finding.passed]:
        yield from _criteria(open_)
    if result is not None:
        if result.runs:
            yield seeds_table(result, WORDS)
        lines = text_curve(result.record.curves.get("objective", ()), document.limits.get("objective"))
        if lines:
            seed = f", seed {result.record.seed}, which did worst" if result.runs else ""
            yield block("\n".join([f"objective{seed}", *lines]))
        if result.notes:
            yield "\n".join(f"- note: {text(note)}" for note in result.notes[:MOST_ROWS])
    if document.comparison is not None:
        yield f"**Against the saved run {text(document.comparison.name)}**"
        if document.comparison.changes:
            yield comparison_table(document.comparison, WORDS)
        if document.comparison.note:
            yield line(document.comparison.note)
    if held := [finding for finding in document.findings if finding.passed]:
        yield f"<details><summary>{len(held)} of {len(document.findings)} criteria hold</summary>"
        yield from _criteria(held)
        yield "</details>"
    if document.command:
        yield block(document.command, "bash")


def _criteria(findings: Sequence[Finding]) -> Iterator[str]:
    """The table, and where to look for what was missed, which has no room in it; what to do, where that says it."""
    shown = (
        sorted(findings, key=lambda finding: (not finding.missed, finding.passed))[:MOST_ROWS]
        if len(findings) > MOST_ROWS
        else findings
    )
    yield criteria_table(shown, WORDS)
    if len(shown) < len(findings):
        yield f"{len(findings) - len(shown)} more criteria are in the report."
    told = []
    for finding in shown:
        if finding.missed and (finding.where or finding.hint):
            where = f" where: {text(finding.where)};" if finding.where else ""
            hint = f" next: {text(finding.hint)}" if finding.hint else ""
            told.append(f"- **{text(finding.name)}**:{where}{hint}".rstrip(";"))
    if told:
        yield "\n".join(told)


def _causes(document: Document) -> Iterator[str]:
    result = document.result
    assert result is not None
    told = [
        f"- **{text(cause.id)}** ({cause.strength}): {text(cause.observed)}\n"
        f"  - where: {text(cause.where)}\n"
        f"  - change: {text(cause.advice)}"
        for cause in result.causes[:MOST_CAUSES]
    ]
    if more := result.causes[MOST_CAUSES:]:
        told.append(f"- less likely: {text(', '.join(cause.id for cause in more))}")
    if told:
        yield "**Why, and what to change**"
        yield "\n".join(told)
    elif result.evidence is not None and document.verdict == "failed":
        open_ = ", and not everything was asked" if result.not_asked else ""
        yield f"**Why**: no cause is proven, shown or observed{open_}."


def _compact(documents: Sequence[Document], most_bytes: int) -> str:
    """One row per run: its time, and how much of its steps it took, of which the rest is the reserve."""
    rows, size = [], 0
    for document in documents:
        records = document.records
        steps = max((record.steps for record in records), default=0)
        row = [
            text(document.title) + (f", call {document.call}" if document.call > 1 else ""),
            f"{steps} of {records[0].planned_steps}" if records else "0",
            f"{sum(record.seconds for record in records):.1f} s",
        ]
        size += sum(len(cell.encode()) + 3 for cell in row)
        if size > most_bytes:
            break
        rows.append(row)
    made = table(["Run", "Steps of the budget", "Time"], rows, right=[1, 2])
    left_out = len(documents) - len(rows)
    parts = [f"### {len(documents)} passed", made, *([f"{left_out} more passed."] if left_out else [])]
    # A pass on the CPU that was meant for a GPU shows here and nowhere else.
    results = [document.result for document in documents if document.result is not None]
    noted = Counter(note for result in results for note in result.notes)
    notes = [f"- note: {text(note)} ({count} of these runs)" for note, count in noted.most_common(MOST_NOTES)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _fitted(head: str, parts: Sequence[tuple[str, str]], most_bytes: int) -> str:
    """As many parts as fit, in their order, with room for the line that names the others."""
    note = len(_left_out([title for title, _ in parts]).encode()) + 2
    room = most_bytes - len(head.encode()) - note
    kept, left_out = [head], []
    for title, part in parts:
        size = len(part.encode()) + 2
        if size > room:
            left_out.append(title)
            continue
        room -= size
        kept.append(part)
    if left_out:
        kept.append(_left_out(left_out))
    return "\n\n".join(kept) + "\n"


def _left_out(titles: Sequence[str]) -> str:
    """The line on what did not fit; at its longest for all titles."""
    named = ", ".join(text(title, most=200) for title in titles[:MOST_TITLES])
    more = f" and {len(titles) - MOST_TITLES} more" if len(titles) > MOST_TITLES else ""
    return f"Left out, since a summary has at most 1 MiB: {named}{more}. The report folder has all of it."
