"""A trial and what became of it: the run again from the same start, with exactly one thing changed; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_overfit.judge.finding import number

TrialKind = Literal[
    "our step", "no clipping", "held rate", "fresh state", "one rate", "learning rate", "no weight decay",
    "default settings", "unfrozen", "all parameters", "same random numbers", "float32", "standardised inputs",
    "standardised targets", "fresh weights", "rescaled", "eager", "full precision", "on the CPU",
]  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What a trial changes.

    Args:
        kind: what is changed.
        was, value: what it was, and what it was set to, where it is a number.
        detail: which tensors, where it is some of them.
    """

    kind: TrialKind
    was: float | None = None
    value: float | None = None
    detail: str = ""

    @property
    def factor(self) -> float | None:
        """What the changed number was multiplied by; None where it was 0, or is no number."""
        return self.value / self.was if self.was and self.value is not None else None

    @property
    def text(self) -> str:
        """A trial in a few words.

        Example:
            >>> Trial("learning rate", 1e-3, 1e-4).text, Trial("unfrozen").text
            ('lr 0.0001', 'unfrozen')
        """
        if self.kind == "learning rate" and self.value is not None:
            return f"lr {number(self.value)}"
        return f"{self.kind} ({self.detail})" if self.detail else self.kind


@dataclass(frozen=True)
class Attempt:
    """How a trial went: ``passed_at`` is the step at which all limits had held, None where they did not."""

    trial: Trial
    curve: tuple[float, ...]
    passed_at: int | None
    stop: str

    @property
    def passed(self) -> bool:
        return self.passed_at is not None

    @property
    def steps(self) -> int:
        return len(self.curve)
