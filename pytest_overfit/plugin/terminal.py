"""What a session shows: at its start the settings of ``--overfit-explain``, at its end a table per run."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import printable
from pytest_overfit.judge.finding import Finding
from pytest_overfit.plugin.config_collector import node_id
from pytest_overfit.plugin.kept_report import publish
from pytest_overfit.plugin.requester import layers_of, marker_layer, markers_of
from pytest_overfit.plugin.state import Row, SessionState, file_state, session_state
from pytest_overfit.report.writing import Writing
from pytest_overfit.text.table import criteria_table
from pytest_overfit.text.terminal_width import padded
from pytest_overfit.text.translations import translated, words

MOST_FOLDED = 3  # rows of a quiet session for what missed its limit for a cause that stands above


def write(reporter: pytest.TerminalReporter) -> None:
    """The summary; where a mistake of ours breaks it off, a line says so, and the session ends as its tests do."""
    writing = Writing()
    writing.attempt("the rest of the summary", lambda: write_summary(reporter), otherwise=None)
    for line in writing.lines:
        reporter.write_line(line)


def write_summary(reporter: pytest.TerminalReporter) -> None:
    """One table per config file, and one line per call of ``overfit`` (with ``-v`` its table too)."""
    width, lang = reporter.config.get_terminal_writer().fullwidth, session_state(reporter.config).options.lang
    for title, rows in _by_title(reporter).items():
        runs = [row["run"] for row in rows if row["run"]]
        reporter.write_sep("-", f"overfit {title}")
        findings = [Finding(**row["finding"]) for row in rows]
        folded = [finding for finding, row in zip(findings, rows, strict=True) if row["folded"]]
        _write_table(reporter, findings, runs[-1] if runs else None, width, folded)
    calls = [call for report in _reports(reporter) for call in getattr(report, "overfit_calls", ())]
    if calls and reporter.config.getoption("verbose") >= 0:
        heading = f"overfit: {sum(call['passed'] for call in calls)} of {len(calls)} memorised"
        reporter.write_sep("-", translated(heading, lang))
    for call in calls if reporter.config.getoption("verbose") >= 0 else ():
        verdict = "ok" if call["passed"] else "FAILED" if call["outcome"] == "failed" else "missed"
        shown = padded(words(lang).get(verdict, verdict), 7)
        _write_line(reporter, f"{shown}  {call['test']}: {translated(call['line'], lang)}")
        if call["glanced"] and not call["passed"]:
            _write_line(reporter, f"note: {call['glanced']}")
        if reporter.config.getoption("verbose") == 0:
            for mistake in call["run"]["mistakes"]:
                _write_line(reporter, f"note: {mistake}")
        if reporter.config.getoption("verbose") > 0:
            _write_table(reporter, [Finding(**finding) for finding in call["findings"]], call["run"], width)
    reports = [report for report in _reports(reporter) if hasattr(report, "overfit_kept")]
    kept = [report.overfit_kept for report in reports if report.failed]
    written = (each for report in reports for each in report.overfit_kept[1])
    for line in publish(session_state(reporter.config), kept, written):
        _write_line(reporter, line)
    if reporter.config.getoption("verbose") <= 0:  # else they are under the tables
        for line in dict.fromkeys(line for call in calls for line in call["run"]["unwritten"]):
            _write_line(reporter, f"note: {line}")


class LastLines:
    """After everything else: what kept the items of a config from being judged, where, and what to do next."""

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)  # around pytest's own, which ends with its short summary
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        yield
        for title, rows in _by_title(terminalreporter).items():
            for row in rows:
                for line in Finding(**row["finding"]).text().splitlines() if row["fault"] else ():
                    lang = session_state(terminalreporter.config).options.lang
                    text = translated(line, lang)
                    terminalreporter.write_line(text if line.startswith(" ") else f"{title}::{text}", red=True)


def _write_table(
    reporter: pytest.TerminalReporter,
    findings: Sequence[Finding],
    run: Mapping[str, Any] | None,
    width: int,
    folded: Sequence[Finding] = (),
) -> None:
    """The rows, and how far the run went; of a quiet session no row of what holds, and few of what is ``folded``."""
    verbose, lang = reporter.config.getoption("verbose"), session_state(reporter.config).options.lang
    most = MOST_FOLDED + (len(folded) == MOST_FOLDED + 1)
    shown = [each for each in findings if each not in folded[most:] and (verbose >= 0 or not each.passed)]
    table = [printable(line) for line in criteria_table(shown, width=width, lang=lang)] if shown else []
    for line in table:
        _write_line(reporter, line)
    if len(folded) > most:
        _write_line(
            reporter,
            f"{padded(words(lang)['FAILED'], 7)}  {', '.join(finding.name for finding in folded[most:])}",
        )
    if verbose < 0 and (held := sum(finding.passed for finding in findings)):
        told = f"{held} more" if table else f"{held} of {len(findings)} items"
        _write_line(reporter, f"{padded(words(lang)['ok'], 7)}  {translated(told, lang)}")
    cut = any(row["run"] is run for row in session_state(reporter.config).interrupted)
    for line in _run_lines(run, table, debug=verbose > 0, quiet=verbose < 0, cut=cut) if run else ():
        _write_line(reporter, line)


def _write_line(reporter: pytest.TerminalReporter, line: str) -> None:
    """A line in the colours of its verdict, in the language of the session; pytest knows if the terminal wants any."""
    lang = session_state(reporter.config).options.lang
    said, shown = words(lang), printable(translated(line, lang))
    if shown.startswith(f"{said['ok']} "):
        reporter.write(said["ok"], green=True)
        reporter.write_line(shown.removeprefix(said["ok"]))
    else:
        reporter.write_line(shown, red=shown.startswith(said["FAILED"]), bold=line.startswith("why: "))


def _run_lines(run: Mapping[str, Any], table: Sequence[str], *, debug: bool, quiet: bool, cut: bool) -> Iterator[str]:
    """How far a run went is told in the table, where there is room for all of it.

    Why it failed stands with the item that failed; at the end its first lines come once more, where there is room, and
    of a run that was cut off, whose item tells nothing.
    """
    for headline in run["headlines"]:
        progress, _, place = headline.partition("; ")
        yield place if any(line.endswith(progress) for line in table) else headline
    if run["times"] and not quiet:
        yield str(run["times"])
    yield from () if quiet and not cut else run["causes"]
    if debug:
        yield from run["debug"]
    for note in run["notes"]:
        yield f"note: {note}"
    if run["board"] and not quiet:
        yield str(run["board"])


def _reports(reporter: pytest.TerminalReporter) -> list[Any]:
    return [report for found in reporter.stats.values() for report in found]


def _by_title(reporter: pytest.TerminalReporter) -> dict[str, list[Row]]:
    interrupted = session_state(reporter.config).interrupted
    rows: list[Row] = [*(report.overfit for report in _reports(reporter) if hasattr(report, "overfit")), *interrupted]
    tables: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["title"], row["place"])):
        tables.setdefault(row["title"], []).append(row)
    return tables


class Explanation:
    """The hooks of ``--overfit-explain``: a table per config, and one per test with the marker. No test is run."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool:
        """Whoever asks what is set does not ask for a run of all the tests there are."""
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The controller of pytest-xdist has collected nothing, which is no mistake here."""
        if session.config.getoption("dist", "no") != "no" and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """The controller of pytest-xdist collects nothing: it knows the configs alone."""
        reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
        if session.config.getoption("dist", "no") != "no" and reporter:
            for line in self.pytest_report_collectionfinish(session.config, []):
                reporter.write_line(line)

    def pytest_report_collectionfinish(self, config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
        """One table after the other."""
        from pytest_overfit.settings.explain_settings import explain_lines
        from pytest_overfit.trainer.explain_config import explain_config

        width, session = config.get_terminal_writer().fullwidth, session_state(config)
        tables = [
            explain_lines(node_id(path, session.root), explain_config(loaded), width, loaded.notes)
            for path, loaded in session.configs.items()
        ]
        marked = [item for item in items if file_state(item) is None and item.get_closest_marker("overfit")]
        tables += [_explain_test(item, session, width) for item in marked]
        return [line for table in tables for line in table]


def _explain_test(item: pytest.Item, session: SessionState, width: int) -> list[str]:
    """The table of a test, without what its call may add; what is wrong in place of the rows."""
    from pytest_overfit.settings.explain_settings import explain_lines, explain_settings
    from pytest_overfit.trainer.explain_config import explain_config

    markers, notes = markers_of(item), tuple[str, ...]()
    try:
        layer = marker_layer(markers)
        if layer is None or layer.config is None:
            rows = explain_settings(session.resolved(layers_of(session.options, markers), item.nodeid))
        else:
            config = session.load(layer, item.path.parent)
            rows, notes = explain_config(config), config.notes
    except OverfitError as error:
        return [*explain_lines(item.nodeid, [], width)[:1], *(f"  {line}" for line in str(error).splitlines())]
    return explain_lines(item.nodeid, rows, width, notes)
