"""Everything that is known of one overfit run, as one record: what every page, table and gate reads.

A document is written at the start of a run, again every few seconds, and when the verdict is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_overfit.judge.finding import Finding
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.failure import first_line

VERSION = 1
State = Literal["running", "finished", "interrupted", "killed", "not_run"]


@dataclass(frozen=True)
class SettingRow:
    """One resolved setting of a run, and where its value comes from."""

    setting: str
    value: str
    source: str


@dataclass(frozen=True)
class PairView:
    """One view of the pair: scene, image file name, and the share of its pixels that supervise the depth."""

    scene: str
    image: str
    valid: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Pair:
    """The pair of a config run: its sequence name and its views."""

    seq_name: str
    views: tuple[PairView, ...] = ()


@dataclass(frozen=True)
class Change:
    """One number of a run against the same number of a saved run; ``ratio`` is now over then.

    ``spread`` are the smallest and the largest ratio over the seeds that both have; ``seeds`` how many these are (0:
    none in common, medians are compared). ``moved`` says that all seeds lie beyond ``TOLERANCE`` on one side.
    Of a golden curve the numbers are the losses at ``step``, the first where they lie apart by more than is allowed,
    and ``ratio`` is by how much, relative.
    """

    quantity: str
    then: float
    now: float
    ratio: float
    spread: tuple[float, float]
    seeds: int
    moved: bool
    allowed: float | None = None
    step: int | None = None

    @property
    def broken(self) -> bool:
        """Whether it grew, or a curve went apart, by more than was allowed."""
        return self.allowed is not None and not self.ratio <= self.allowed


@dataclass(frozen=True)
class Curve:
    """A curve of a saved run, thinned: ``steps`` counted from 1."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """A run against the saved run of the same test: what moved, and the saved curves to lay over the new ones.

    ``settings`` are those of the run that are not the same, ``otherwise`` what the two ran on: name -> then and now.
    A setting that one of the two does not have is an empty text there.
    """

    name: str
    saved: str
    changes: tuple[Change, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    note: str | None = None
    otherwise: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def differences(self) -> Mapping[str, tuple[str, str]]:
        """What changed between the two beside their numbers, settings first: name -> then and now."""
        return {**self.settings, **self.otherwise}


@dataclass(frozen=True)
class Document:
    """One overfit run: a config file's, or one call of ``overfit``.

    Example:
        >>> document = read_document("overfit_report/runs/quick.yaml-1f0c2a9b/record.json")       # doctest: +SKIP
        >>> document.verdict, document.result.record.steps                                      # doctest: +SKIP
        ('passed', 175)

    Args:
        id: name of the folder of the run; letters, digits, dot, dash and underscore.
        title: the config file, or the test, as pytest names it; ``call`` counts the calls of one test from 1.
        session: tells the runs of one session from those of another.
        state: ``running`` and ``killed`` have what was known until then; ``not_run`` never got as far as a run.
        started, written: local time with its offset, ISO 8601.
        result: findings, causes, evidence and curves; while the run goes, its curves so far and no findings.
        checks: findings about what comes before a run: the config, the pair, the loader.
        limits: term of the curves -> what it has to reach.
        pictures: PNG and SVG files beside the record.
        command: repeats the run.
        places: criterion -> ``file:line`` of what failed: of the key of a config; the call of a test under no name.
        times: phase -> seconds, of all seeds together.
        error: what kept a run from being one, or ended it.
    """

    id: str
    title: str
    session: str
    state: State
    started: str
    written: str
    call: int = 1
    result: OverfitResult | None = None
    checks: tuple[Finding, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)
    settings: tuple[SettingRow, ...] = ()
    pair: Pair | None = None
    pictures: tuple[str, ...] = ()
    comparison: Comparison | None = None
    command: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    version: int = VERSION

    @property
    def verdict(self) -> Literal["passed", "failed"]:
        """A gate has two outcomes: what is not finished has not passed."""
        held = self.result is not None and self.result.passed and not any(check.missed for check in self.checks)
        return "passed" if held and self.state == "finished" else "failed"

    @property
    def cut(self) -> bool:
        """Whether it was interrupted before anything was missed: no pass, and no failure to be counted as one."""
        return self.state == "interrupted" and not any(finding.missed for finding in self.findings)

    @property
    def first_line(self) -> str:
        """What was missed and why, as the terminal begins to tell it; empty where nothing was."""
        return first_line(self.findings, self.result.causes if self.result else (), self.error)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those before the run, then those of the run."""
        return (*self.checks, *(self.result.findings if self.result else ()))

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """One record per seed."""
        return () if self.result is None else tuple(run.record for run in self.result.runs or (self.result,))

    @property
    def setting_values(self) -> Mapping[str, str]:
        """Setting -> value, as text."""
        return {row.setting: row.value for row in self.settings}


def limits_of(limits: Mapping[str, Limit], record: RunRecord) -> dict[str, Limit]:
    """Criterion -> limit as term of the curves -> limit; a criterion whose term the loss does not give is left out."""
    named = {record.terms.get(criterion): limit for criterion, limit in limits.items()}
    return {name: limit for name, limit in named.items() if name is not None}
