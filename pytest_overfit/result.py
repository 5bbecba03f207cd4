"""The verdict of one run: findings over a record, and their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.text import criteria_table, run_headline
from pytest_overfit.run.record import RunRecord


@dataclass(frozen=True)
class OverfitResult:
    """What a run was judged to be.

    Example:
        >>> result.passed, result.finding("camera").observed          # doctest: +SKIP
        (True, 'loss_camera 0.0007')
        >>> result.check()      # an AssertionError with every missed criterion    # doctest: +SKIP
    """

    record: RunRecord
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Every criterion holds, and there is at least one."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    def finding(self, name: str) -> Finding:
        """The finding of one criterion.

        Raises:
            OverfitError: no criterion of that name was judged; the message lists those that were.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        judged = ", ".join(finding.name for finding in self.findings)
        raise OverfitError(f"criterion {name!r} was not judged", allowed=judged)

    def summary(self) -> str:
        """The headline of the run and one line per criterion: observed, allowed, margin, steps to pass."""
        return "\n".join([run_headline(self.record), *criteria_table(self.findings)])

    def check(self) -> None:
        """Raises an AssertionError that names every missed criterion; silent when all hold."""
        missed: Sequence[Finding] = [finding for finding in self.findings if not finding.passed]
        if missed or not self.findings:
            __tracebackhide__ = True
            text = "\n".join(finding.text() for finding in missed) or "no criterion was judged"
            raise AssertionError(f"{len(missed)} of {len(self.findings)} criteria missed\n{text}")
