"""Who follows a run in a session: a TensorBoard file per seed, the record on disk, the live line of the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.plugin.collection import CALL, ConfigFile, options_of
from pytest_overfit.plugin.live_progress import PhaseClock, progress_for
from pytest_overfit.plugin.processes import RECORDER
from pytest_overfit.plugin.properties import keep_properties
from pytest_overfit.plugin.session import KEY
from pytest_overfit.plugin.terminal import RunNote
from pytest_overfit.report.board.tensorboard import TensorBoardLog
from pytest_overfit.report.folders import DEFAULT_FOLDER, run_folder
from pytest_overfit.report.writing import Guarded, Writing
from pytest_overfit.text.numbers import debug_lines
from pytest_overfit.trainer.config import LoggingConfig

if TYPE_CHECKING:
    from pytest_overfit.report.record.recorder import Recorder
    from pytest_overfit.result import OverfitResult
    from pytest_overfit.settings.criteria import Criteria
    from pytest_overfit.settings.explain import Row
    from pytest_overfit.trainer.config import OverfitConfig
    from pytest_overfit.two_view.pair.layout import PairFiles

UNKNOWN_WIDTH = 80


class Watchers:
    """Who follows the runs of one verdict.

    Args:
        title: the experiment's name, shown while it runs.
        planned: steps of the whole budget.
        criteria: what the runs are judged by.
        explained: the resolved settings.
        config: of a run under one; with its pair.
    """

    def __init__(
        self,
        request: pytest.FixtureRequest,
        title: str,
        planned: int,
        *,
        criteria: Criteria,
        explained: Callable[[], Sequence[Row]],
        config: OverfitConfig | None = None,
        pair: PairFiles | None = None,
    ) -> None:
        self.request, self.title, self.planned, self.config = request, title, planned, config
        self.criteria, self.explained, self.pair = criteria, explained, pair
        self.closing, self.line = contextlib.ExitStack(), contextlib.ExitStack()
        self.logs: list[tuple[TensorBoardLog, Guarded]] = []
        self.writing = Writing()
        self.folder: Path | None = None
        self.elsewhere: str | None = None
        self.recorder: Recorder | None = None
        self.call = request.node.stash[CALL] = request.node.stash.get(CALL, 0) + 1
        self.clock = PhaseClock()

    def __enter__(self) -> Watchers:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.line.close()
        self.closing.close()
        interrupted = isinstance(error, (KeyboardInterrupt, pytest.exit.Exception))
        if error is None or self.recorder is None:
            return
        if interrupted or self.recorder.document.state == "running":
            self.recorder.broke(error, interrupted=interrupted)

    def of_seed(self, seed: int) -> list[Any]:
        """The observers of the run of one seed. The one before has ended, and its file waits for the verdict."""
        self.line.close()
        for writer, guard in self.logs:
            guard.write(writer.finish)
        observers: list[Any] = [self.clock, *progress_for(self.request.config, self.title, self.planned)]
        for line in observers:
            self.line.callback(line.close)
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
        folder, self.elsewhere = run_folder(log_dir, self._run_name())
        self.folder = folder.parent
        logging = self.config.logging if self.config else LoggingConfig()
        return TensorBoardLog(folder, every=logging.log_freq, keys=logging.scalar_keys, limits=self.criteria.limits())

    def end(self, verdict: OverfitResult) -> OverfitResult:
        """Writes the verdict down; with one finding more where saved runs limit what may have changed."""
        from pytest_overfit.report.record.document import Document, limits_of

        self.line.close()
        ledger, place = self.request.config.stash.get(KEY, None), self._place()
        document = Document("", place, "", "finished", "", "", call=self.call, result=verdict)
        if ledger is not None and self.recorder is not None:
            verdict, comparison = ledger.compared(place, self.call, verdict)
            recorder, judged = self.recorder, verdict

            def ended() -> Document:
                limits = limits_of(self.criteria.limits(), judged.record)
                return recorder.end(judged, comparison=comparison, limits=limits, pair=self._pair(judged))

            document = self.writing.attempt("the record", ended, otherwise=document)
        for (writer, guard), run in zip(self.logs, verdict.runs or (verdict,), strict=False):
            guard.write(partial(writer.on_result, run))
        if self.request.config.getini("overfit_properties"):
            keep = partial(keep_properties, self.request.node, document)
            self.writing.attempt("the properties of the JUnit report", keep, otherwise=None)
        return verdict

    def note(self, verdict: OverfitResult) -> RunNote:
        """What the summary says of the runs besides their findings."""
        config = self.request.config
        shown = config.pluginmanager.hasplugin("terminalreporter")  # not in a worker of pytest-xdist
        width = config.get_terminal_writer().fullwidth if shown else UNKNOWN_WIDTH
        look = partial(debug_lines, verdict, width=width)
        debug = self.writing.attempt("the numbers of the run", lambda: tuple(look()), otherwise=())
        unwritten = (*((self.elsewhere,) if self.elsewhere else ()), *self.writing.lines)
        return RunNote.of(verdict, self.folder, unwritten, seconds=self.clock.seconds, debug=debug)

    def _recorder(self) -> Recorder | None:
        ledger = self.request.config.stash.get(KEY, None)
        if ledger is None or self.recorder is not None:
            return self.recorder
        from pytest_overfit.plugin.session import command_of, environment
        from pytest_overfit.report.record.document import Document, SettingRow
        from pytest_overfit.report.record.folder import run_id
        from pytest_overfit.report.record.recorder import now

        title = self._place()
        document = Document(
            id=run_id(title, self.call),
            title=title,
            call=self.call,
            session=ledger.session,
            state="running",
            started=now(),
            written=now(),
            settings=tuple(SettingRow(*row) for row in self.explained()),
            pair=self._pair(None),
            command=command_of(self.request.node, title),
            environment=environment(),
        )
        self.recorder = ledger.begin(document, self.planned, self.writing)
        self.request.node.stash[RECORDER] = self.recorder
        return self.recorder

    def _place(self) -> str:
        """The config file, or the test, as pytest names it."""
        node = self.request.node
        return str(node.parent.nodeid if isinstance(node.parent, ConfigFile) else node.nodeid)

    def _pair(self, verdict: OverfitResult | None) -> Any:
        from pytest_overfit.report.record.document import Pair, PairView

        if self.pair is None:
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
            for number, view in enumerate(self.pair.views)
        ]
        return Pair(self.pair.seq_name, tuple(views))

    def _log_dir(self) -> Path | None:
        """--overfit-log-dir, else the config's, else a folder where pytest was started; without a config none."""
        ranked: Any = self.request.config.pluginmanager.getplugin("overfit_ranks")
        if ranked is not None and not ranked.launch.is_first:
            return None
        options = options_of(self.request.config)
        given = options.log_dir
        if self.config is None:
            return given or options.ini_log_dir
        return given or self.config.logging.log_dir or self.request.config.invocation_params.dir / DEFAULT_FOLDER

    def _run_name(self) -> str:
        """The experiment's name for a config file, the test's id for a test."""
        in_file = self.config is not None and isinstance(self.request.node.parent, ConfigFile)
        return self.title if in_file else str(self.request.node.nodeid)
