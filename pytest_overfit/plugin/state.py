"""What this plugin keeps while pytest runs: one record per session, one per config file, one per test."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.plugin.faults import Faults
from pytest_overfit.plugin.resolved_options import Options, absolute, resolve_options
from pytest_overfit.plugin.screen import Screen, screen_of
from pytest_overfit.report.record.session_ids import session_id

if TYPE_CHECKING:
    from pytest_overfit.judge.finding import Finding
    from pytest_overfit.plugin.rank_session import RankSession
    from pytest_overfit.plugin.tracked_result import TrackedRun
    from pytest_overfit.report.record.document import Document
    from pytest_overfit.report.record.recorder import Recorder
    from pytest_overfit.run.sample import Sample
    from pytest_overfit.settings.ladder import Layer, Resolved
    from pytest_overfit.trainer.config import OverfitConfig
    from pytest_overfit.two_view.pair.pair_files import PairFiles

STAGES = ("config", "pair", "loader")  # items of a config file that come before its run
UNKNOWN_WIDTH = 80
Row = Mapping[str, Any]  # title of a table, place in it, finding and run as plain values


@dataclass(frozen=True)
class RunNote:
    """What the summary says of a run besides its findings; plain text, so that it travels from an xdist worker.

    Args:
        board: the command that shows its TensorBoard files.
        debug: the numbers of a run that failed.
        unwritten: what was not written, or not where it was asked for; among the notes too.
        mistakes: of ours.
    """

    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    board: str | None
    causes: tuple[str, ...] = ()
    times: str = ""
    debug: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()


@dataclass
class FileState:
    """What the items of one config file share.

    Args:
        items: names of its items, in the order in which they run and are reported; ``selected``: those of this session.
        built: name -> value and error of what is built once.
        training: its run has begun to train.
        told: the item that has told why the run failed.
        properties: of its run, for the reports of its items.
        debug: the numbers of its run where it failed, until a report has shown them.
        keys: where each is written, once somebody has asked.
        kept: its run where it failed, until a report has shown it.
    """

    nodeid: str
    config: OverfitConfig
    items: tuple[str, ...]
    selected: tuple[str, ...] = ()
    built: dict[str, tuple[Any, BaseException | None]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    training: bool = False
    told: str = ""
    note: RunNote | None = None
    properties: list[tuple[str, str]] = field(default_factory=list)
    debug: tuple[str, ...] | None = None
    keys: Mapping[str, tuple[Path, int]] = field(default_factory=dict)
    kept: list[Document] = field(default_factory=list)


@dataclass
class ItemState:
    """What a test keeps from its setup to its teardown; a rerun begins with a new one.

    Args:
        file, finding: of an item of a config file.
        fixtures: those of ours that give a result, as far as the test was given them.
        without_config: its runs are under no config.
        pair, sample: behind the default batch; without the validation batch.
        model, model_notes, loss: the defaults, and what was told while that model was built.
        recorder: writes the record of its latest run.
        begun: how many runs it has begun.
        calls: rows for the summary, one per call of ``overfit``.
        folded: a quiet session shows its failure as a row of the table alone.
        judged: criteria that its runs were judged by; ``unjudged``: what could not be judged, and why.
        properties, debug, kept: as in `FileState`.
    """

    file: FileState | None = None
    fixtures: set[str] = field(default_factory=set)
    runs: list[TrackedRun] = field(default_factory=list)
    without_config: bool = False
    pair: PairFiles | None = None
    sample: Sample | None = None
    model: object = None
    model_notes: tuple[str, ...] = ()
    loss: object = None
    recorder: Recorder | None = None
    begun: int = 0
    calls: list[Row] = field(default_factory=list)
    finding: Finding | None = None
    folded: bool = False
    judged: int = 0
    unjudged: list[str] = field(default_factory=list)
    interrupted: bool = False
    properties: list[tuple[str, str]] = field(default_factory=list)
    debug: tuple[str, ...] | None = None
    kept: list[Document] = field(default_factory=list)


@dataclass
class SessionState:
    """What a session keeps, and what it knows of the process that it runs in.

    Args:
        options: of the command line and the ini file.
        folder: that pytest was started in; ``root``: its rootdir; ``arguments``: what it was started with.
        is_worker: of pytest-xdist.
        ranks: where a launcher has started this process as one of several.
        properties: the numbers of a run are put into the JUnit report.
        keeps: a report of what failed is kept.
        native: nobody else asks for the stacks of a process that hangs.
        screen: where live progress shows; None where it shows nowhere.
        stderr: a descriptor past the capture of pytest, for a last word.
        reached: the files of configs that pytest has collected.
        secrets: values of configs that no text shows.
        kept: how many runs that failed have a record.
        interrupted: rows of the run that Ctrl-C ended, whose item gets no report.
        ended_by, ended_at: the name of the signal that ends the session, and when it came.
        ending: it writes its end; ``hurry`` is called once by a signal meanwhile, so that it waits for nobody.
    """

    options: Options
    folder: Path
    root: Path
    arguments: tuple[str, ...]
    is_worker: bool
    ranks: RankSession | None
    properties: bool
    keeps: bool
    native: bool
    screen: Callable[[], Screen | None]
    width: Callable[[], int]
    stderr: Callable[[], int]
    id: str
    began: int = field(default_factory=time.time_ns)
    configs: dict[Path, OverfitConfig] = field(default_factory=dict)
    reached: set[Path] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    kept: int = 0
    interrupted: list[Row] = field(default_factory=list)
    ended_by: str = ""
    ended_at: float = 0.0
    ending: bool = False
    hurry: Callable[[], None] | None = None

    @property
    def writes(self) -> bool:
        """Of several ranks the first one writes."""
        return self.ranks is None or self.ranks.launch.is_first

    def hide(self, text: str) -> str:
        """A text with ``***`` for what the configs of this session have out of the environment."""
        from pytest_overfit.settings.secret import hide

        return hide(text, self.secrets)

    def adopted(self, loaded: Sequence[OverfitConfig]) -> list[OverfitConfig]:
        """Configs as this session runs them: a strict one asks for more, and what they hide is hidden from now on."""
        from pytest_overfit.trainer.config import strict_config

        self.secrets.update(*(each.secrets for each in loaded))
        return [strict_config(each) for each in loaded] if self.options.strict else list(loaded)

    def load(self, layer: Layer, folder: Path) -> OverfitConfig:
        """The config that a marker names, relative to the folder of its test.

        Raises:
            ConfigError: it is wrong, or does not fit to what the marker says besides.
        """
        from pytest_overfit.trainer.loading import load_config

        assert layer.config is not None
        path, options = absolute(layer.config, folder), self.options
        return self.adopted([load_config(path, options.overrides, ini=options.ini_overrides, settings=[layer])])[0]

    def resolved(self, layers: Sequence[Layer], nodeid: str) -> Resolved:
        """The settings of a test's run without a config, as this session runs it.

        Raises:
            ConfigError: the layers do not fit together.
        """
        from pytest_overfit.settings.ladder import resolve_settings, strict_settings

        resolved = resolve_settings(layers, where=nodeid)
        return strict_settings(resolved) if self.options.strict else resolved


SESSION = pytest.StashKey[SessionState]()
ITEM = pytest.StashKey[ItemState]()


def session_state(config: pytest.Config) -> SessionState:
    """The state of the session, begun when it is first asked for.

    Raises:
        pytest.UsageError: a value of the ini file is wrong (exit code 4).
    """
    if SESSION not in config.stash:
        folder, plugins = config.invocation_params.dir, config.pluginmanager
        ini_dir = config.inipath.parent if config.inipath else config.rootpath
        try:
            options = resolve_options(config.getoption, config.getini, invocation_dir=folder, ini_dir=ini_dir)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
        timed = plugins.hasplugin("faulthandler") and float(config.getini("faulthandler_timeout") or 0) > 0
        config.stash[SESSION] = SessionState(
            options,
            folder=folder,
            root=config.rootpath,
            arguments=tuple(str(argument) for argument in config.invocation_params.args),
            is_worker=hasattr(config, "workerinput"),
            id=session_id(os.getppid() if hasattr(config, "workerinput") else os.getpid()),
            ranks=plugins.getplugin("overfit_ranks"),
            properties=bool(config.getini("overfit_properties")),
            keeps=bool(config.getini("overfit_keep")),
            native=not timed,
            screen=functools.partial(screen_of, config),
            width=functools.partial(_width, config),
            stderr=functools.cache(functools.partial(_stderr, config)),
        )
    return config.stash[SESSION]


def item_state(item: pytest.Item) -> ItemState:
    """The state of a test, begun when it is first asked for."""
    if ITEM not in item.stash:
        item.stash[ITEM] = ItemState(file_state(item))
    return item.stash[ITEM]


def file_state(item: pytest.Item) -> FileState | None:
    """The state of an item's config file; None of any other test."""
    found = getattr(item.parent, "overfit_state", None)
    return found if isinstance(found, FileState) else None


def forget(item: pytest.Item) -> None:
    """The test is over: nothing of it is kept, and a rerun begins anew."""
    if ITEM in item.stash:
        del item.stash[ITEM]


def is_overfit_test(item: pytest.Item) -> bool:
    """Whether a test is one of ours: an item of a config, one with the marker, or one that uses a fixture of ours."""
    names = getattr(item, "fixturenames", ())
    uses = any(name == "overfit" or name.startswith("overfit_") for name in names)
    return uses or file_state(item) is not None or item.get_closest_marker("overfit") is not None


def _width(config: pytest.Config) -> int:
    shown = config.pluginmanager.hasplugin("terminalreporter")  # not in a worker of pytest-xdist
    return config.get_terminal_writer().fullwidth if shown else UNKNOWN_WIDTH


def _stderr(config: pytest.Config) -> int:
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
        number = os.dup(2)
    config.add_cleanup(lambda: os.close(number))
    return number
