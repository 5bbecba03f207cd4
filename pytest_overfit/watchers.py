"""Who follows a run in a session: a TensorBoard file per seed, and the live line of the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.collect import ConfigFile, options_of
from pytest_overfit.config.schema import LoggingConfig
from pytest_overfit.report.tensorboard import DEFAULT_FOLDER, TensorBoardLog, run_folder
from pytest_overfit.terminal import RunNote, progress_for

if TYPE_CHECKING:
    from pytest_overfit.config.schema import Limit, OverfitConfig
    from pytest_overfit.result import OverfitResult


class Watchers:
    """Who follows the runs of one verdict: a TensorBoard file per seed, and the live line of the terminal."""

    def __init__(
        self,
        request: pytest.FixtureRequest,
        title: str,
        planned: int,
        limits: Mapping[str, Limit],
        config: OverfitConfig | None = None,
    ) -> None:
        self.request, self.title, self.planned, self.limits, self.config = request, title, planned, limits, config
        self.closing, self.line = contextlib.ExitStack(), contextlib.ExitStack()
        self.logs: list[TensorBoardLog] = []
        self.folder: Path | None = None
        self.elsewhere: str | None = None

    def __enter__(self) -> Watchers:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()
        self.closing.close()

    def of_seed(self, seed: int) -> list[Any]:
        """The observers of the run of one seed. The one before has ended, and its file waits for the verdict."""
        self.line.close()
        for log in self.logs:
            log.finish()
        observers: list[Any] = list(progress_for(self.request.config, self.title, self.planned))
        for line in observers:
            self.line.callback(line.close)
        log_dir = self._log_dir()
        if log_dir is not None:
            folder, self.elsewhere = run_folder(log_dir, self._run_name())
            self.folder = folder.parent
            logging = self.config.logging if self.config else LoggingConfig()
            log = TensorBoardLog(folder, every=logging.log_freq, keys=logging.scalar_keys, limits=self.limits)
            self.closing.callback(log.close)
            self.logs.append(log)
            observers.insert(0, log)
        return observers

    def judged(self, verdict: OverfitResult) -> None:
        """Writes the verdict of every run into its file."""
        self.line.close()
        for log, run in zip(self.logs, verdict.runs or (verdict,), strict=False):
            log.on_result(run)

    def note(self, verdict: OverfitResult) -> RunNote:
        """What the summary says of the runs besides their findings."""
        return RunNote.of(verdict, self.folder, self.elsewhere)

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
