"""Who follows a run in a session: a TensorBoard file per seed, and the live line of the terminal."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.collect import ConfigFile, options_of
from pytest_overfit.config.schema import LoggingConfig
from pytest_overfit.progress import PhaseClock, progress_for
from pytest_overfit.report.tensorboard import DEFAULT_FOLDER, TensorBoardLog, run_folder
from pytest_overfit.terminal import RunNote

if TYPE_CHECKING:
    from pytest_overfit.config.schema import OverfitConfig
    from pytest_overfit.result import OverfitResult

UNKNOWN_WIDTH = 80


class Watchers:
    """Who follows the runs of one verdict: a TensorBoard file per seed, and the live line of the terminal."""

    def __init__(
        self, request: pytest.FixtureRequest, title: str, planned: int, config: OverfitConfig | None = None
    ) -> None:
        self.request, self.title, self.planned, self.config = request, title, planned, config
        self.closing = contextlib.ExitStack()
        self.folder: Path | None = None
        self.elsewhere: str | None = None
        self.clock = PhaseClock()

    def __enter__(self) -> Watchers:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    def of_seed(self, seed: int) -> list[Any]:
        """The observers of the run of one seed; those of the seed before are closed."""
        self.closing.close()
        observers: list[Any] = [self.clock, *progress_for(self.request.config, self.title, self.planned)]
        log_dir = self._log_dir()
        if log_dir is not None:
            folder, self.elsewhere = run_folder(log_dir, self._run_name())
            self.folder = folder.parent
            logging = self.config.logging if self.config else LoggingConfig()
            observers.insert(0, TensorBoardLog(folder, every=logging.log_freq, keys=logging.scalar_keys))
        for observer in observers:
            self.closing.callback(observer.close)
        return observers

    def note(self, verdict: OverfitResult) -> RunNote:
        """What the summary says of the runs besides their findings."""
        config = self.request.config
        shown = config.pluginmanager.hasplugin("terminalreporter")  # not in a worker of pytest-xdist
        width = config.get_terminal_writer().fullwidth if shown else UNKNOWN_WIDTH
        return RunNote.of(verdict, self.folder, self.elsewhere, seconds=self.clock.seconds, width=width)

    def _log_dir(self) -> Path | None:
        """--overfit-log-dir, else the config's, else a folder where pytest was started; without a config none."""
        options = options_of(self.request.config)
        given = options.log_dir
        if self.config is None:
            return given or options.ini_log_dir
        return given or self.config.logging.log_dir or self.request.config.invocation_params.dir / DEFAULT_FOLDER

    def _run_name(self) -> str:
        """The experiment's name for a config file, the test's id for a test."""
        in_file = self.config is not None and isinstance(self.request.node.parent, ConfigFile)
        return self.title if in_file else str(self.request.node.nodeid)
