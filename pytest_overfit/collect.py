"""From config files to test items: every criterion of a config is a test, with one training run behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_overfit import checks
from pytest_overfit.config.schema import OverfitConfig
from pytest_overfit.errors import ConfigError
from pytest_overfit.options import Options, arguments_with, config_of_argument, resolve_options

CONFIGS = pytest.StashKey[dict[Path, OverfitConfig]]()
OPTIONS = pytest.StashKey[Options]()


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
    from pytest_overfit.config.loading import load_configs

    try:
        loaded = load_configs([(path, options.overrides) for path in files])
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[CONFIGS] = dict(zip(files, loaded, strict=True))
    config.args[:] = arguments_with(config.args, options, explicit=explicit, folder=folder)


def options_of(config: pytest.Config) -> Options:
    """The options of this session, resolved once."""
    if OPTIONS not in config.stash:
        ini_dir = config.inipath.parent if config.inipath else config.rootpath
        config.stash[OPTIONS] = resolve_options(
            config.getoption, config.getini, invocation_dir=config.invocation_params.dir, ini_dir=ini_dir
        )
    return config.stash[OPTIONS]


def collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A collector for the configs of this session; every other YAML file is none of our business."""
    config = parent.config.stash.get(CONFIGS, {}).get(file_path)
    if config is None:
        return None
    file: ConfigFile = ConfigFile.from_parent(parent, path=file_path)
    file.overfit_config = config
    return file


def check_collected(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A config that gave no test would be a silent pass.

    Raises:
        pytest.UsageError: pytest never reached the file, say because its folder is in norecursedirs or ignored.
    """
    reached = {item.path for item in items if isinstance(item, ConfigItem)}
    for path in config.stash.get(CONFIGS, {}):
        if path not in reached:
            raise pytest.UsageError(
                f"{path}: no test was collected from this config\n"
                "  allowed: a file that pytest reaches from its path arguments\n"
                "  next: name the file itself, or look at norecursedirs and --ignore"
            )


class ConfigFile(pytest.Module):
    """A config file as a test file. It is a Module so that fixtures of every scope work in a conftest beside it."""

    overfit_config: OverfitConfig

    def _getobj(self) -> ModuleType:
        return ModuleType(self.path.stem)

    def collect(self) -> Iterator[pytest.Item]:
        # What default fixtures build for this file once: name -> (value, error).
        self.overfit_built: dict[str, tuple[Any, BaseException | None]] = {}
        for name in ("config", "pair", "loader"):
            yield ConfigItem.from_parent(self, name=name, callobj=checks.STAGES[name])
        for name in self.overfit_config.overfit.criteria.names():
            yield ConfigItem.from_parent(self, name=name, callobj=checks.criterion(name))


class ConfigItem(pytest.Function):
    """One item of a config file."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name
