"""The runs of a session in Markdown, as a CI service shows it on the page of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from functools import partial

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.report.markdown.curve import text_curve
from pytest_overfit.report.markdown.escape import block, line, prose, table, text
from pytest_overfit.report.markdown.tables import (
    change_text,
    comparison_table,
    criteria_table,
    differences_line,
    seeds_table,
)
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.cause_titles import title
from pytest_overfit.text.failure import error_line
from pytest_overfit.text.table import run_headline
from pytest_overfit.text.translations import translated, words

MOST_BYTES = 1_000_000  # GitHub drops a summary of more than 1 MiB as a whole
MOST_SECTIONS = 3  # of runs that passed; more of them are one table
MOST_TITLES = 20
MOST_ROWS = 60  # of a table of criteria
MOST_CAUSES = 5
MOST_NOTES = 5  # under the table of those that passed
NONE = "no cause is proven, shown or observed"
NOT_ALL = f"{NONE}, and not everything was asked"
STATES = {"running": "Not finished", "killed": "Killed", "interrupted": "Interrupted", "not_run": "Not run"}


def summary_markdown(
    documents: Sequence[Document],
    *,
    expected: Container[str] = (),
    notes: Sequence[str] = (),
    most_bytes: int = MOST_BYTES,
    lang: str = "en",
) -> str:
    """The verdict of all runs, then one section for each, those that failed first.

    More than ``MOST_SECTIONS`` runs that passed are one table. What does not fit into ``most_bytes`` is left out, and
    the last line says what that was.

    Args:
        expected: titles of finished runs that missed what their test expects them to miss.
        notes: what is told of the session beside its runs: that none was made, say, and why.
        lang: ``en`` or ``zh``.

    Example:
        >>> print(summary_markdown(documents).splitlines()[0])                  # doctest: +SKIP
        ## pytest-overfit: 1 of 3 runs failed
    """
    missed = [document for document in documents if document.verdict == "failed"]
    meant = [document for document in missed if document.state == "finished" and document.title in expected]
    cut = [document for document in missed if document.cut]
    failed = [document for document in missed if document not in meant and document not in cut]
    passed = [document for document in documents if document.verdict == "passed"]
    parts = [(document.title, _section(document, lang)) for document in [*failed, *cut]]
    parts += [(document.title, _section(document, lang, translated("missed as expected", lang))) for document in meant]
    if len(passed) <= MOST_SECTIONS:
        parts += [(document.title, _section(document, lang)) for document in passed]
    else:
        told = translated(f"the table of {len(passed)} runs that passed", lang)
        parts.append((told, _compact(passed, most_bytes // 2, lang)))
    head = [
        _headline(len(documents), len(failed), len(meant), len(cut), lang),
        *(text(translated(note, lang)) for note in notes),
    ]
    return _fitted("\n\n".join(head), parts, most_bytes, lang)


def _headline(count: int, failed: int, meant: int, cut: int, lang: str) -> str:
    """How many failed, else passed; then how many were interrupted, and missed as expected."""
    runs = f"{count} run{'' if count == 1 else 's'}"
    passed = count - failed - meant - cut
    told = [f"{failed} of {runs} failed"] if failed else [f"{passed} of {runs} passed"] if passed else []
    told += [f"{cut} interrupted" if told else f"{runs} interrupted"] if cut else []
    told += [f"{meant} missed as expected" if told else f"{runs} missed as expected"] if meant else []
    shown = f"{runs} passed" if count == passed else "; ".join(told)
    return f"## pytest-overfit: {translated(shown if count else 'no run', lang)}"


def _section(document: Document, lang: str, missed: str = "") -> str:
    failed = missed or (translated(STATES["interrupted"], lang) if document.cut else words(lang)["FAILED"])
    mark = words(lang)["passed"] if document.verdict == "passed" else failed
    head = f"### {mark}: {text(_titled(document, lang))}"
    return "\n\n".join([head, *_body(document, lang)])


def _titled(document: Document, lang: str) -> str:
    return words(lang)["call"].format(title=document.title, call=document.call) if document.call > 1 else document.title


def _body(document: Document, lang: str) -> Iterator[str]:
    result, said = document.result, partial(translated, lang=lang)
    if document.state != "finished":
        yield f"**{said(STATES[document.state])}**" + (
            f": {text(said(error_line(document.error)))}" if document.error else ""
        )
    if document.state == "finished" or any(finding.missed for finding in document.findings):
        yield from (f"**{text(said(line))}**" for line in [document.first_line] if line)
    if document.error and len(document.error.splitlines()) > 1:
        yield block(said(document.error))
    if result is not None:
        yield "\n".join(f"- {line(said(run_headline(run.record, run.findings)))}" for run in result.runs or (result,))
        yield from _causes(document, lang)
    if open_ := [finding for finding in document.findings if not finding.passed]:
        yield from _criteria(open_, lang)
    if result is not None:
        if result.runs:
            yield seeds_table(result, words(lang))
        if document.verdict != "passed":
            yield from _curve(document, lang)
        if result.notes:
            yield "\n".join(f"- {text(said(f'note: {note}'))}" for note in result.notes[:MOST_ROWS])
    if document.comparison is not None:
        yield f"**{text(words(lang)['comparison'].format(name=document.comparison.name))}**"
        if differences := differences_line(document.comparison, words(lang)):
            yield differences
        if document.comparison.changes:
            yield comparison_table(document.comparison, words(lang))
        if document.comparison.note:
            yield line(said(document.comparison.note))
    if held := [finding for finding in document.findings if finding.passed]:
        yield f"<details><summary>{said(f'{len(held)} of {len(document.findings)} criteria hold')}</summary>"
        yield from _criteria(held, lang)
        if document.verdict == "passed":
            yield from _curve(document, lang)
        yield "</details>"
    if document.command:
        yield block(document.command, "bash")


def _curve(document: Document, lang: str) -> Iterator[str]:
    """The objective as text; of a run that passed it is folded with the criteria."""
    result = document.result
    lines = text_curve(result.record.curves.get("objective", ()), document.limits.get("objective")) if result else ()
    if result is not None and lines:
        seed = translated(f"seed {result.record.seed}, which did worst", lang) if result.runs else ""
        # Of a run that was cut off no finding has its last value.
        last = f" {number(result.record.curves['objective'][-1])}" if document.state == "interrupted" else ""
        yield block("\n".join([f"objective{last}{', ' if seed else ''}{seed}", *lines]))


def _criteria(findings: Sequence[Finding], lang: str) -> Iterator[str]:
    """The table, and where to look for what was missed, which has no room in it; what to do, where that says it."""
    shown = (
        sorted(findings, key=lambda finding: (not finding.missed, finding.passed))[:MOST_ROWS]
        if len(findings) > MOST_ROWS
        else findings
    )
    yield criteria_table(shown, words(lang), lang)
    if len(shown) < len(findings):
        yield translated(f"{len(findings) - len(shown)} more criteria are in the report.", lang)
    told = []
    for finding in shown:
        if finding.missed and (finding.where or finding.hint):
            more = (f"where: {finding.where}" if finding.where else "", f"next: {finding.hint}" if finding.hint else "")
            shown_more = "; ".join(prose(translated(each, lang)) for each in more if each)
            told.append(f"- **{text(finding.name)}**: {shown_more}")
    if told:
        yield "\n".join(told)


def _causes(document: Document, lang: str) -> Iterator[str]:
    result, said = document.result, partial(translated, lang=lang)
    assert result is not None
    told = [
        f"- **{text(title(cause.id, lang))}** ({said(cause.strength)}): {prose(said(cause.observed))}\n"
        f"  - {text(said(f'where: {cause.where}'))}\n"
        f"  - {change_text(said(f'change: {cause.advice}'), cause.advice)}"
        for cause in result.causes[:MOST_CAUSES]
    ]
    if more := result.causes[MOST_CAUSES:]:
        told.append(f"- {text(said('less likely: ' + ', '.join(cause.id for cause in more)))}")
    if told:
        yield f"**{words(lang)['why_and_change']}**"
        yield "\n".join(told)
    elif result.evidence is not None and document.verdict == "failed":
        yield f"**{words(lang)['why']}**: {said(NOT_ALL if result.not_asked else NONE)}."


def _compact(documents: Sequence[Document], most_bytes: int, lang: str) -> str:
    """One row per run: its time, and how much of its steps it took, of which the rest is the reserve."""
    rows, size = [], 0
    for document in documents:
        records = document.records
        steps = max((record.steps for record in records), default=0)
        row = [
            text(_titled(document, lang)),
            words(lang)["share"].format(part=steps, total=records[0].planned_steps) if records else "0",
            translated(f"{sum(record.seconds for record in records):.1f} s", lang),
        ]
        size += sum(len(cell.encode()) + 3 for cell in row)
        if size > most_bytes:
            break
        rows.append(row)
    made = table([words(lang)[name] for name in ("run", "of_budget", "time")], rows, right=[1, 2])
    left_out, said = len(documents) - len(rows), partial(translated, lang=lang)
    parts = [f"### {said(f'{len(documents)} passed')}", made, *([said(f"{left_out} more passed.")] if left_out else [])]
    # A pass on the CPU that was meant for a GPU shows here and nowhere else.
    results = [document.result for document in documents if document.result is not None]
    noted = Counter(note for result in results for note in result.notes).most_common(MOST_NOTES)
    notes = [f"- {text(said(f'note: {note} ({count} of these runs)'))}" for note, count in noted]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _fitted(head: str, parts: Sequence[tuple[str, str]], most_bytes: int, lang: str) -> str:
    """As many parts as fit, in their order, with room for the line that names the others."""
    note = len(_left_out([name for name, _ in parts], lang).encode()) + 2
    room = most_bytes - len(head.encode()) - note
    kept, left_out = [head], []
    for name, part in parts:
        size = len(part.encode()) + 2
        if size > room:
            left_out.append(name)
            continue
        room -= size
        kept.append(part)
    if left_out:
        kept.append(_left_out(left_out, lang))
    return "\n\n".join(kept) + "\n"


def _left_out(titles: Sequence[str], lang: str) -> str:
    """The line on what did not fit; at its longest for all titles."""
    named = ", ".join(text(name, most=200) for name in titles[:MOST_TITLES])
    more = f" and {len(titles) - MOST_TITLES} more" if len(titles) > MOST_TITLES else ""
    said = translated("Left out, since a summary has at most 1 MiB", lang)
    return f"{said}: {named}{translated(more, lang)}. {translated('The report folder has all of it.', lang)}"
