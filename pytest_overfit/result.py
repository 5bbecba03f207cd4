"""The verdict of one run, or of one run per seed: findings over records, and their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_overfit.diagnose.answers import Answer
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.reached_modules import Reach
from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import NotAsked, not_asked_lines
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.stopped import unjudged
from pytest_overfit.judge.verdict import combine
from pytest_overfit.run.record import RunRecord
from pytest_overfit.text.failure import DEFECTS, cause_lines, failure_text
from pytest_overfit.text.table import criteria_table, run_headline


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
        causes: why it failed, the strongest first; ids and where to look are those of docs/causes.md.
        evidence: the numbers that the causes rest on; None where nothing was diagnosed.
        not_asked: questions of the diagnosis that have no answer, and why.
        answers: what was asked of the run, and what it answered; of several seeds the one that did worst.
        influence: which module each term of the loss reaches, and which it reads without a gradient.
    """

    record: RunRecord
    findings: tuple[Finding, ...]
    runs: tuple[OverfitResult, ...] = ()
    causes: tuple[Cause, ...] = ()
    evidence: Evidence | None = None
    not_asked: tuple[NotAsked, ...] = ()
    answers: tuple[Answer, ...] = ()
    influence: tuple[Reach, ...] = ()

    def __repr__(self) -> str:
        """One line: what a debugger shows of everything else is longer than a screen holds."""
        told = run_headline(self.record, self.findings)
        causes = f"; causes: {', '.join(cause.id for cause in self.causes)}" if self.causes else ""
        return f"<OverfitResult {'passed' if self.passed else 'failed'}: {told}{causes}>"

    @property
    def passed(self) -> bool:
        """Every criterion that could be judged holds, there is at least one, and nobody has interrupted the run."""
        held = any(finding.passed for finding in self.findings) and not any(f.missed for f in self.findings)
        return held and self.record.stop != "interrupted"

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

    @property
    def interrupted(self) -> bool:
        """Ctrl-C ended the run, or the diagnosis after it."""
        return self.record.stop == "interrupted" or bool(self.evidence and self.evidence.interrupted)

    @property
    def diagnosis_notes(self) -> tuple[str, ...]:
        """What has to be known of the diagnosis: that it was interrupted, and what was not asked."""
        trials = f"the diagnosis was interrupted after {len(self.evidence.attempts)} trials" if self.evidence else ""
        cut = (trials,) if self.evidence is not None and self.evidence.interrupted else ()
        if self.record.hung is not None:  # its notes say where
            cut = (*self.record.notes, *cut)
        return (*cut, *not_asked_lines(self.not_asked))

    @property
    def notes(self) -> tuple[str, ...]:
        """What else has to be known: of the run, and of its diagnosis."""
        return (*self.record.notes, *self.diagnosis_notes)

    def summary(self) -> str:
        """The headline of every run, one line per criterion (observed, allowed, margin, steps to pass), every cause."""
        headlines = [run_headline(run.record, run.findings) for run in self.runs or (self,)]
        notes = [f"note: {note}" for note in dict.fromkeys(self.notes)]
        causes = cause_lines(self.causes, most=len(self.causes))
        return "\n".join([*headlines, *criteria_table(self.findings), *causes, *notes])

    def failure_text(self) -> str:
        """The text of a failing test: what was missed, why, what to change; at most 25 lines."""
        diagnosed = self.evidence is not None
        return failure_text(self.findings, self.causes, diagnosed=diagnosed, notes=self.diagnosis_notes)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from pytest_overfit.text.notebook import notebook_html

        curve = self.record.curves.get("objective", ())
        return notebook_html(run_headline(self.record), self.findings, self.causes, curve, passed=self.passed)

    def check(self) -> None:
        """Raises an AssertionError that names every missed criterion and its cause; silent when all hold."""
        if not self.passed:
            __tracebackhide__ = True
            raise AssertionError(self.failure_text())


def advised(findings: Sequence[Finding], causes: Sequence[Cause]) -> tuple[Finding, ...]:
    """The findings without what to try next where a cause says what to change: no two lines of a report contradict.

    What stands (a run that was cut short) and how a cause is declared to be meant are the criterion's own to say.
    """
    return tuple(
        replace(finding, hint=None) if causes and not finding.hint_stands and finding.name != DEFECTS else finding
        for finding in findings
    )


def of_seeds(results: Sequence[OverfitResult], *, needed: int) -> OverfitResult:
    """One result of the runs of several seeds: the worst finding of each criterion, and the run that did worst.

    Args:
        needed: how many of them have to pass.
    """
    last = results[-1]
    if last.record.stop == "hung":  # which no number of other seeds makes good
        red = [finding.name for finding in last.findings if finding.missed]
        return replace(last, findings=(*last.findings, unjudged("seeds", *red[:1])), runs=tuple(results))
    if last.record.stop == "interrupted":  # whatever the others came to
        return replace(last, runs=tuple(results))
    findings = combine([(r.record.seed, r.findings) for r in results], needed=needed)
    worst = min(results, key=lambda r: (r.passed, float("inf") if r.margin is None else r.margin))
    not_asked = tuple(dict.fromkeys(each for result in results for each in result.not_asked))
    return replace(worst, findings=advised(findings, worst.causes), runs=tuple(results), not_asked=not_asked)
