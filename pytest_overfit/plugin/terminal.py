"""What a session shows at its end: one table per run, and one line per call."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors.asking import not_asked_lines
from pytest_overfit.errors.suggest import printable
from pytest_overfit.judge.finding import Finding
from pytest_overfit.plugin.collection import CALL, SECRETS, ConfigItem, is_overfit_test, without_secrets
from pytest_overfit.plugin.items import FINDING, faults_of
from pytest_overfit.plugin.outcomes import forget, glanced_miss, hidden_miss, refuse, told_by
from pytest_overfit.plugin.properties import attach_properties
from pytest_overfit.plugin.strict import CUT_SHORT, JUDGED, UNJUDGED
from pytest_overfit.report.writing import Writing
from pytest_overfit.text.failure import cause_lines
from pytest_overfit.text.numbers import TITLE
from pytest_overfit.text.progress import time_line
from pytest_overfit.text.table import call_line, criteria_table, run_headline

if TYPE_CHECKING:
    from pytest_overfit.result import OverfitResult


@dataclass(frozen=True)
class RunNote:
    """What the summary says of a run besides its findings; plain text, so that it travels from an xdist worker."""

    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    board: str | None
    causes: tuple[str, ...] = ()
    times: str = ""
    debug: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        verdict: OverfitResult,
        folder: Path | None,
        unwritten: Sequence[str],
        *,
        seconds: Mapping[str, float],
        debug: tuple[str, ...],
    ) -> RunNote:
        """What is to be said of the runs of a verdict.

        Args:
            folder: holds the runs of one name.
            unwritten: what was not written, or not where it was asked for.
            seconds: spent on every phase.
            debug: the numbers of a run that failed.
        """
        open_ = tuple(not_asked_lines(verdict.not_asked))
        notes = tuple(dict.fromkeys((*verdict.record.notes, *unwritten, *open_)))
        board = None if folder is None else f"tensorboard --logdir {shlex.quote(str(folder))}"
        headlines = tuple(run_headline(run.record, run.findings) for run in verdict.runs or (verdict,))
        causes = tuple(cause_lines(verdict.causes))
        mistakes = tuple(each.text() for each in verdict.not_asked if each.ours)
        return cls(headlines, notes, board, causes, time_line(seconds), debug, tuple(unwritten), mistakes)


Row = Mapping[str, Any]  # title of a table, place in it, finding and run as plain values
RUN = pytest.StashKey[RunNote]()
INTERRUPTED = pytest.StashKey[list[Row]]()
CALLS = pytest.StashKey[list[Row]]()
DEBUG = pytest.StashKey[tuple[str, ...]]()  # of the latest run that failed, until a report has shown it


def attach(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Puts the finding of an item, or the calls of a test, onto its report, as plain values that xdist can send."""
    error = call.excinfo.value if call.excinfo is not None else None
    told_by(item, error)
    hides = report.skipped and (not hasattr(report, "wasxfail") or isinstance(error, pytest.xfail.Exception))
    if hides and (problem := hidden_miss(item)) is not None:
        refuse(item, report, problem)
    if is_overfit_test(item):
        report.overfit_test = True  # type: ignore[attr-defined]
    if report.when == "teardown":
        forget(item)
    if report.when == "call":
        _attach_runs(item, report)
    if is_overfit_test(item) and item.config.stash.get(SECRETS, set()):
        hide = partial(without_secrets, item.config)
        report.longrepr, report.sections = _hidden(report.longrepr, hide), _hidden(report.sections, hide)


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    """A traceback as pytest keeps it, or lists of texts, without what nobody is shown."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_hidden(each, hide) for each in value)
    if type(value).__module__ == "_pytest._code.code":
        for name, each in vars(value).items():
            object.__setattr__(value, name, _hidden(each, hide))
    return value


def _attach_runs(item: pytest.Item, report: pytest.TestReport) -> None:
    attach_properties(item, report)
    _attach_debug(_holder(item), report, shared=isinstance(item, ConfigItem))
    if isinstance(item, ConfigItem) and FINDING in item.stash:
        finding = item.stash[FINDING]
        row = _row(item, finding, item.config_file.stash.get(RUN, None))
        report.overfit = row  # type: ignore[attr-defined]
        if report.skipped and not finding.judged:
            report.longrepr = (str(item.path), 1, f"Skipped: {finding.observed}")
    elif CALLS in item.stash:
        # A call that a test expects to miss, say to show that its gate can fail, is no failure of the test.
        glanced = glanced_miss(item) if report.passed else None
        note = glanced.found if glanced is not None else ""
        more = {"outcome": report.outcome, "glanced": note}
        report.overfit_calls = [{**row, **more} for row in item.stash[CALLS]]  # type: ignore[attr-defined]
        del item.stash[CALLS], item.stash[CALL]  # a rerun of the test starts its own list


def _attach_debug(holder: pytest.Item | pytest.Collector, report: pytest.TestReport, *, shared: bool) -> None:
    """A section with the numbers of the run, on the first report that fails; ``shared`` among the items of a file."""
    if DEBUG not in holder.stash:
        return
    lines: tuple[str, ...] = holder.stash[DEBUG]
    if report.failed:
        report.sections.append((TITLE, "\n".join(lines)))
    if report.failed or not shared:
        del holder.stash[DEBUG]


def _holder(item: pytest.Item) -> pytest.Item | pytest.Collector:
    """Whose run it is: that of the file for all items of a config, else that of the test."""
    return item.config_file if isinstance(item, ConfigItem) else item


def keep_call(item: pytest.Item, verdict: OverfitResult, run: RunNote) -> None:
    """Keeps what one call of ``overfit`` came to for the summary."""
    row = {
        "test": item.nodeid,
        "passed": verdict.passed,
        "line": call_line(verdict.findings, [r.record for r in verdict.runs or (verdict,)]),
        "findings": [asdict(finding) for finding in verdict.findings],
        "run": asdict(run),
    }
    item.stash.setdefault(CALLS, []).append(row)


def keep_run(item: pytest.Item, verdict: OverfitResult, run: RunNote) -> None:
    """Counts what a run was judged by, for a session that must not end without; keeps the numbers of a failed one."""
    if not verdict.passed:
        _holder(item).stash[DEBUG] = run.debug
    judged = sum(finding.judged for finding in verdict.findings)
    item.stash[JUDGED] = item.stash.get(JUDGED, 0) + (0 if verdict.interrupted else judged)
    item.stash.setdefault(UNJUDGED, []).extend(_unjudged(item, verdict, run))
    item.stash[CUT_SHORT] = item.stash.get(CUT_SHORT, False) or verdict.interrupted


def _unjudged(item: pytest.Item, verdict: OverfitResult, run: RunNote) -> list[str]:
    """What a strict session fails a test for; of a config, what no item of its own tells."""
    items = [each.name for each in item.session.items if each.parent is item.parent and isinstance(each, ConfigItem)]
    unjudged = [finding for finding in verdict.findings if not finding.judged and finding.echo_of is None]
    told = any(finding.name in items for finding in unjudged)
    rest = [f"{finding.name}: {finding.observed}" for finding in unjudged if finding.name not in items]
    return rest + ([] if told else list(run.mistakes))


def keep_interrupted(item: pytest.Item, verdict: OverfitResult, run: RunNote) -> None:
    """Puts a run that Ctrl-C ended aside for the summary: its item never gets a report."""
    rows = [_row(item, finding, run) for finding in verdict.findings]
    item.config.stash.setdefault(INTERRUPTED, []).extend(rows)


def write(reporter: pytest.TerminalReporter) -> None:
    """The summary; where a mistake of ours breaks it off, a line says so, and the session ends as its tests do."""
    writing = Writing()
    writing.attempt("the rest of the summary", lambda: write_summary(reporter), otherwise=None)
    for line in writing.lines:
        reporter.write_line(line)


def write_summary(reporter: pytest.TerminalReporter) -> None:
    """One table per config file, and one line per call of ``overfit`` (with ``-v`` its table too)."""
    width = reporter.config.get_terminal_writer().fullwidth
    for title, rows in _by_title(reporter).items():
        runs = [row["run"] for row in rows if row["run"]]
        reporter.write_sep("-", f"overfit {title}")
        _write_table(reporter, [Finding(**row["finding"]) for row in rows], runs[-1] if runs else None, width)
    calls = [call for report in _reports(reporter) for call in getattr(report, "overfit_calls", ())]
    if calls and reporter.config.getoption("verbose") >= 0:
        reporter.write_sep("-", f"overfit: {sum(call['passed'] for call in calls)} of {len(calls)} memorised")
    for call in calls if reporter.config.getoption("verbose") >= 0 else ():
        verdict = "ok" if call["passed"] else "FAILED" if call["outcome"] == "failed" else "missed"
        line = printable(f"{verdict:7}  {call['test']}: {call['line']}")
        reporter.write_line(line, red=verdict == "FAILED")
        if call["glanced"] and not call["passed"]:
            reporter.write_line(printable(f"note: {call['glanced']}"))
        if reporter.config.getoption("verbose") == 0:
            for mistake in call["run"]["mistakes"]:
                reporter.write_line(printable(f"note: {mistake}"))
        if reporter.config.getoption("verbose") > 0:
            _write_table(reporter, [Finding(**finding) for finding in call["findings"]], call["run"], width)
    if reporter.config.getoption("verbose") <= 0:  # else they are under the tables
        for line in dict.fromkeys(line for call in calls for line in call["run"]["unwritten"]):
            reporter.write_line(f"note: {line}")


class LastWord:
    """After everything else: what kept the items of a config from being judged, where, and what to do next."""

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)  # around pytest's own, which ends with its short summary
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        yield
        for title, rows in _by_title(terminalreporter).items():
            for row in rows:
                for line in Finding(**row["finding"]).text().splitlines() if row["fault"] else ():
                    terminalreporter.write_line(line if line.startswith(" ") else f"{title}::{line}", red=True)


def _write_table(
    reporter: pytest.TerminalReporter, findings: Sequence[Finding], run: Mapping[str, Any] | None, width: int
) -> None:
    table = [printable(line) for line in criteria_table(findings, width=width)]
    for line in table:
        reporter.write_line(line, **({"red": True} if line.startswith("FAILED") else {}))
    for line in _run_lines(run, table, debug=reporter.config.getoption("verbose") > 0) if run else ():
        reporter.write_line(printable(line))


def _run_lines(run: Mapping[str, Any], table: Sequence[str], *, debug: bool) -> Iterator[str]:
    """How far a run went is told in the table, where there is room for all of it."""
    for headline in run["headlines"]:
        progress, _, place = headline.partition("; ")
        yield place if any(line.endswith(progress) for line in table) else headline
    if run["times"]:
        yield str(run["times"])
    yield from run["causes"]
    if debug:
        yield from run["debug"]
    for note in run["notes"]:
        yield f"note: {note}"
    if run["board"]:
        yield str(run["board"])


def _reports(reporter: pytest.TerminalReporter) -> list[Any]:
    return [report for found in reporter.stats.values() for report in found]


def _row(item: pytest.Item, finding: Finding, run: RunNote | None) -> Row:
    """A row of the table that belongs to an item's file; of a marked test, to the test itself."""
    names = item.config_file.names() if isinstance(item, ConfigItem) else ()
    return {
        "title": item.nodeid.rpartition("::")[0] if names else item.nodeid,
        "place": names.index(finding.name) if finding.name in names else len(names),
        "finding": asdict(finding),
        "run": asdict(run) if run else None,
        "fault": isinstance(item, ConfigItem) and item.name in faults_of(item).reasons,
    }


def _by_title(reporter: pytest.TerminalReporter) -> dict[str, list[Row]]:
    interrupted = reporter.config.stash.get(INTERRUPTED, [])
    rows: list[Row] = [*(report.overfit for report in _reports(reporter) if hasattr(report, "overfit")), *interrupted]
    tables: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["title"], row["place"])):
        tables.setdefault(row["title"], []).append(row)
    return tables
