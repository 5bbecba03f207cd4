"""The verdict of one run, or of one run per seed: findings over records, and their text."""

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

    Args:
        record: what happened; of several seeds, in the run that did worst.
        findings: one per criterion; of several seeds the worst one each, and one more, ``seeds``.
        runs: the result of every seed where there are several.
    """

    record: RunRecord
    findings: tuple[Finding, ...]
    runs: tuple[OverfitResult, ...] = ()

    @property
    def passed(self) -> bool:
        """Every criterion holds, and there is at least one."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def margin(self) -> float | None:
        """The smallest margin to any limit: 2 is half of what was allowed, below 1 is missed."""
        margins = [finding.margin for finding in self.findings if finding.margin is not None]
        return min(margins, default=None)

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
        """The headline of every run and one line per criterion: observed, allowed, margin, steps to pass."""
        headlines = [run_headline(run.record) for run in self.runs or (self,)]
        notes = [f"note: {note}" for note in self.record.notes]
        return "\n".join([*headlines, *criteria_table(self.findings), *notes])

    def check(self) -> None:
        """Raises an AssertionError that names every missed criterion; silent when all hold."""
        missed: Sequence[Finding] = [finding for finding in self.findings if not finding.passed]
        if missed or not self.findings:
            __tracebackhide__ = True
            text = "\n".join(finding.text() for finding in missed) or "no criterion was judged"
            raise AssertionError(f"{len(missed)} of {len(self.findings)} criteria missed\n{text}")
