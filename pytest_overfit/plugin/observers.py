"""Who follows a run in a session: a TensorBoard file per seed, the record on disk, the live line of the terminal."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors.asking import not_asked_lines
from pytest_overfit.plugin.faults import noted
from pytest_overfit.plugin.item_reports import keep_document, keep_properties
from pytest_overfit.plugin.provenance import command_of, environment
from pytest_overfit.plugin.requester import Requester
from pytest_overfit.plugin.screen import PhaseClock, Progress
from pytest_overfit.plugin.state import RunNote
from pytest_overfit.plugin.termination import ended_by_sigterm, told_end
from pytest_overfit.report.board.tensorboard import TensorBoardLog
from pytest_overfit.report.folders import DEFAULT_FOLDER, hide_from_git, run_folder
from pytest_overfit.report.writing import Guarded, Writing
from pytest_overfit.text.failure import cause_lines
from pytest_overfit.text.numbers import debug_lines
from pytest_overfit.text.progress import time_line
from pytest_overfit.text.table import run_headline
from pytest_overfit.trainer.config import LoggingConfig

if TYPE_CHECKING:
    from pytest_overfit.report.record.document import Document, State
    from pytest_overfit.report.record.recorder import Recorder
    from pytest_overfit.result import OverfitResult
    from pytest_overfit.settings.criteria import Criteria
    from pytest_overfit.settings.explain_settings import Row
    from pytest_overfit.trainer.config import OverfitConfig


class RunObservers:
    """Who follows the runs of one verdict.

    Args:
        title: the experiment's name, shown while it runs.
        planned: steps of the whole budget.
        criteria: what the runs are judged by.
        explained: the resolved settings.
        config: of a run under one.
    """

    def __init__(
        self,
        requester: Requester,
        title: str,
        planned: int,
        *,
        criteria: Criteria,
        explained: Callable[[], Sequence[Row]],
        config: OverfitConfig | None = None,
    ) -> None:
        self.requester, self.session, self.records = requester, requester.session, requester.records
        self.title, self.planned, self.config = title, planned, config
        self.criteria, self.explained = criteria, explained
        self.ending, self.closing, self.line = (contextlib.ExitStack() for _ in range(3))
        self.logs: list[tuple[TensorBoardLog, Guarded]] = []
        self.writing = Writing()
        self.folder: Path | None = None
        self.elsewhere: str | None = None
        self.recorder: Recorder | None = None
        requester.state.begun += 1
        self.call = requester.state.begun
        self.clock = PhaseClock()

    def __enter__(self) -> RunObservers:
        self.ending.enter_context(ended_by_sigterm(self.session))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.line.close()
        self.closing.close()
        self.ending.close()
        interrupted = isinstance(error, (KeyboardInterrupt, pytest.exit.Exception))
        if error is None or self.recorder is None:
            return
        if interrupted or self.recorder.document.state == "running":
            noted(error)
            self.recorder.broke(error, interrupted=interrupted)

    def of_seed(self, seed: int) -> list[Any]:
        """The observers of the run of one seed. The one before has ended, and its file waits for the verdict."""
        self.line.close()
        for writer, guard in self.logs:
            guard.write(writer.finish)
        observers: list[Any] = [self.clock]
        self.line.callback(self.clock.close)
        if (screen := self.session.screen()) is not None:
            shown = Progress(screen, self.title, self.planned, self.session.options.lang)
            observers.append(self.line.enter_context(contextlib.closing(shown)))
        log_dir = self._log_dir()
        if log_dir is not None:
            files = f"TensorBoard files in {log_dir}"
            log = self.writing.attempt(files, partial(self._log, log_dir), otherwise=None)
            if log is not None:
                guard = Guarded(log, files, self.writing)
                self.closing.callback(guard.close)
                self.logs.append((log, guard))
                observers.insert(0, guard)
        if (recorder := self._recorder()) is not None:
            observers.append(recorder.of_seed(seed))
        return observers

    def _log(self, log_dir: Path) -> TensorBoardLog:
        """The TensorBoard file of one seed.

        Raises:
            OSError: neither the folder nor a temporary one can be written.
        """
        folder, self.elsewhere = run_folder(log_dir, self.title if self.requester.file else self.requester.nodeid)
        self.folder = folder.parent
        if log_dir == self.session.folder / DEFAULT_FOLDER and self.elsewhere is None:
            hide_from_git(log_dir)
        logging = self.config.logging if self.config else LoggingConfig()
        return TensorBoardLog(folder, every=logging.log_freq, keys=logging.scalar_keys, limits=self.criteria.limits())

    def end(self, verdict: OverfitResult) -> OverfitResult:
        """Writes the verdict down; with one finding more where saved runs limit what may have changed."""
        from pytest_overfit.report.record.document import Document, limits_of

        self.line.close()
        title = self.requester.title
        document = Document("", title, "", "finished", "", "", call=self.call, result=verdict)
        if self.records is not None and self.recorder is not None:
            verdict, comparison = self.records.compared(self.recorder.document, verdict)
            recorder, judged = self.recorder, verdict

            def ended() -> Document:
                limits = limits_of(self.criteria.limits(), judged.record)
                known: dict[str, Any] = {"comparison": comparison, "limits": limits, "times": self.clock.seconds}
                return recorder.end(judged, **known, pair=self._pair(judged), error=self._ended(judged))

            document = self.writing.attempt("the record", ended, otherwise=document)
        for (writer, guard), run in zip(self.logs, verdict.runs or (verdict,), strict=False):
            guard.write(partial(writer.on_result, run))
        if self.session.properties:
            keep = partial(keep_properties, self.requester.state, document)
            self.writing.attempt("the properties of the JUnit report", keep, otherwise=None)
        wanted = self.session.keeps and self.session.writes and not (self.records and self.records.wanted.report)
        if wanted and not verdict.passed and not verdict.interrupted:
            limits = limits_of(self.criteria.limits(), verdict.record)
            kept = replace(self._document("finished"), result=verdict, limits=limits, times=self.clock.seconds)
            keep_document(self.requester.state, kept)
        return verdict

    def _ended(self, verdict: OverfitResult) -> str | None:
        """What is told of the signal that ended the run."""
        record = verdict.record
        return told_end(self.session, record.steps, record.planned_steps) if verdict.interrupted else None

    def note(self, verdict: OverfitResult) -> RunNote:
        """What the summary says of the runs besides their findings."""
        look = partial(debug_lines, verdict, width=self.session.width(), lang=self.session.options.lang)
        debug = self.writing.attempt("the numbers of the run", lambda: tuple(look()), otherwise=())
        unwritten = (*((self.elsewhere,) if self.elsewhere else ()), *self.writing.lines)
        runs, not_asked = verdict.runs or (verdict,), verdict.not_asked
        return RunNote(
            tuple(run_headline(run.record, run.findings) for run in runs),
            tuple(dict.fromkeys((*verdict.record.notes, *unwritten, *not_asked_lines(not_asked)))),
            board=None if self.folder is None else f"tensorboard --logdir {shlex.quote(str(self.folder))}",
            causes=tuple(cause_lines(verdict.causes)),
            times=time_line(self.clock.seconds),
            debug=debug,
            unwritten=unwritten,
            mistakes=tuple(each.text() for each in not_asked if each.ours),
        )

    def _recorder(self) -> Recorder | None:
        if self.records is None or self.recorder is not None:
            return self.recorder
        document = self._document("running")
        self.recorder = self.requester.state.recorder = self.records.begin(document, self.planned, self.writing)
        return self.recorder

    def _document(self, state: State) -> Document:
        """What is known of the runs beside their results."""
        from pytest_overfit.report.record.document import Document, SettingRow
        from pytest_overfit.report.record.run_ids import now, run_id

        title = self.requester.title
        return Document(
            id=run_id(title, self.call),
            title=title,
            call=self.call,
            session=self.session.id if self.records is None else self.records.session,
            state=state,
            started=now(),
            written=now(),
            settings=tuple(SettingRow(*row) for row in self.explained()),
            pair=self._pair(None),
            command=command_of(self.session, title, of_config=self.config is not None),
            environment=environment(),
        )

    def _pair(self, verdict: OverfitResult | None) -> Any:
        from pytest_overfit.report.record.document import Pair, PairView

        files = None if self.config is None else self.requester.state.pair
        if files is None:
            return None
        supervision = verdict.record.supervision if verdict else None
        frames = {frame.frame: frame for frame in supervision.frames} if supervision else {}
        views = [
            PairView(
                view.scene,
                view.image.name,
                frames[number].valid if number in frames else None,
                frames[number].total if number in frames else None,
            )
            for number, view in enumerate(files.views)
        ]
        return Pair(files.seq_name, tuple(views))

    def _log_dir(self) -> Path | None:
        """--overfit-log-dir, else the config's, else a folder where pytest was started; without a config none."""
        if not self.session.writes:
            return None
        options = self.session.options
        if self.config is None:
            return options.log_dir or options.ini_log_dir
        return options.log_dir or self.config.logging.log_dir or self.session.folder / DEFAULT_FOLDER
