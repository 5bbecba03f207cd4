"""Who follows a run while it goes; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Pictures(Protocol):
    """What there is to see at the end of a run: it draws itself."""

    def panels(self) -> Mapping[str, Any]:
        """Name -> (H, W, 3) uint8 RGB."""

    def write(self, folder: Path) -> tuple[str, ...]:
        """Writes every panel as a PNG file into a folder, which is made; the names of the files."""


class Observer:
    """Somebody who follows a run: a progress line, a TensorBoard writer, a record. What is not overridden is let pass.

    Example:
        >>> class Printer(Observer):
        ...     def on_steps(self, first, rows):
        ...         print(first + len(rows), rows[-1]["objective"])
    """

    wants_pictures: bool = False  # also where the config does not ask for them

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        """Training steps ``first`` (from 0) onwards: loss terms, ``lr``, ``weight_decay``, ``grad_norm/<group>``."""

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        """Loss terms in evaluation mode after ``step`` training steps."""

    def on_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Measured now and then, after ``step`` steps: ``update_norm/<group>``, ``confidence/<mean|min|max>``."""

    def on_pictures(self, pictures: Pictures) -> None:
        """What it shows at the end of the run, where the config or the observer asks for them."""

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        """A phase begins or has more to say: warm-up, training, probes, ``trial 3/9``; the most seconds it may take."""

    def close(self) -> None:
        """The run has ended."""


def wants_numbers(observers: Sequence[Observer]) -> bool:
    """Whether somebody is told what is measured now and then: it costs a copy of the parameters.

    Example:
        >>> wants_numbers([Observer()])
        False
    """
    return any(type(each).on_numbers is not Observer.on_numbers for each in observers)
