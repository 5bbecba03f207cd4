"""Keys of a section that its class does not take: which file gave each, and the line that mends it."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_overfit.errors import ConfigError
from pytest_overfit.errors.suggest import from_here, nearest, shorten
from pytest_overfit.settings.overrides import parse_override
from pytest_overfit.settings.problems import one_letter_off, shown
from pytest_overfit.settings.secret import hide
from pytest_overfit.settings.section import as_number
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.trainer.config_file import read_text
from pytest_overfit.trainer.unread import meant_by
from pytest_overfit.trainer.written_keys import written_keys

GIVEN = "override "
NUMBERS = {"float": "a number", "int": "a whole number"}  # annotations, as they are written


class RefusedKeysError(ConfigError):
    """A section gives its class what that does not take; its text says where each key comes from once it is known.

    Args:
        names: the keys; ``known``: the arguments that the class takes.
    """

    names: Sequence[str] = ()
    known: Sequence[str] = ()


def expect_taken(target: Callable[..., Any], dotted: str, given: Mapping[str, Any], *, where: str) -> None:
    """Looks at what a section gives before its class is called with it: the keys, and words in the place of numbers.

    Raises:
        RefusedKeysError: it takes another set of keywords.
        ConfigError: a word stands for a number.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # of a class without a signature
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    takes = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    names = [name for name in given if name not in takes]
    if names:
        error = RefusedKeysError(
            f"{dotted} cannot be built: it does not take {shorten(names)}",
            where=where,
            allowed=f"its arguments ({shorten(takes, 12)})" if takes else "no argument",
            hint=f"the section gives it {', '.join(given)}",
        )
        error.names, error.known = names, takes
        raise error
    for each in parameters:
        kind, value = getattr(each.annotation, "__name__", each.annotation), given.get(each.name)
        if kind in NUMBERS and isinstance(value, str) and as_number(value, whole=False) is None:
            allowed = f"{NUMBERS[kind]}, which {dotted} takes there"
            raise ConfigError(shown(value), where=f"{where}.{each.name}", allowed=allowed)


def has_argument(target: Callable[..., Any], name: str) -> bool:
    """Whether a class or a function names this argument; ``**kwargs``, which take a misspelling too, do not.

    Example:
        >>> has_argument(shorten, "most"), has_argument(dict, "most")
        (True, False)
    """
    try:
        return name in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False


def placed(error: RefusedKeysError, config: OverfitConfig) -> ConfigError:
    """The same with the file and line that gives each key, and what to paste."""
    written, places, lines = written_keys(config.path, config.overrides), list[str](), list[str]()
    section = re.sub(r"\[(\d+)\]", r".\1", error.where or "")  # items of a list, as files name them
    merged = False
    for name in error.names:
        key = f"{error.where}.{name}"
        if (origin := config.origins.get(key, "")).startswith(GIVEN):
            text = hide(origin.removeprefix(GIVEN), config.secrets)
            places.append(f"--overfit-set {text}")
            meant = _meant(name, error.known)
            lines.append(as_meant(text, meant) if meant else f"leave {places[-1]} out")
            continue
        file, line = written.get(f"{section}.{name}", (config.path, 0))
        merged = merged or file != config.path
        places.append(f"{key} ({file.name}{f':{line}' if line else ''})")
        beside = [other for other in error.known if written.get(f"{section}.{other}", ("",))[0] != file]
        if line and (meant := _meant(name, beside)):
            text = read_text(file).splitlines()[line - 1].strip()
            lines.append(f"{from_here(str(file))}:{line}: {text.replace(name, meant, 1)}")
        elif file != config.path or not line:
            lines.append(f"--overfit-set {shlex.quote(f'~{key}')}")
        else:
            lines.append(f"take {name} out of {from_here(str(file))}:{line}")
    hint = " ".join(lines) if all(line.startswith("--") for line in lines) else "; ".join(lines)
    where = f"{', '.join(places)}{f', merged in by the defaults of {config.path.name}' if merged else ''}"
    return ConfigError(error.found, where=where, allowed=error.allowed, hint=hint)


def _meant(name: str, known: Sequence[str]) -> str | None:
    elsewhere = (meant_by(name) or "").rpartition(".")[2]
    near = next((each for each in known if each == elsewhere or one_letter_off(name, each)), None)
    return near or nearest(name, known, cutoff=0.75)


def as_meant(text: str, meant: str) -> str:
    """An override with the last part of its key as it was probably meant.

    Example:
        >>> as_meant("optim.optimizer.lrr=1e-3", "lr")
        '--overfit-set optim.optimizer.lr=1e-3'
    """
    key, equals, value = text.partition("=")
    parts = parse_override(text).parts
    return f"--overfit-set {shlex.quote(f'{key.strip().removesuffix(parts[-1])}{meant}{equals}{value}')}"
