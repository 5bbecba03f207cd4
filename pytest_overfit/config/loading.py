"""The door of this room: config files in, frozen records out, or one error with every problem of every file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_overfit.config.problems import Problem, Unusable, report
from pytest_overfit.config.schema import OverfitConfig


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> OverfitConfig:
    """Composes, resolves and checks one config file.

    Example:
        >>> config = load_config("example_configs/quick.yaml", ["optim.optimizer.lr=1e-3"])   # doctest: +SKIP
        >>> config.optimizer["lr"], config.overfit.pair.source                                # doctest: +SKIP
        (0.001, 'render')

    Args:
        path: a YAML file; a ``defaults`` list is composed by Hydra where that is installed, else by its rules.
        overrides: ``key=value`` each, applied after composition and before ``${...}`` is resolved. ``key`` may be
            new and may index lists (``dataset_configs[0].ROOT``); ``value`` is read as in a config file.

    Raises:
        ConfigError: with all problems of the file, one line each.
    """
    return load_configs([(path, overrides)])[0]


def load_configs(requests: Iterable[tuple[Path | str, Sequence[str]]]) -> tuple[OverfitConfig, ...]:
    """Loads several config files, and reports the problems of all of them together.

    Raises:
        ConfigError: with all problems of all files, one line each.
    """
    configs: list[OverfitConfig] = []
    problems: list[tuple[str, Problem]] = []
    for path, overrides in requests:
        try:
            configs.append(_load(path, overrides))
        except Unusable as error:
            problems.extend((str(path), problem) for problem in error.problems)
    if problems:
        raise report(problems)
    return tuple(configs)


def _load(path: Path | str, overrides: Sequence[str]) -> OverfitConfig:
    # Imported here: the records are used without OmegaConf and YAML.
    from pytest_overfit.config.compose import compose_tree
    from pytest_overfit.config.validation import build_config

    try:
        # Absolute, not resolved: what lies next to a link to a config is next to the link.
        location = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise Unusable(Problem("", str(error), "a path")) from error
    return build_config(location, compose_tree(location, overrides))
