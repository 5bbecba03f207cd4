"""What runs leave on pytest's reports: plain values, which pytest-xdist carries; JUnit shows the properties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.judge.finding import Finding
from pytest_overfit.plugin.crash_line import tell_first_line
from pytest_overfit.plugin.requester import Requester
from pytest_overfit.plugin.state import (
    FileState,
    ItemState,
    Row,
    RunNote,
    forget,
    is_overfit_test,
    item_state,
    session_state,
)
from pytest_overfit.plugin.unchecked import fail_report, glanced_miss, hidden_miss, told_by
from pytest_overfit.text import LANGUAGES
from pytest_overfit.text.table import call_line
from pytest_overfit.text.translations import translated, words

if TYPE_CHECKING:
    from pytest_overfit.report.record.document import Document
    from pytest_overfit.result import OverfitResult

OF_THE_RUN = frozenset({"overfit.verdict", "overfit.state", "overfit.steps", "overfit.margin", "overfit.causes"})


def attach(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Puts the finding of an item, or the calls of a test, onto its report."""
    state, session, is_ours = item_state(item), session_state(item.config), is_overfit_test(item)
    error = call.excinfo.value if call.excinfo is not None else None
    told_by(state, error)
    hides = report.skipped and (not hasattr(report, "wasxfail") or isinstance(error, pytest.xfail.Exception))
    if hides and (problem := hidden_miss(item)) is not None:
        fail_report(item, report, problem)
    if is_ours:
        report.overfit_test = True  # type: ignore[attr-defined]
    if report.when == "call":
        state.folded &= report.failed and item.config.getoption("verbose", 0) < 0
        if state.folded and item.config.getoption("tbstyle", "auto") != "line":
            report._pdbshown = True  # type: ignore[attr-defined]  # of what pytest does not show once more
        _attach_properties(item, state, report, of_items=session.properties)
        _attach_debug(state, report, session.options.lang, shown=_has_room(item.config))
        _attach_rows(item, state, report)
    if is_ours:
        tell_first_line(item, state, report)
        if session.properties and (place := getattr(report, "overfit_place", "")):
            _keep_properties(item, report, [("overfit.place", place)])
        _attach_kept(item, state, report)
    if is_ours and report.failed and session.options.lang != LANGUAGES[0]:
        report.longrepr = _mapped(report.longrepr, partial(translated, lang=session.options.lang))
    if is_ours and session.secrets:
        report.longrepr = _mapped(report.longrepr, session.hide)
        if report.failed:
            report.overfit_error = session.hide(getattr(report, "overfit_error", ""))  # type: ignore[attr-defined]
        report.sections = _mapped(report.sections, session.hide)
    if report.when == "teardown":
        forget(item)


def keep_properties(state: ItemState, document: Document) -> None:
    """Keeps the properties of a run: with the config file whose items share it, or with its test."""
    from pytest_overfit.report.ci.junit import user_properties

    _owner(state).properties.extend(user_properties(document))


def keep_document(state: ItemState, document: Document) -> None:
    """Keeps a run that failed, until its report has failed too."""
    _owner(state).kept.append(document)


def keep_run(requester: Requester, verdict: OverfitResult, note: RunNote) -> None:
    """Keeps what a run came to: what it was judged by, the numbers of a failed one, and the rows of the summary."""
    state, file = requester.state, requester.file
    if not verdict.passed:
        _owner(state).debug = note.debug
    state.judged += 0 if verdict.interrupted else sum(finding.judged for finding in verdict.findings)
    state.unjudged += [] if verdict.interrupted else _unjudged(file, verdict, note)
    state.interrupted |= verdict.interrupted
    if file is not None:
        file.note = note
    if verdict.interrupted:  # its item never gets a report
        rows = [_row(requester.nodeid, requester.name, file, finding, note) for finding in verdict.findings]
        requester.session.interrupted.extend(rows)
    elif file is None:
        row = {
            "test": requester.nodeid,
            "passed": verdict.passed,
            "line": call_line(verdict.findings, [r.record for r in verdict.runs or (verdict,)], verdict.causes),
            "findings": [asdict(finding) for finding in verdict.findings],
            "run": asdict(note),
        }
        state.calls.append(row)


def _attach_kept(item: pytest.Item, state: ItemState, report: pytest.TestReport) -> None:
    """The report that keeps what failed takes the run, and is named beside the failure."""
    owner = _owner(state)
    if report.when == "call" and report.failed and owner.kept:
        from pytest_overfit.plugin.kept_report import keep

        place = {"": getattr(report, "overfit_place", "")}
        kept = [replace(document, places=place) for document in owner.kept]
        report.overfit_kept = keep(session_state(item.config), kept)  # type: ignore[attr-defined]
    if report.when == "call" and (report.failed or state.file is None):
        owner.kept = []


def _has_room(config: pytest.Config) -> bool:
    """Whether a failure may take more than its own lines."""
    return bool(config.getoption("verbose", 0) >= 0 and config.getoption("tbstyle", "auto") != "line")


def _owner(state: ItemState) -> FileState | ItemState:
    """Whose run it is: that of the file for all items of a config, else that of the test."""
    return state if state.file is None else state.file


def _unjudged(file: FileState | None, verdict: OverfitResult, note: RunNote) -> list[str]:
    """What a strict session fails a test for; of a config, what no item of its own tells."""
    items = () if file is None else file.selected
    unjudged = [finding for finding in verdict.findings if not finding.judged and finding.echo_of is None]
    told = any(finding.name in items for finding in unjudged)
    rest = [f"{finding.name}: {finding.observed}" for finding in unjudged if finding.name not in items]
    return rest + ([] if told else list(note.mistakes))


def _attach_properties(item: pytest.Item, state: ItemState, report: pytest.TestReport, *, of_items: bool) -> None:
    """Of a test all of them, of a config's item those of the run and its own."""
    if state.file is None:
        wanted, state.properties = state.properties, []  # for the next report, say of a subtest
    else:
        wanted = [each for each in state.file.properties if each[0] in OF_THE_RUN]
        if not report.failed:  # the run may have missed what another item tells
            verdict = {"overfit.verdict": report.outcome}
            wanted = [(name, verdict.get(name, value)) for name, value in wanted if name != "overfit.causes"]
        if state.finding is not None and of_items:
            from pytest_overfit.report.ci.junit import told

            wanted.append((f"overfit.{item.name}", told(state.finding)))
    _keep_properties(item, report, wanted)


def _keep_properties(item: pytest.Item, report: pytest.TestReport, wanted: Sequence[tuple[str, str]]) -> None:
    item.user_properties.extend(wanted)
    report.user_properties.extend(wanted)


def _attach_debug(state: ItemState, report: pytest.TestReport, lang: str, *, shown: bool) -> None:
    """A section with the numbers of the run, on the first report that fails of the test, or of the items of a file."""
    owner = _owner(state)
    if owner.debug is not None and report.failed and shown:
        report.sections.append((words(lang)["numbers_title"], "\n".join(owner.debug)))
    if report.failed or state.file is None:
        owner.debug = None


def _attach_rows(item: pytest.Item, state: ItemState, report: pytest.TestReport) -> None:
    if state.file is not None and state.finding is not None:
        report.overfit = _row(  # type: ignore[attr-defined]
            item.nodeid, item.name, state.file, state.finding, state.file.note, folded=state.folded
        )
        if report.skipped and not state.finding.judged:
            report.longrepr = (str(item.path), 1, f"Skipped: {state.finding.observed}")
    elif state.calls:
        # A call that a test expects to miss, say to show that its gate can fail, is no failure of the test.
        glanced = glanced_miss(item) if report.passed else None
        more = {"outcome": report.outcome, "glanced": glanced.found if glanced is not None else ""}
        report.overfit_calls = [{**row, **more} for row in state.calls]  # type: ignore[attr-defined]
        state.calls = []


def _row(
    nodeid: str, name: str, file: FileState | None, finding: Finding, note: RunNote | None, *, folded: bool = False
) -> Row:
    """A row of the table that belongs to an item's file; of a marked test, to the test itself."""
    names = () if file is None else file.items
    return {
        "title": nodeid if file is None else file.nodeid,
        "place": names.index(finding.name) if finding.name in names else len(names),
        "finding": asdict(finding),
        "run": asdict(note) if note else None,
        "folded": folded,
        "fault": file is not None and name in file.faults.reasons,
    }


def _mapped(value: Any, to: Callable[[str], str]) -> Any:
    """A traceback as pytest keeps it, or lists of texts, with other texts: without what nobody is shown, translated."""
    if isinstance(value, str):
        return to(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(each, to) for each in value)
    if type(value).__module__ == "_pytest._code.code":
        for name, each in vars(value).items():
            object.__setattr__(value, name, _mapped(each, to))
    return value
