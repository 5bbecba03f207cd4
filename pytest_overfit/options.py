"""The command line and ini options as one plain record; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Options:
    """What the user asked for: config files and the overrides that the other options stand for.

    ``given`` are the configs of the command line, ``configured`` those of the ini file; both absolute.
    """

    given: tuple[Path, ...] = ()
    configured: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    log_dir: Path | None = None

    @property
    def configs(self) -> tuple[Path, ...]:
        """Every config file once, command line first."""
        return tuple(dict.fromkeys((*self.given, *self.configured)))


def resolve_options(
    option: Callable[[str], Any], ini: Callable[[str], Any], *, invocation_dir: Path, ini_dir: Path
) -> Options:
    """Command line over ini file. Paths are relative to where each was written.

    Args:
        option: the value of a command-line option by name, None or empty where it was not given.
        ini: the value of an ini option by name.
        invocation_dir: folder that pytest was started in.
        ini_dir: folder of the ini file.
    """
    settings = [*ini("overfit_set")]
    device = option("overfit_device") or ini("overfit_device")
    if device:
        settings.append(f"overfit.device={device}")
    if option("overfit_require_gpu") or ini("overfit_require_gpu"):
        settings.append("overfit.require_gpu=true")
    settings += option("overfit_set") or []
    log_dir: Path | None = None
    if option("overfit_log_dir"):
        log_dir = absolute(option("overfit_log_dir"), invocation_dir)
    elif ini("overfit_log_dir"):
        log_dir = absolute(ini("overfit_log_dir"), ini_dir)
    return Options(
        given=tuple(absolute(path, invocation_dir) for path in option("overfit_config") or []),
        configured=tuple(absolute(path, ini_dir) for path in ini("overfit_config")),
        overrides=tuple(settings),
        log_dir=log_dir,
    )


def absolute(path: str, folder: Path) -> Path:
    """An absolute, normalised path; ``~`` is the home folder. Links are kept."""
    import os

    return Path(os.path.abspath(folder / Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links


def config_of_argument(argument: str, folder: Path) -> Path | None:
    """The config file that a plain pytest argument names (``a.yaml``, ``a.yaml::camera``), or None."""
    path = absolute(argument.split("::")[0], folder)
    return path if path.suffix in CONFIG_SUFFIXES and not path.is_dir() else None


def arguments_with(arguments: Sequence[str], configs: Options, *, explicit: bool, folder: Path) -> list[str]:
    """pytest's path arguments once the configs are to run too.

    Without path arguments, configs of the command line run alone; those of the ini file run beside the test paths.
    A config that a given folder already contains is not named twice: pytest 8 would drop the folder's other tests.
    """
    kept = list(arguments) if explicit or not configs.given else []
    folders = [absolute(argument.split("::")[0], folder) for argument in kept]
    for path in configs.configs:
        if not any(path == place or (place in path.parents and place.is_dir()) for place in folders):
            kept.append(str(path))
    return kept
