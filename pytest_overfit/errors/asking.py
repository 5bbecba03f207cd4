"""The one place where a question of ours may break: what is raised there is written down, and costs nobody a verdict.

Probes, rules, trials, drawings and writers are asked through ``Questions.ask``. What the user's own code raises on
the way is told apart by ``Refused``, which ``users_code`` raises in its place. No other place of the package may catch
whatever comes: it lets it through to here, or catches a kind that it names.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

Answer = TypeVar("Answer")
Otherwise = TypeVar("Otherwise")
PACKAGE = Path(__file__).parents[1]
REPORT = "this is a mistake of pytest-overfit's: please report it"
SWITCH = "PYTEST_OVERFIT_RAISE"
LONGEST = 160  # characters of what was raised
NO_MEMORY = "can't allocate memory|not enough memory"  # torch's words of the CPU


@dataclass(frozen=True)
class NotAsked:
    """A question that has no answer.

    Example:
        >>> NotAsked("the loss over free outputs", "the model refuses it: ValueError: length 3 is not 4").text()
        'not asked: the loss over free outputs: the model refuses it: ValueError: length 3 is not 4'

    Args:
        question: what was to be asked.
        why: what kept it from an answer.
        ours: it broke by a mistake of this package.
    """

    question: str
    why: str
    ours: bool = False

    def text(self) -> str:
        """One line; of a mistake of ours with what to do about it."""
        return f"not asked: {self.question}: {self.why}{f'; {REPORT}' if self.ours else ''}"


class Refused(Exception):  # noqa: N818 - the answer of the user's code, never seen outside
    """The user's code raised where it was asked something that its own run did not ask of it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(spoken(error))
        self.error = error


class Unanswerable(Exception):  # noqa: N818 - an answer, never seen outside
    """A question that cannot be asked here, with the reason as its text: sharded, an own step, out of time."""


class Mistake(BaseException):
    """A mistake of ours where the switch makes it end the session's test: no ``except Exception`` may keep it."""


class users_code:  # noqa: N801 - a class, as a run enters it a hundred times: a generator takes twice as long
    """Around a call of the user's model, loss or step by a question of ours: whatever it raises becomes ``Refused``.

    Example:
        >>> try:
        ...     with users_code():
        ...         raise KeyError("mask")
        ... except Refused as refused:
        ...     print(refused)
        KeyError: 'mask'
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (Refused, Unanswerable)):
            raise Refused(error) from error


@dataclass
class Questions:
    """Asks, and keeps what could not be asked.

    Example:
        >>> questions = Questions()
        >>> questions.ask("the floor of the loss", lambda: 1 / 0, otherwise=None)
        >>> print(questions.not_asked[0].question, questions.not_asked[0].ours)
        the floor of the loss True

    Args:
        raising: mistakes of ours are raised: how this package tests itself (``PYTEST_OVERFIT_RAISE=1``).
        found, above: what has no answer, here and in the questions that these are part of.
    """

    raising: bool = field(default_factory=lambda: os.environ.get(SWITCH, "") not in ("", "0"))
    found: dict[NotAsked, None] = field(default_factory=dict)
    above: tuple[dict[NotAsked, None], ...] = ()

    def apart(self) -> Questions:
        """Questions about one thing: what they leave open is known here too."""
        child = copy.copy(self)
        child.found, child.above = {}, (*self.above, self.found)
        return child

    @property
    def not_asked(self) -> tuple[NotAsked, ...]:
        """What has no answer, each once, in the order of the asking."""
        return tuple(self.found)

    def ask(self, question: str, look: Callable[[], Answer], *, otherwise: Otherwise) -> Answer | Otherwise:
        """What ``look`` gives; ``otherwise`` where it raises. Ctrl-C, and a time-out of pytest's, go through."""
        try:
            return look()
        except Exception as error:
            self.note(question, error)
        return otherwise

    def asking(self, question: str) -> AbstractContextManager[None]:
        """``ask`` for a block: what it raises ends the block alone."""
        return _Asking(self, question)

    def note(self, question: str, error: Exception) -> None:
        """Keeps that a question was ended by this error; raises it where it is ours and the switch is on."""
        if isinstance(error, Unanswerable):
            self.leave_out(question, str(error))
            return
        if is_out_of_memory(raised := error.error if isinstance(error, Refused) else error):
            self.leave_out(question, f"memory: {spoken(raised)}")
            return
        if isinstance(error, Refused):
            self.leave_out(question, f"the model, the loss or the step refuses it: {error}")
            return
        if self.raising:
            raise Mistake(f"{question}: {spoken(error)}{_place(error.__traceback__)}") from error
        self._keep(NotAsked(question, f"{spoken(error)}{_place(error.__traceback__)}", ours=True))

    def leave_out(self, question: str, why: str) -> None:
        """Keeps that a question was not asked at all."""
        self._keep(NotAsked(question, why))

    def _keep(self, each: NotAsked) -> None:
        for found in (self.found, *self.above):
            found[each] = None


class _Asking:
    def __init__(self, questions: Questions, question: str) -> None:
        self.questions, self.question = questions, question

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.questions.note(self.question, error)
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, of Python, of torch's on the CPU, or of an accelerator's.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
        (True, False)
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    told = isinstance(error, RuntimeError) and re.search(NO_MEMORY, str(error), re.IGNORECASE)
    return bool(kinds & {"MemoryError", "OutOfMemoryError"} or told)


def spoken(error: BaseException) -> str:
    """The kind and the first line of an error.

    Example:
        >>> spoken(ValueError("a" + chr(10) + "b")), spoken(RuntimeError())
        ('ValueError: a', 'RuntimeError')
    """
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an error of the user's whose text raises
        lines = []
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def not_asked_lines(not_asked: Sequence[NotAsked], *, most: int = 5) -> list[str]:
    """One line each, mistakes of ours first; of more than ``most`` the others by name.

    Example:
        >>> not_asked_lines([NotAsked("a", "out of time"), NotAsked("b", "out of time")], most=1)
        ['not asked: a: out of time', 'not asked either: b']
    """
    ordered = sorted(not_asked, key=lambda each: not each.ours)
    lines = [each.text() for each in ordered[:most]]
    return lines + (
        [f"not asked either: {', '.join(each.question for each in ordered[most:])}"] if ordered[most:] else []
    )


def _place(trace: TracebackType | None) -> str:
    """`` (diagnose/rank.py:84)`` of the last frame of this package; nothing where there is none."""
    place = ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if PACKAGE in path.parents and path != Path(__file__):
            place = f" ({path.relative_to(PACKAGE).as_posix()}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
