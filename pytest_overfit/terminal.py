"""What a session shows: a live progress line, and one table per run at the end."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.checks import FINDING
from pytest_overfit.collect import CALL, ConfigItem, is_overfit
from pytest_overfit.judge.finding import Finding
from pytest_overfit.properties import attach_properties
from pytest_overfit.report.causes import cause_lines
from pytest_overfit.report.text import call_line, criteria_table, progress_line, run_headline

if TYPE_CHECKING:
    from pytest_overfit.result import OverfitResult
    from pytest_overfit.run.pictures import FramePicture

REFRESH_SECONDS = 0.2


@dataclass(frozen=True)
class RunNote:
    """What the summary says of a run besides its findings; plain text, so that it travels from an xdist worker."""

    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    board: str | None
    causes: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdict: OverfitResult, folder: Path | None, note: str | None) -> RunNote:
        """``folder`` holds the runs of one name; ``note`` is set where it is not the folder that was asked for."""
        notes = (*verdict.record.notes, *((note,) if note else ()))
        board = None if folder is None else f"tensorboard --logdir {shlex.quote(str(folder))}"
        headlines = tuple(run_headline(run.record) for run in verdict.runs or (verdict,))
        return cls(headlines, notes, board, tuple(cause_lines(verdict.causes)))


Row = Mapping[str, Any]  # title of a table, place in it, finding and run as plain values
RUN = pytest.StashKey[RunNote]()
INTERRUPTED = pytest.StashKey[list[Row]]()
CALLS = pytest.StashKey[list[Row]]()


class ProgressLine:
    """An observer that rewrites one line of a terminal.

    It writes past pytest's own writer, whose idea of the current column it would spoil.
    """

    wants_pictures = False

    def __init__(self, config: pytest.Config, name: str, planned: int) -> None:
        self.reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self.capture: Any = config.pluginmanager.getplugin("capturemanager")
        self.name, self.planned = name, planned
        self.started = self.shown = time.monotonic()
        self.width = 0

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        now = time.monotonic()
        step = first + len(rows)
        if now - self.shown < REFRESH_SECONDS or not rows:
            return
        self.shown = now
        self._write(progress_line(self.name, step, self.planned, rows[-1], step / max(1e-9, now - self.started)))

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        """Validation does not show on the line."""

    def on_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Nor does what is measured now and then."""

    def on_pictures(self, pictures: Sequence[FramePicture]) -> None:
        """Nor do pictures."""

    def close(self) -> None:
        """Wipes the line."""
        if self.width:
            self._write("")

    def _write(self, text: str) -> None:
        with self.capture.global_and_fixture_disabled():  # the terminal's width is known only with its stdout in place
            text = text[: max(20, shutil.get_terminal_size().columns - 1)]
            if not self.width:
                self.reporter.ensure_newline()
            sys.stdout.write(f"\r{text.ljust(self.width)}" + ("" if text else "\r"))
            sys.stdout.flush()
        self.width = len(text)


def progress_for(config: pytest.Config, title: str, planned: int) -> list[ProgressLine]:
    """A progress line where somebody watches: a terminal, no xdist worker, not quiet."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    watched = reporter is not None and reporter.isatty and not hasattr(config, "workerinput")
    if not watched or config.getoption("verbose") < 0 or config.pluginmanager.getplugin("capturemanager") is None:
        return []
    return [ProgressLine(config, title, planned)]


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Puts the finding of an item, or the calls of a test, onto its report, as plain values that xdist can send."""
    report.overfit_test = is_overfit(item)  # type: ignore[attr-defined]
    if report.when != "call":
        return
    attach_properties(item, report)
    if isinstance(item, ConfigItem) and FINDING in item.stash:
        row = _row(item, item.stash[FINDING], item.config_file.stash.get(RUN, None))
        report.overfit = row  # type: ignore[attr-defined]
    elif CALLS in item.stash:
        # A call that a test expects to miss, say to show that its gate can fail, is no failure of the test.
        report.overfit_calls = [{**row, "outcome": report.outcome} for row in item.stash[CALLS]]  # type: ignore[attr-defined]
        del item.stash[CALLS], item.stash[CALL]  # a rerun of the test starts its own list


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


def keep_interrupted(item: pytest.Item, verdict: OverfitResult, run: RunNote) -> None:
    """Puts a run that Ctrl-C ended aside for the summary: its item never gets a report."""
    rows = [_row(item, finding, run) for finding in verdict.findings]
    item.config.stash.setdefault(INTERRUPTED, []).extend(rows)


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
        reporter.write_line(f"{verdict:7}  {call['test']}: {call['line']}", red=verdict == "FAILED")
        if reporter.config.getoption("verbose") > 0:
            _write_table(reporter, [Finding(**finding) for finding in call["findings"]], call["run"], width)


def _write_table(
    reporter: pytest.TerminalReporter, findings: Sequence[Finding], run: Mapping[str, Any] | None, width: int
) -> None:
    for line in criteria_table(findings, width=width):
        reporter.write_line(line, **({"red": True} if line.startswith("FAILED") else {}))
    for line in _run_lines(run) if run else ():
        reporter.write_line(line)


def _run_lines(run: Mapping[str, Any]) -> Iterator[str]:
    yield from run["headlines"]
    yield from run["causes"]
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
    }


def _by_title(reporter: pytest.TerminalReporter) -> dict[str, list[Row]]:
    interrupted = reporter.config.stash.get(INTERRUPTED, [])
    rows: list[Row] = [*(report.overfit for report in _reports(reporter) if hasattr(report, "overfit")), *interrupted]
    tables: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["title"], row["place"])):
        tables.setdefault(row["title"], []).append(row)
    return tables
