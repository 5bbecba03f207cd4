"""Config files in, frozen records out, or one error with every problem of every file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.problems import Problem, Unusable, report
from pytest_overfit.trainer.config import OverfitConfig

if TYPE_CHECKING:
    from pytest_overfit.settings.ladder import Layer


def load_config(
    path: Path | str, overrides: Sequence[str] = (), *, ini: Sequence[str] = (), settings: Sequence[Layer] = ()
) -> OverfitConfig:
    """Composes, resolves and checks one config file.

    Example:
        >>> config = load_config("example_configs/quick.yaml", ["optim.optimizer.lr=1e-3"])   # doctest: +SKIP
        >>> config.optimizer["lr"], config.overfit.pair.source                                # doctest: +SKIP
        (0.001, 'render')

    Args:
        path: a YAML file; a ``defaults`` list of files and groups is composed here, anything beyond that by Hydra.
        overrides: ``key=value`` each, applied after composition and before ``${...}`` is resolved. ``key`` may be
            new and may index lists (``dataset_configs[0].ROOT``); ``value`` is read as in a config file.
        ini: overrides that are weaker than the file: only keys that it does not give are set.
        settings: keywords of a marker or a call, weakest first; stronger than the overrides.

    Raises:
        ConfigError: with all problems of the file, one line each.
    """
    return load_configs([(path, overrides)], ini=ini, settings=settings)[0]


def load_configs(
    requests: Iterable[tuple[Path | str, Sequence[str]]],
    *,
    ini: Sequence[str] = (),
    settings: Sequence[Layer] = (),
    beside: Callable[[OverfitConfig], Iterable[OverfitError]] = lambda config: (),
) -> tuple[OverfitConfig, ...]:
    """Loads several config files under the same ``ini`` and ``settings``; all their problems are reported together.

    Args:
        beside: what else is wrong with a config that has problems, so that one run tells everything.

    Raises:
        ConfigError: with all problems of all files, one line each.
    """
    configs: list[OverfitConfig] = []
    problems: list[tuple[str, Problem]] = []
    requests = list(requests)
    for path, overrides in requests:
        try:
            configs.append(_load(path, overrides, ini, settings, beside))
        except Unusable as error:
            problems.extend(_told(problem, _file_of(problem, path, overrides), settings) for problem in error.problems)
    if problems:
        raise report(problems, list(dict.fromkeys(text for _, given in requests for text in given)))
    return tuple(configs)


def _file_of(problem: Problem, path: Path | str, overrides: Sequence[str]) -> str:
    """The file that writes the key of a problem: the config, or one of its ``defaults`` beside it."""
    from pytest_overfit.trainer.written_keys import written_keys

    if not problem.key:
        return str(path)
    top = Path(path)
    file, _ = written_keys(top.expanduser(), overrides).get(problem.key, (top, 1))
    return str(path) if file == top.expanduser() else str(file)


def _told(problem: Problem, file: str, settings: Sequence[Layer]) -> tuple[str, Problem]:
    """Where a problem is, in the words of the place: what a keyword says is not a problem of the file."""
    key = problem.key.removeprefix("overfit.")
    for layer in reversed(settings):
        if key != problem.key and layer.states(key):
            return layer.source, replace(problem, key=layer.spoken(key))
    return file, problem


def _load(
    path: Path | str,
    overrides: Sequence[str],
    ini: Sequence[str],
    settings: Sequence[Layer],
    beside: Callable[[OverfitConfig], Iterable[OverfitError]],
) -> OverfitConfig:
    # Imported here: the records are used without OmegaConf and YAML.
    from pytest_overfit.settings.secret import told_override
    from pytest_overfit.trainer.compose import compose_tree
    from pytest_overfit.trainer.validation import build_config

    try:
        # Absolute, not resolved: what lies next to a link to a config is next to the link.
        location = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise Unusable(Problem("", str(error), "a path")) from error
    try:
        made = build_config(
            location,
            compose_tree(location, overrides, ini, settings),
            lambda config: beside(replace(config, overrides=tuple(overrides), ini=tuple(ini))),
        )
        return replace(made, overrides=tuple(overrides), ini=tuple(ini))
    except RecursionError as error:
        raise Unusable(Problem("", "values that lead to each other without end", "a plain tree of settings")) from error
    except Unusable as error:
        given = [text.partition("=")[2] for text in (*overrides, *ini) if told_override(text) != text]
        raise Unusable(*(problem.hiding(given) for problem in error.problems)) from error
