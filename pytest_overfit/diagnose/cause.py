"""What a run is diagnosed with: an id, a place, numbers, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_overfit.settings.cause_ids import GROUPS, IDS

Strength = Literal["proven", "shown", "observed"]
STRENGTHS: tuple[Strength, ...] = ("proven", "shown", "observed")
__all__ = ["GROUPS", "IDS", "STRENGTHS", "Cause", "Strength"]


@dataclass(frozen=True)
class Cause:
    """One cause that the evidence leads to.

    Example:
        >>> print(Cause("lr-high", "optimizer group 0", "objective climbs from 2.3 to 41", "set lr=0.001",
        ...             "proven", {"lr": 1.0, "works": 0.001}).text())
        lr-high (proven): objective climbs from 2.3 to 41
          where: optimizer group 0
          change: set lr=0.001

    Args:
        id: an id of docs/causes.md, or of a rule of the user's own.
        where: the parameter, module, term, frame, input or step.
        observed: what was seen, with its numbers.
        advice: a value or a line to change.
        strength: proven by a trial, shown by a probe, or observed while the run went.
        evidence: the numbers that led here, by name.
        certain: it is a defect whether the run passes or not: a run that passes fails for it.
        weight: the order among causes of the same strength, 0 to 1; the likelier first.
    """

    id: str
    where: str
    observed: str
    advice: str
    strength: Strength
    evidence: Mapping[str, float] = field(default_factory=dict)
    certain: bool = False
    weight: float = 0.5

    def text(self) -> str:
        """What was observed; where; what to change."""
        return f"{self.id} ({self.strength}): {self.observed}\n  where: {self.where}\n  change: {self.advice}"
