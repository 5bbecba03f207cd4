"""How a run was asked for, as far as what to change depends on it: a config, a call, and whose sources they are in."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any, Protocol

from torch import nn

from pytest_overfit.diagnose.source_lines import Source
from pytest_overfit.errors.suggest import from_here
from pytest_overfit.run.stack_lines import is_library
from pytest_overfit.run.subject import Subject

MOST_BYTES = 10**6  # of a source


class OfConfig(Protocol):
    """Options that change a config, empty where none do, and where its keys are written."""

    def rate(self, was: float, works: float) -> str:
        """The learning rate that is ``was`` becomes ``works``."""

    def lasting(self) -> str:
        """The learning rate does not go away in the first half of a run."""

    def no_decay(self) -> str:
        """No weight decay."""

    def thawed(self) -> str:
        """Nothing is frozen."""

    def clip(self, below: float, now: str) -> str:
        """Every norm below one that gradients are clipped to is ``now``."""

    def weight(self, term: str) -> str:
        """A term of the loss whose weight is 0 counts."""

    def place(self, key: str) -> str:
        """The file, the line and the key; empty where it is in none."""


@dataclass(frozen=True)
class Asked:
    """Where a user can change something.

    Args:
        sources: their files.
        config: what to change in the config that asked; None: no config did.
        default: the optimizer is ours, and ``lr=`` sets its rate.
    """

    sources: tuple[Source, ...] = ()
    config: OfConfig | None = None
    default: bool = False


def asked_of(subject: Subject, model: Any, codes: Iterable[CodeType]) -> Asked:
    """How a call was asked: by the functions that called, and by what they gave.

    Args:
        model: as it was trained.
    """
    given = (subject.loss, subject.step, subject.optimizer, subject.model, *_kinds(model))
    default = subject.optimizer is None and subject.step is None and not subject.schedules
    return Asked(sources_of(codes, given), default=default)


def with_model(asked: Asked, subject: Subject, model: Any) -> Asked:
    """The same of a config, with the sources of the model and the loss that it names."""
    return replace(asked, sources=sources_of((), (subject.loss, subject.step, *_kinds(model))))


def _kinds(model: Any) -> Iterable[Any]:
    """The classes of its modules, and their forward: of a module that a config imported, Python knows no class."""
    kinds = dict.fromkeys(type(each) for each in model.modules()) if isinstance(model, nn.Module) else {}
    return (*kinds, *(each.forward for each in kinds))


def callers() -> tuple[CodeType, ...]:
    """The user's functions that call us now, the innermost first."""
    frame, found = sys._getframe(1), []
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            found.append(frame.f_code)
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def sources_of(codes: Iterable[CodeType], things: Iterable[Any]) -> tuple[Source, ...]:
    """The files of functions and of objects of the user's; the lines of these take part."""
    near: dict[str, list[tuple[int, int]]] = {}
    for place in (*((code.co_filename, _lines(code)) for code in codes), *_places(things)):
        near.setdefault(place[0], []).append(place[1])
    return tuple(Source(from_here(path), text, tuple(lines)) for path, lines in near.items() if (text := _text(path)))


def _places(things: Iterable[Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    for thing in things:
        thing = inspect.unwrap(thing) if callable(thing) else thing
        if (code := getattr(thing, "__code__", None)) is not None:
            if not is_library(code.co_filename):
                yield code.co_filename, _lines(code)
            continue
        kind = thing if isinstance(thing, type) else type(thing)
        try:
            path = inspect.getsourcefile(kind)
            if path is None or is_library(path):
                continue
            text, first = inspect.getsourcelines(kind)
        except (OSError, TypeError):  # of C, or typed in by hand
            continue
        yield path, (first, first + len(text) - 1)


def _lines(code: CodeType) -> tuple[int, int]:
    return code.co_firstlineno, max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)


def _text(path: str) -> str:
    try:
        file = Path(path)
        return file.read_text(encoding="utf-8") if file.stat().st_size < MOST_BYTES else ""
    except (OSError, ValueError):
        return ""
