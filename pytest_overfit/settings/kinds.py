"""What a setting may be: the words for it, in tables and in errors, and how a value of it is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_overfit.settings.problems import shown
from pytest_overfit.settings.section import number_words

if TYPE_CHECKING:
    from pytest_overfit.settings.section import Section

Default = TypeVar("Default")
LAST_SEED = 2**32 - 1
GPU = ("gpu", "nvidia", "gpu:0", "gpu0")  # what people call it elsewhere
_DEVICE = re.compile(r"auto|model|cpu|mps|(?!(auto|model|cpu|mps|gpu)\b)[a-z][a-z_]*(:\d{1,3})?")


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Args:
        words: what is allowed.
        read: (section, name, default, folder of relative paths) -> the value; what is wrong is a problem there.
    """

    words: str
    read: Callable[[Section, str, Any, Path], Any]


@dataclass(frozen=True)
class Definition:
    """What is said once of a setting, beside its type and default.

    Args:
        help: one line of documentation.
        keyword: its name in a marker and a call; "": it is a config's alone.
        option: the command-line option of its own; its ini twin has the same name with underscores.
        none: how tables show that it is not set.
        in_config: what stands for it under a config where it is not set.
    """

    kind: Kind
    help: str
    keyword: str = ""
    option: str = ""
    none: str = "off"
    in_config: str = ""


def setting(default: Default, kind: Kind, help: str, **more: str) -> Default:
    """A field of a record of settings: its default, and the rest of its `Definition`."""
    return field(default=default, metadata={"definition": Definition(kind, help, **more)})


def number(*, whole: bool = False, words: tuple[str, ...] = (), **bounds: Any) -> Kind:
    """A number within bounds, or one of these words."""
    allowed = ", ".join([*words, f"or {number_words(whole, **bounds)}"]) if words else number_words(whole, **bounds)

    def read(section: Section, name: str, default: Any, folder: Path) -> Any:
        if section.get(name) in words:
            return section.get(name)
        before = len(section.problems)
        value = section.number(name, default, whole=whole, **bounds)
        section.reword(before, allowed)
        return value

    return Kind(allowed, read)


def choice(*names: str) -> Kind:
    """One of these words."""
    return Kind(" | ".join(names), lambda section, name, default, folder: section.choice(name, default, names))


def _device(section: Section, name: str, default: Any, folder: Path) -> Any:
    value = section.get(name)
    if value is None or (isinstance(value, str) and _DEVICE.fullmatch(value)):
        return value or default
    section.problem(name, shown(value), DEVICE.words, "did you mean cuda?" if str(value).casefold() in GPU else "")
    return default


def _seeds(section: Section, name: str, default: Any, folder: Path) -> Any:
    value = section.get(name)
    if value is None:
        return default
    items = replace(section, values=dict(enumerate(value if isinstance(value, list) else [value])), key="", problems=[])
    seeds = [items.number(index, None, at_least=0, at_most=LAST_SEED, whole=True) for index in tuple(items.values)]
    if items.problems or None in seeds or not seeds or len({*seeds}) < len(seeds):
        section.refuse(name, f"distinct whole numbers from 0 to {LAST_SEED}: one, or a list")
        return ()
    return tuple(seeds)


def _folders(section: Section, name: str, default: Any, folder: Path) -> Any:
    names = section.texts(name)
    given = replace(section, values=dict(enumerate(names)), key=section.path(name))
    found = tuple(path for index in given.values if (path := given.file(index, folder)) is not None)
    for path in found:
        if not path.is_dir():
            section.refuse(name, FOLDERS.words, str(path))
    return found


def _links(section: Section, name: str, default: Any, folder: Path) -> Any:
    value = section.as_switch(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    before = len(section.problems)
    roots = _folders(section, name, default, folder)
    if not roots and len(section.problems) == before:
        section.refuse(name, LINKS.words)
    section.reword(before, LINKS.words)
    return roots


def _dotted(section: Section, name: str, default: Any, folder: Path) -> Any:
    dotted = section.text(name, default)
    if dotted is not None and ("." not in dotted or not all(part.isidentifier() for part in dotted.split("."))):
        section.refuse(name, DOTTED.words)
        return default
    return dotted


def _weights(section: Section, name: str, default: Any, folder: Path) -> Any:
    return "none" if section.get(name) in ("none", False) else section.file(name, folder) or default


SWITCH = Kind("true or false", lambda section, name, default, folder: section.switch(name, default))
TEXTS = Kind("text, or a list of text", lambda section, name, default, folder: section.texts(name))
FILE = Kind("a path", lambda section, name, default, folder: section.file(name, folder) or default)
DEVICE = Kind("auto | model | cpu | cuda | cuda:N | mps | xpu | another backend of torch", _device)
SEEDS = Kind("a whole number, or a list of distinct ones", _seeds)
FOLDERS = Kind("folders that are there", _folders)
LINKS = Kind("false, true (anywhere), or a list of folders that are there", _links)
DOTTED = Kind("a dotted Python name, such as package.module.function", _dotted)
WEIGHTS = Kind("none, or a path", _weights)
