"""What the command line and the ini file ask for, as one plain record; imported where something is asked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_overfit.errors import ConfigError
from pytest_overfit.plugin.options import seconds, seeds, steps
from pytest_overfit.text import LANGUAGES

CONFIG_SUFFIXES = (".yaml", ".yml")
STORAGE = ".overfit"


@dataclass(frozen=True)
class Options:
    """What the user asked for: config files, and the overrides that the other options stand for.

    Args:
        given, configured: the configs of the command line and those of the ini file, absolute.
        overrides, ini_overrides: ``key=value`` texts of the command line, and of the ini file.
        log_dir, ini_log_dir: absolute; the one of the ini file is among ``ini_overrides`` too.
        report: folder of the report, absolute.
        lang: of the terminal and the experiment records.
        save, compare: names of saved runs; ``compare_fail``: by how much a quantity may have grown, as written.
        storage: folder of the saved runs, absolute.
        strict: what leaves an overfit test unjudged is a failure.
    """

    given: tuple[Path, ...] = ()
    configured: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    ini_overrides: tuple[str, ...] = ()
    log_dir: Path | None = None
    ini_log_dir: Path | None = None
    report: Path | None = None
    lang: str = LANGUAGES[0]
    save: str | None = None
    compare: str | None = None
    compare_fail: tuple[str, ...] = ()
    storage: Path = Path(STORAGE)
    strict: bool = False

    @property
    def configs(self) -> tuple[Path, ...]:
        """Every config file once, command line first."""
        return tuple(dict.fromkeys((*self.given, *self.configured)))


def resolve_options(
    option: Callable[[str], Any], ini: Callable[[str], Any], *, invocation_dir: Path, ini_dir: Path
) -> Options:
    """Command line and ini file, apart: a config file stands between them. Paths: relative to where each was written.

    Args:
        option: the value of a command-line option by name, None or empty where it was not given.
        ini: the value of an ini option by name.
        invocation_dir: folder that pytest was started in.
        ini_dir: folder of the ini file.

    Raises:
        ConfigError: a value of the ini file is wrong.
    """
    log_dir, ini_log_dir = option("overfit_log_dir"), ini("overfit_log_dir")
    ini_folder = absolute(ini_log_dir, ini_dir) if ini_log_dir else None
    logging = [f"logging.log_dir={_quoted(str(ini_folder))}"] if ini_folder else []
    return Options(
        given=tuple(absolute(path, invocation_dir) for path in option("overfit_config") or []),
        configured=tuple(absolute(path, ini_dir) for path in ini("overfit_config")),
        overrides=(*_overrides(option), *(option("overfit_set") or [])),
        ini_overrides=(*_overrides(lambda name: _of_ini(name, ini)), *logging, *ini("overfit_set")),
        log_dir=absolute(log_dir, invocation_dir) if log_dir else None,
        ini_log_dir=ini_folder,
        **_recorded(option, ini, invocation_dir, ini_dir),
        strict=bool(option("overfit_strict") or ini("overfit_strict")),
    )


def _recorded(
    option: Callable[[str], Any], ini: Callable[[str], Any], invocation_dir: Path, ini_dir: Path
) -> dict[str, Any]:
    """What is asked of the records of the runs."""
    report, ini_report = option("overfit_report"), ini("overfit_report")
    lang = option("overfit_lang") or ini("overfit_lang") or LANGUAGES[0]
    if lang not in LANGUAGES:
        raise ConfigError(f"found {lang!r}", where="ini key overfit_lang", allowed=" or ".join(LANGUAGES))
    return {
        "report": absolute(report, invocation_dir) if report else absolute(ini_report, ini_dir) if ini_report else None,
        "lang": lang,
        "save": option("overfit_save"),
        "compare": option("overfit_compare") or ini("overfit_compare") or None,
        "compare_fail": tuple(option("overfit_compare_fail") or ini("overfit_compare_fail") or ()),
        "storage": absolute(ini("overfit_storage") or STORAGE, ini_dir),
    }


def _overrides(value: Callable[[str], Any]) -> list[str]:
    """What the options with a name of their own stand for."""
    texts = []
    for name, key in (("max_steps", "budget.max_steps"), ("max_seconds", "budget.max_seconds"), ("device", "device")):
        if value(f"overfit_{name}"):
            texts.append(f"overfit.{key}={value(f'overfit_{name}')}")
    if value("overfit_seeds"):
        texts.append(f"overfit.seeds={[*value('overfit_seeds')]}")
    if value("overfit_require_gpu"):
        texts.append("overfit.require_gpu=true")
    return texts


def _of_ini(name: str, ini: Callable[[str], Any]) -> Any:
    """The value of an ini option, held to the same rules as the option of that name."""
    value, read = ini(name), {"overfit_max_steps": steps, "overfit_max_seconds": seconds, "overfit_seeds": seeds}
    if not value or name not in read:
        return value
    try:
        return read[name](value)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error), where=f"{name} in the ini file") from None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def unknown_name(name: str, known: Iterable[str], what: str) -> str:
    """One line on an option or ini key that does not exist.

    Example:
        >>> unknown_name("overfit_sed", ["overfit_set", "overfit_device"], "ini key")
        'overfit_sed: found an unknown ini key; did you mean overfit_set? allowed: overfit_set | overfit_device'
    """
    from pytest_overfit.errors.suggest import nearest, some_of

    names = list(known)
    near = nearest(name, names)
    hint = f"did you mean {near}? " if near else ""
    return f"{name}: found an unknown {what}; {hint}allowed: {some_of(name, names, 'docs/settings.md')}"


def absolute(path: str, folder: Path) -> Path:
    """An absolute, normalised path; ``~`` is the home folder. Links are kept."""
    return Path(os.path.abspath(folder / Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links


def config_of_argument(argument: str, folder: Path) -> Path | None:
    """The config file that a plain pytest argument names (``a.yaml``, ``a.yaml::camera``), or None."""
    path = absolute(argument.split("::")[0], folder)
    return path if path.suffix in CONFIG_SUFFIXES and not _is_folder(path) else None


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises on names that are too long


def arguments_with(arguments: Sequence[str], configs: Options, *, explicit: bool, folder: Path) -> list[str]:
    """pytest's path arguments once the configs are to run too.

    Without path arguments, configs of the command line run alone; those of the ini file run beside the test paths.
    A config that a given folder already contains is not named twice: pytest 8 would drop the folder's other tests.
    """
    kept = list(arguments) if explicit or not configs.given else []
    folders = [absolute(argument.split("::")[0], folder) for argument in kept]
    for path in configs.configs:
        if not any(path == place or (place in path.parents and _is_folder(place)) for place in folders):
            kept.append(str(path))
    return kept
