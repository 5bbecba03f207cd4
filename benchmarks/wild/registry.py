"""Which programs there are: those of every library that is installed, and what is missing."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.wild import libraries
from benchmarks.wild.case import Program
from benchmarks.wild.torchvision_operators import declare_missing


@dataclass(frozen=True)
class Collected:
    """The programs, and for each library that could not be imported what Python said."""

    programs: tuple[Program, ...]
    missing: dict[str, str] = field(default_factory=dict)


def library_names() -> list[str]:
    """Every library that programs are written for, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(libraries.__path__))


def collect(wanted: Sequence[str] = ()) -> Collected:
    """The programs whose name or library is among ``wanted``, by default all; no other library is imported.

    Args:
        wanted: ``timm`` for all of a library, ``timm/ResNet`` for those whose name begins so.

    Raises:
        ValueError: two programs have one name, or the name is not of the library that the program stands in.
    """
    declare_missing()
    programs: list[Program] = []
    missing: dict[str, str] = {}
    for name in library_names():
        here = [each for each in wanted if each.partition("/")[0] == name]
        if wanted and not here:
            continue
        try:
            module = importlib.import_module(f"{libraries.__name__}.{name}")
        except ImportError as error:
            missing[name] = str(error)
            continue
        every = list(module.programs())
        _refuse_other_names(name, every)
        programs += [each for each in every if not here or _asked(each, here)]
    _refuse_doubles(programs)
    return Collected(tuple(programs), missing)


def _asked(program: Program, wanted: Sequence[str]) -> bool:
    return any(program.library == each or program.name.startswith(each) for each in wanted)


def _refuse_other_names(library: str, programs: Sequence[Program]) -> None:
    for program in programs:
        if program.library != library or not program.name.startswith(f"{library}/"):
            raise ValueError(f"{program.name} of {program.library} stands in {library}")


def _refuse_doubles(programs: Sequence[Program]) -> None:
    names = [program.name for program in programs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"two programs of one name: {', '.join(doubled)}")
