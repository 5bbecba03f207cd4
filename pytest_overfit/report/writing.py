"""What is written of a run while it goes: a folder that fails costs a line in the summary, and nobody a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pytest_overfit.errors.asking import REPORT, Questions, Unanswerable
from pytest_overfit.run.observer import Observer, Pictures

Written = TypeVar("Written")
Otherwise = TypeVar("Otherwise")


@dataclass
class Writing:
    """Keeps what could not be written.

    Example:
        >>> writing = Writing()
        >>> writing.attempt("the record", lambda: open("no/folder/record.json", "w"), otherwise=None)
        >>> writing.lines
        ('not written: the record: No such file or directory',)
    """

    questions: Questions = field(default_factory=Questions)

    def attempt(self, what: str, write: Callable[[], Written], *, otherwise: Otherwise) -> Written | Otherwise:
        """What ``write`` gives; ``otherwise`` where it raises: a full disk, a folder that is gone, our own mistake."""

        def look() -> Written:
            try:
                return write()
            except OSError as error:
                raise Unanswerable(error.strerror or str(error)) from error

        return self.questions.ask(what, look, otherwise=otherwise)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for everything that was not written."""
        return tuple(
            f"not written: {each.question}: {each.why}{f'; {REPORT}' if each.ours else ''}"
            for each in self.questions.not_asked
        )


class Guarded(Observer):
    """A writer that is not asked again once it has failed.

    Args:
        writer: an observer that writes.
        what: is written by it.
        writing: keeps why it has stopped.
    """

    def __init__(self, writer: Observer, what: str, writing: Writing) -> None:
        self.writer, self.what, self.writing = writer, what, writing
        self.wants_pictures = writer.wants_pictures
        self.works = True

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        self.write(lambda: self.writer.on_steps(first, rows))

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        self.write(lambda: self.writer.on_val(step, terms))

    def on_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self.write(lambda: self.writer.on_numbers(step, numbers))

    def on_pictures(self, pictures: Pictures) -> None:
        self.write(lambda: self.writer.on_pictures(pictures))

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        self.write(lambda: self.writer.on_phase(name, detail, seconds_left))

    def close(self) -> None:
        self.write(self.writer.close)

    def write(self, write: Callable[[], object]) -> None:
        """Lets the writer do something, as long as it works."""
        if self.works:
            self.works = self.writing.attempt(self.what, lambda: (write(), True)[1], otherwise=False)
