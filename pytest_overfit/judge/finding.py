"""One judged criterion, and the text of its failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ECHO = "not judged: see "  # the criterion that tells the fault, and its words
PASTED = re.compile(
    r"(--overfit-\S|pytest-overfit \w|\S+\.py:\d+: \S|[a-z_]+=(?:\S+|\[[^]]*\]|lambda p: \S.*)$)"
)  # an option, a command, a line of a file, a keyword


@dataclass(frozen=True)
class Finding:
    """The verdict of one criterion.

    Example:
        >>> print(Finding("camera", False, "loss_camera 0.0408", "< 0.001", where="step 2000 of 2000").text())
        camera: loss_camera 0.0408, allowed < 0.001
          where: step 2000 of 2000

    ``judged`` is False where it could not be judged: ``observed`` then says why, and it has neither passed nor been
    missed. ``margin`` is limit / observed for an upper limit (2.0: half of what is allowed was seen; below 1: missed),
    and ``steps_to_pass`` the step (from 1) from which the criterion held for good. ``value`` is what a limit was held
    against: the worst of the steps that it is asked of, relative to the start where the limit is.
    """

    name: str
    passed: bool
    observed: str
    allowed: str
    where: str | None = None
    hint: str | None = None
    steps_to_pass: int | None = None
    margin: float | None = None
    judged: bool = True
    hint_stands: bool = False
    value: float | None = None

    @property
    def missed(self) -> bool:
        """It was judged, and does not hold."""
        return self.judged and not self.passed

    @property
    def echo_of(self) -> str | None:
        """The criterion that is missed for the fault that kept this one from being judged."""
        _, echo, teller = self.observed.partition(ECHO)
        return teller.partition(" ")[0] if echo and not self.judged else None

    def text(self) -> str:
        """Observed against allowed; where; what to try next."""
        allowed = f", allowed {self.allowed}" if self.judged else ""
        lines = [f"{self.name}: {self.observed}{allowed}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return "\n".join(lines)


def number(value: float) -> str:
    """A number as people read it in a loss table: four significant digits.

    Example:
        >>> number(0.00123456), number(123456.0), number(float("nan"))
        ('0.001235', '1.235e+05', 'nan')
    """
    return f"{value:.4g}"


def judged_value(findings: Sequence[Finding], name: str, curve: Sequence[float]) -> str:
    """The number that a limit was held against, as every form shows it; of a run without a verdict the last one.

    Example:
        >>> judged_value([Finding("objective", False, "objective 0.5", "< 0.1", value=0.5)], "objective", [1.0, 0.4])
        '0.5'
    """
    value = next((finding.value for finding in findings if finding.name == name and finding.value is not None), None)
    return number(curve[-1] if value is None else value)


def is_line(text: str) -> bool:
    """Whether what to change can be pasted as it stands.

    Example:
        >>> is_line("lr=0.01"), is_line("--overfit-set seed_value=1"), is_line("a.py:3: x = 1"), is_line("freeze less")
        (True, True, True, False)
    """
    return PASTED.match(text) is not None
