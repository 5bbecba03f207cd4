"""The records of a session: where its runs write them, and what the whole session makes of them at its end.

One process writes pages and summaries: under pytest-xdist the controller, whose workers write records alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Answer, Otherwise, Unanswerable
from pytest_overfit.plugin.nothing_ran import FAILS, nothing_ran
from pytest_overfit.plugin.options import LOOKING
from pytest_overfit.plugin.state import STAGES, SessionState, session_state
from pytest_overfit.plugin.termination import end_begins, ended_by_sigterm, signal_workers, told_end
from pytest_overfit.plugin.wanted_records import Wanted, refuse_unwritable, wanted_of
from pytest_overfit.report.writing import Writing
from pytest_overfit.text.translations import translated
from pytest_overfit.untrusted.files import open_to_append

if TYPE_CHECKING:
    from pytest_overfit.report.record.document import Comparison, Document
    from pytest_overfit.report.record.recorder import Recorder
    from pytest_overfit.report.record.saved import Saved
    from pytest_overfit.result import OverfitResult


class SessionRecords:
    """The hooks of a session whose runs are recorded.

    Args:
        report: folder of the report; a temporary one where only summaries were asked for.
        session: tells its records from those of another session in the same folder.
        since: when it began, in nanoseconds.
    """

    def __init__(self, state: SessionState, wanted: Wanted, report: Path, session: str, since: int) -> None:
        self.state, self.wanted, self.report, self.session, self.since = state, wanted, report, session, since
        self.saved: Saved | None = None
        if wanted.compare is not None:
            from pytest_overfit.report.record.saved import read_saved

            self.saved = read_saved(wanted.compare)
        self.rows: list[Mapping[str, Any]] = []
        self.stopped: dict[str, str] = {}  # overfit tests that ended before or beside a run -> why
        self.tests: dict[str, bool] = {}  # tests that are no items of a config -> none of their reports has failed
        self.places: dict[str, dict[str, str]] = {}  # title -> criterion -> where it failed
        self.lines: list[str] = []
        self.notes: tuple[str, ...] = ()  # of a session without any run
        self.running: str | None = None
        self.interrupted: str | None = None  # title of the config whose item was running then
        self.unsaved: OverfitError | None = None
        self.nodes: list[Any] = []  # workers of pytest-xdist
        self.cut = False  # the session was interrupted
        state.hurry = partial(signal_workers, self.nodes, "SIGKILL")

    def begin(self, document: Document, planned: int, writing: Writing) -> Recorder:
        """The observer that writes the record of a run from now on."""
        from pytest_overfit.report.record.recorder import Recorder

        beside = partial(Recorder, self.report, document, planned=planned, since=self.since)
        return beside(writing=writing, hide=self.state.hide)

    def compared(self, document: Document, verdict: OverfitResult) -> tuple[OverfitResult, Comparison | None]:
        """The verdict beside the saved run; with limits on what may have changed, one finding more.

        Args:
            document: the record of the run, as it was begun.
        """
        if self.saved is None or verdict.interrupted:
            return verdict, None
        from pytest_overfit.plugin.provenance import environment
        from pytest_overfit.report.record.regression import regression
        from pytest_overfit.report.record.saved import compare

        beside = self.wanted.allowed, environment(), document.setting_values
        comparison = compare(self.saved, document.title, document.call, verdict, *beside)
        if self.wanted.allowed:
            verdict = replace(verdict, findings=(*verdict.findings, regression(comparison)))
        return verdict, comparison

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker writes into the folder of its controller."""
        node.workerinput["overfit_records"] = (str(self.report), self.session, self.since)
        self.nodes.append(node)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """That no pages will be written is said before anything is trained."""
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        if self.wanted.report is not None and not self.state.is_worker and reporter:
            from pytest_overfit.report.publish import PAGES_COME_BY, pages_need

            if missing := pages_need():
                line = f"note: {missing}: {PAGES_COME_BY}"
                reporter.write_line(translated(line, self.wanted.lang))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running = nodeid

    def pytest_runtest_logfinish(self) -> None:
        self.running = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C: workers hear of it at once, and not when pytest-xdist loses its patience with them.

        Before the run of a config, while its pair is built, there is no record yet, and no report.
        """
        end_begins(self.state)
        self.cut = True
        signal_workers(self.nodes, "SIGINT")
        if self.running is not None and title_of(self.running) != self.running:
            self.interrupted = title_of(self.running)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if row := getattr(report, "overfit", None):
            self.rows.append(row)
        if title_of(report.nodeid) == report.nodeid:
            self.tests[report.nodeid] = self.tests.get(report.nodeid, True) and not report.failed
        if getattr(report, "overfit_test", False) and report.failed:
            self.stopped.setdefault(report.nodeid, self.state.hide(_reason(report)))
            if place := getattr(report, "overfit_place", ""):
                title = title_of(report.nodeid)
                self.places.setdefault(title, {})[report.nodeid.removeprefix(title).removeprefix("::")] = place

    @property
    def expected(self) -> set[str]:
        """Tests that came to their end without a failure: what their runs missed was expected."""
        return {nodeid for nodeid, held in self.tests.items() if held}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Saved runs, pages and summaries, out of the records of this session; each in spite of the others.

        Where nothing was saved that was to be saved, the exit code is 1 at least.
        """
        if self.state.is_worker:
            return
        end_begins(self.state)
        documents: tuple[Document, ...] = ()
        if self.rows or self.stopped or self.interrupted or self.report.is_dir():
            documents = self._written("the report", self._complete, otherwise=())
        if self.wanted.save is not None and not any(session.config.getoption(name, False) for name in LOOKING):
            self._save(self.wanted.save, documents)
            if self.unsaved is not None and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        writers = (("the report", self._write_report), ("the step summary", self._write_step_summary),
                   ("the annotations", self._annotate))  # fmt: skip
        self.notes = () if documents else nothing_ran(session, self.state, self.wanted)
        for what, write in writers if documents or self.notes else ():
            self._written(what, partial(write, documents), otherwise=None)
        if self.wanted.report is None:
            shutil.rmtree(self.report, ignore_errors=True)

    def last_word(self, why: str) -> None:
        """Writes what is known where the process has to be ended, in which no hook comes any more."""
        if self.state.is_worker:  # whose controller lives on
            return
        if self.running is not None:
            self.stopped.setdefault(self.running, why)
        documents = self._written("the report", self._complete, otherwise=())
        self.lines = []
        for what, write in (("the annotations", self._annotate), ("the step summary", self._write_step_summary),
                            ("the report", self._write_report)):  # fmt: skip
            self._written(what, partial(write, documents), otherwise=None)
            os.write(self.state.stderr(), "".join(f"{line}\n" for line in self.lines).encode())
            self.lines = []

    def _written(self, what: str, write: Callable[[], Answer], *, otherwise: Otherwise) -> Answer | Otherwise:
        """What ``write`` gives; what keeps it from that, a full disk or a mistake of ours, is a line of the summary."""
        writing = Writing()

        def look() -> Answer:
            try:
                return write()
            except OverfitError as error:
                raise Unanswerable(str(error)) from error

        written = writing.attempt(what, look, otherwise=otherwise)
        self.lines += writing.lines
        return written

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.lines:
            terminalreporter.write_line(line if line.startswith("::") else translated(line, self.wanted.lang))
        for line in str(self.unsaved).splitlines() if self.unsaved is not None else ():
            terminalreporter.write_line(translated(line, self.wanted.lang), red=True)

    def _complete(self) -> tuple[Document, ...]:
        """The records of this session, those of killed workers and of runs that never began among them."""
        from pytest_overfit.report.record.folder import begin_document, read_report, write_document

        found = []
        for document in read_report(self.report, session=self.session):
            places = self.places.get(document.title, {})
            changed = replace(document, checks=self._checks(document.title), places=places)
            if document.state == "running":
                told = self.stopped.get(document.title, document.error)
                changed = replace(changed, state="interrupted" if self.cut and told is None else "killed", error=told)
            if document.state != "finished" and self.state.ended_by:
                run = next(iter(document.records[-1:]), None)
                told = told_end(self.state, *((run.steps, run.planned_steps) if run is not None else ()))
                changed = replace(changed, error=told)
            found.append(changed)
            if changed != document:
                write_document(self.report, changed)
        for document in self._without_run({document.title for document in found}):
            found.append(begin_document(self.report, document, since=self.since))
        return tuple(sorted(found, key=lambda document: (document.title, document.call)))

    def _checks(self, title: str) -> tuple[Any, ...]:
        """What was found of a config, its pair and its loader before the run."""
        from pytest_overfit.judge.finding import Finding

        findings = [Finding(**row["finding"]) for row in self.rows if row["title"] == title]
        before = {finding.name: finding for finding in findings if finding.name in STAGES}
        return tuple(before[name] for name in STAGES if name in before)

    def _without_run(self, known: set[str]) -> Iterator[Document]:
        from pytest_overfit.plugin.provenance import environment
        from pytest_overfit.report.record.document import Document
        from pytest_overfit.report.record.run_ids import now, run_id

        asked = [row["title"] for row in self.rows] + [title_of(nodeid) for nodeid in self.stopped]
        titles = dict.fromkeys([*asked, *([self.interrupted] if self.interrupted else ())])
        for title in titles:
            reasons = [why for nodeid, why in self.stopped.items() if title in (nodeid, title_of(nodeid))]
            cut = title == self.interrupted
            if title not in known and (cut or reasons or any(check.missed for check in self._checks(title))):
                yield Document(
                    id=run_id(title),
                    title=title,
                    session=self.session,
                    state="interrupted" if cut else "not_run",
                    started=now(),
                    written=now(),
                    checks=self._checks(title),
                    environment=environment(),
                    places=self.places.get(title, {}),
                    error=reasons[0] if reasons else told_end(self.state) or "KeyboardInterrupt" if cut else None,
                )

    def _write_report(self, documents: Sequence[Document]) -> None:
        if self.wanted.report is not None:
            from pytest_overfit.report.publish import PAGES_COME_BY, first_page, write_together

            try:
                write_together(
                    self.report, documents, self.session, since=self.since, lang=self.wanted.lang, notes=self.notes
                )
            except OverfitError as error:
                if error.hint != PAGES_COME_BY:
                    raise
                self.lines.append(f"note: {error.found}: {error.hint}")
            self.lines.append(f"report: {self.report / first_page()}")

    def _write_step_summary(self, documents: Sequence[Document]) -> None:
        if self.wanted.step_summary is not None:
            from pytest_overfit.report.ci.summary import summary_markdown

            with open_to_append(self.wanted.step_summary) as file:
                told = summary_markdown(documents, expected=self.expected, notes=self.notes, lang=self.wanted.lang)
                file.write(told + "\n")

    def _annotate(self, documents: Sequence[Document]) -> None:
        if self.wanted.annotate:
            from pytest_overfit.report.ci.annotations import annotations as annotate

            self.lines += annotate(documents, expected=self.expected, lang=self.wanted.lang)
            if any(note.startswith(FAILS) for note in self.notes):
                from pytest_overfit.report.ci.refused import refused_annotation

                self.lines.append(refused_annotation(translated("\n".join(self.notes), self.wanted.lang)))

    def _save(self, path: Path, documents: Sequence[Document]) -> None:
        """Saves the runs of this session beside those that the name already has; says why where it cannot."""
        from pytest_overfit.report.record.run_ids import now
        from pytest_overfit.report.record.saved import read_saved, saved_of, write_saved

        try:
            if not saved_of(path.stem, documents, when=now()).runs:
                raise OverfitError(
                    "no run was finished in this session", hint="look at what failed, or at the paths, -k and -m"
                )
            new = saved_of(path.stem, documents, when=now(), before=read_saved(path) if path.exists() else None)
            written = write_saved(path, new)
        except (OSError, OverfitError) as error:
            told = error.strerror or str(error) if isinstance(error, OSError) else error.found
            hint = error.hint if isinstance(error, OverfitError) else f"make room, or make {path.parent} writable"
            self.unsaved = OverfitError(
                f"nothing was saved: {told}",
                where=f"--overfit-save {path.stem}",
                allowed=f"the runs of this session in {path}",
                hint=hint,
            )
            return
        self.lines.append(f"saved {len(new.runs)} run{'' if len(new.runs) == 1 else 's'}: {written}")


def prepare(config: pytest.Config) -> None:
    """Registers the records of a session where somebody wants them.

    Raises:
        pytest.UsageError: the folder cannot be written, or nothing was saved under the name to compare with.
    """
    given = getattr(config, "workerinput", {}).get("overfit_records")
    state = session_state(config)
    try:
        wanted = wanted_of(state.options)
        if not wanted.anything:
            return
        report = wanted.report or Path(tempfile.gettempdir()) / f"overfit-{uuid.uuid4().hex}"
        if not given:
            refuse_unwritable(wanted)
        known = (Path(given[0]), *given[1:]) if given else (report, state.id, state.began)
        records = SessionRecords(state, wanted, *known)
    except OverfitError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(records, "overfit_records")
    whole = contextlib.ExitStack()
    config.add_cleanup(whole.close)
    whole.enter_context(ended_by_sigterm(state))


def title_of(nodeid: str) -> str:
    """The config file of one of its items; any other test is a title of its own."""
    path, _, _ = nodeid.partition("::")
    return path if path.endswith((".yaml", ".yml")) else nodeid


def _reason(report: pytest.TestReport) -> str:
    """What a failed report says, without the frames it came through."""
    told = getattr(report, "overfit_error", "")
    return str(told or report.longreprtext).strip() or report.outcome
