"""From config files to test items: every criterion of a config is a test, with one training run behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.plugin import items as checks
from pytest_overfit.plugin.options import (
    INI,
    OPTIONS,
    Options,
    absolute,
    arguments_with,
    config_of_argument,
    resolve_options,
    unknown_name,
)
from pytest_overfit.settings.keywords import COMMAND_LINE, MARKER
from pytest_overfit.settings.keywords import INI as INI_SOURCE
from pytest_overfit.settings.ladder import Layer, Resolved, layer_of_keywords, layer_of_overrides, resolve_settings
from pytest_overfit.settings.strictness import strict_settings
from pytest_overfit.trainer.config import OverfitConfig, strict_config

CONFIGS = pytest.StashKey[dict[Path, OverfitConfig]]()
REACHED = pytest.StashKey[set[Path]]()
SESSION = pytest.StashKey[Options]()
SECRETS = pytest.StashKey[set[str]]()  # values of the session's configs that no text shows
CALL = pytest.StashKey[int]()  # how many runs a test has begun
REGRESSION = "regression"  # the item of --overfit-compare-fail
DEFECTS = "defects"  # judged by probes: without them there is nothing to judge
ITEMS = {**checks.STAGES, checks.RUN: checks.check_run}


def prepare(config: pytest.Config) -> None:
    """Loads every config before anything is collected, reports all their problems, and sets the paths to collect.

    Raises:
        pytest.UsageError: a config is wrong (exit code 4).
    """
    options = options_of(config)
    folder = config.invocation_params.dir
    explicit = config.args_source is config.ArgsSource.ARGS
    plain = [path for argument in config.args if (path := config_of_argument(argument, folder)) is not None]
    files = tuple(dict.fromkeys((*options.configs, *plain)))
    from pytest_overfit.trainer.loading import load_configs

    try:
        loaded = load_configs([(path, options.overrides) for path in files], ini=options.ini_overrides)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error
    refuse_log_folders(
        config, [(f"{path}, logging.log_dir", each.logging.log_dir) for path, each in zip(files, loaded, strict=True)]
    )
    config.stash[CONFIGS] = dict(zip(files, as_session(config, loaded), strict=True))
    remember_secrets(config, *loaded)
    config.args[:] = arguments_with(config.args, options, explicit=explicit, folder=folder)


def refuse_log_folders(config: pytest.Config, asked: Sequence[tuple[str, Path | None]] = ()) -> None:
    """One usage error (exit code 4) where a folder that somebody asked for cannot take a log.

    Args:
        asked: settings of configs and their folders, where no option names another one.

    Raises:
        pytest.UsageError: the folder, and the setting that names it.
    """
    ranked: Any = config.pluginmanager.getplugin("overfit_ranks")
    if hasattr(config, "workerinput") or (ranked is not None and not ranked.launch.is_first):
        return
    from pytest_overfit.report.folders import refuse_unwritable

    options = options_of(config)
    named = options.log_dir or (options.ini_log_dir if not asked else None)
    setting = "--overfit-log-dir" if options.log_dir else "ini key overfit_log_dir"
    try:
        for place, folder in [(setting, named)] if named else asked:
            if folder is not None:
                refuse_unwritable(folder, place)
    except OverfitError as error:
        raise pytest.UsageError(str(error)) from error


def options_of(config: pytest.Config) -> Options:
    """The options of this session, resolved once.

    Raises:
        pytest.UsageError: a value of the ini file is wrong (exit code 4).
    """
    if SESSION not in config.stash:
        ini_dir = config.inipath.parent if config.inipath else config.rootpath
        try:
            config.stash[SESSION] = resolve_options(
                config.getoption, config.getini, invocation_dir=config.invocation_params.dir, ini_dir=ini_dir
            )
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[SESSION]


def remember_secrets(config: pytest.Config, *loaded: OverfitConfig) -> None:
    """From now on `without_secrets` knows what these configs hide."""
    config.stash.setdefault(SECRETS, set()).update(*(each.secrets for each in loaded))


def without_secrets(config: pytest.Config, text: str) -> str:
    """A text with ``***`` for what the configs of this session have out of the environment."""
    from pytest_overfit.settings.secret import hide

    known: set[str] = config.stash.get(SECRETS, set())
    return hide(text, known)


def as_session(config: pytest.Config, loaded: Sequence[OverfitConfig]) -> list[OverfitConfig]:
    """Configs as this session runs them: a strict one asks for more."""
    return [strict_config(each) for each in loaded] if options_of(config).strict else list(loaded)


def settings_of(node: pytest.Item, layers: Sequence[Layer]) -> Resolved:
    """The settings of a test's run without a config, as this session runs it.

    Raises:
        ConfigError: the layers do not fit together.
    """
    resolved = resolve_settings(layers, where=node.nodeid)
    return strict_settings(resolved) if options_of(node.config).strict else resolved


def refuse_options(names: Sequence[str]) -> None:
    """One usage error (exit code 4) for every option of these names: nobody knows them."""
    if names:
        raise pytest.UsageError("\n".join(unknown_name(name, OPTIONS, "option") for name in names))


def refuse_ini(config: pytest.Config, names: Sequence[str]) -> None:
    """One usage error (exit code 4) for every ini key of these names that nobody registered."""
    place = config.inipath.name if config.inipath else "ini file"
    if wrong := [name for name in names if not _is_registered(config, name)]:
        raise pytest.UsageError("\n".join(f"{place}: {unknown_name(name, INI, 'ini key')}" for name in wrong))


def _is_registered(config: pytest.Config, name: str) -> bool:
    try:
        config.getini(name)
    except ValueError:
        return False
    return True


def marker_layer(node: pytest.Item) -> Layer | None:
    """What the overfit markers of a test say, the nearest one last; None without any.

    Raises:
        ConfigError: a keyword of a marker is none.
    """
    markers = list(node.iter_markers("overfit"))[::-1]
    keywords = {name: value for marker in markers for name, value in marker.kwargs.items()}
    args = [value for marker in markers for value in marker.args]
    return layer_of_keywords(MARKER, keywords, args) if markers else None


def layers_of(node: pytest.Item) -> tuple[Layer, ...]:
    """What speaks for a test's run without a config, weakest first: ini file, command line, markers.

    Raises:
        ConfigError: an override is malformed, or a keyword of a marker is none.
    """
    options = options_of(node.config)
    marker = marker_layer(node)
    return (
        layer_of_overrides(INI_SOURCE, options.ini_overrides),
        layer_of_overrides(COMMAND_LINE, options.overrides),
        *((marker,) if marker else ()),
    )


class Explanation:
    """The hooks of ``--overfit-explain``: a table per config, and one per test with the marker."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """The controller of pytest-xdist collects nothing: it knows the configs alone."""
        reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
        if session.config.getoption("dist", "no") != "no" and reporter:
            for line in self.pytest_report_collectionfinish(session.config, []):
                reporter.write_line(line)

    def pytest_report_collectionfinish(self, config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
        """One table after the other."""
        from pytest_overfit.settings.explain import explain_lines
        from pytest_overfit.trainer.explanation import explain_config

        width = config.get_terminal_writer().fullwidth
        tables = [
            explain_lines(node_id(path, config.rootpath), explain_config(loaded), width, loaded.notes)
            for path, loaded in config.stash.get(CONFIGS, {}).items()
        ]
        marked = [item for item in items if not isinstance(item, ConfigItem) and item.get_closest_marker("overfit")]
        tables += [_explain_test(item, width) for item in marked]
        return [line for table in tables for line in table]


def _explain_test(item: pytest.Item, width: int) -> list[str]:
    """The table of a test, without what its call may add; what is wrong in place of the rows."""
    from pytest_overfit.settings.explain import explain_lines, explain_settings
    from pytest_overfit.trainer.explanation import explain_config
    from pytest_overfit.trainer.loading import load_config

    notes: tuple[str, ...] = ()
    try:
        layer, options = marker_layer(item), options_of(item.config)
        if layer is None or layer.config is None:
            rows = explain_settings(settings_of(item, layers_of(item)))
        else:
            path = absolute(layer.config, item.path.parent)
            loaded = load_config(path, options.overrides, ini=options.ini_overrides, settings=[layer])
            rows, notes = explain_config(*as_session(item.config, [loaded])), loaded.notes
    except OverfitError as error:
        return [*explain_lines(item.nodeid, [], width)[:1], *(f"  {line}" for line in str(error).splitlines())]
    return explain_lines(item.nodeid, rows, width, notes)


def collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A collector for the configs of this session; every other YAML file is none of our business."""
    config = parent.config.stash.get(CONFIGS, {}).get(file_path)
    if config is None:
        return None
    parent.config.stash.setdefault(REACHED, set()).add(file_path)
    file: ConfigFile = ConfigFile.from_parent(parent, path=file_path, nodeid=node_id(file_path, parent.config.rootpath))
    file.overfit_config = config
    return file


def node_id(path: Path, rootdir: Path) -> str:
    """The path relative to the rootdir, with ``..`` outside of it: there pytest's own ids are empty, and all alike."""
    try:
        return Path(os.path.relpath(path, rootdir)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def check_collected(session: pytest.Session, items: list[pytest.Item]) -> None:
    """A config that gave no test would be a silent pass. (One that --lf leaves out was reached, and passed last time.)

    Raises:
        pytest.UsageError: pytest never reached the file, say because its folder is in norecursedirs or ignored. Under
            pytest-xdist, whose workers cannot raise one, an item is added that fails.
    """
    for path in session.config.stash.get(CONFIGS, {}):
        if path in session.config.stash.get(REACHED, ()):
            continue
        problem = pytest.UsageError(
            f"{path}: no test was collected from this config\n"
            "  allowed: a file that pytest reaches from its path arguments\n"
            "  next: name the file itself, or look at norecursedirs and --ignore"
        )
        if not hasattr(session.config, "workerinput"):
            raise problem
        items.append(Unreached.from_parent(session, name=path.name, problem=problem))


def put_in_order(session: pytest.Session) -> None:
    """The items of a config in the order in which they depend on each other, in the places that they have.

    Others shuffle tests, or put those first that failed: then the run would be made in whichever criterion comes first.
    """
    places: dict[ConfigFile, list[int]] = {}
    for place, item in enumerate(session.items):
        if isinstance(item, ConfigItem):
            places.setdefault(item.config_file, []).append(place)
    for file, theirs in places.items():
        names = file.names()
        in_order = sorted((session.items[place] for place in theirs), key=lambda item: names.index(item.name))
        for place, item in zip(theirs, in_order, strict=True):
            session.items[place] = item


class Unreached(pytest.Item):
    """Fails in the place of a config that pytest did not reach."""

    def __init__(self, *, problem: pytest.UsageError, **rest: Any) -> None:
        super().__init__(**rest)
        self.problem = problem

    def runtest(self) -> None:
        pytest.fail(str(self.problem), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


def is_overfit_test(item: pytest.Item) -> bool:
    """Whether a test is one of ours: an item of a config, one with the marker, or one that uses a fixture of ours."""
    names = getattr(item, "fixturenames", ())
    uses = any(name == "overfit" or name.startswith("overfit_") for name in names)
    return uses or isinstance(item, ConfigItem) or item.get_closest_marker("overfit") is not None


class ConfigFile(pytest.Module):
    """A config file as a test file. It is a Module so that fixtures of every scope work in a conftest beside it."""

    overfit_config: OverfitConfig

    def _getobj(self) -> ModuleType:
        return ModuleType(self.path.stem)

    def names(self) -> tuple[str, ...]:
        """The items of this file, in the order in which they run and are reported."""
        settings = self.overfit_config.overfit
        judged = [name for name in settings.criteria.names() if settings.diagnose or name != DEFECTS]
        compared = (REGRESSION,) if options_of(self.config).compare_fail else ()
        return (*checks.STAGES, checks.RUN, *judged, *compared)

    def collect(self) -> Iterator[pytest.Item]:
        # What default fixtures build for this file once: name -> (value, error).
        self.overfit_built: dict[str, tuple[Any, BaseException | None]] = {}
        for name in self.names():
            check = ITEMS.get(name) or checks.criterion(name)
            yield ConfigItem.from_parent(self, name=name, callobj=check)


class ConfigItem(pytest.Function):
    """One item of a config file."""

    @property
    def config_file(self) -> ConfigFile:
        assert isinstance(self.parent, ConfigFile)
        return self.parent

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.name  # a line: pytest asserts that a skip has one
