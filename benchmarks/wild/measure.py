"""One case: a program with or without a mistake, checked in a plain loop and then run under the plugin."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from benchmarks.wild.case import Program
from benchmarks.wild.check import EARLY, Effect, Plain, effect, train
from benchmarks.wild.operators.operator import Operator, Setup, broken, healthy
from benchmarks.wild.operators.trace import trace_of

LONG = 100  # steps from which on a passing run counts for the cost


@dataclass(frozen=True)
class Said:
    """A cause as it was said."""

    id: str
    strength: str
    certain: bool
    where: str
    observed: str
    advice: str


@dataclass(frozen=True)
class Row:
    """What became of one case.

    Attributes:
        operator: empty where the program is healthy.
        effect: what a plain loop says of the mistake.
        right: the causes that are right, and ``where`` the mistake is.
        plain: what the plain loop reached.
        missed: the criteria that were missed.
        first_line: of the failure.
        raised: the exception, or that it hung, in place of a result.
        broke: questions of the plugin that broke by a mistake of its own.
        cost: seconds of CPU over those of the same run without a diagnosis, where both passed after enough steps.
    """

    program: str
    library: str
    operator: str = ""
    kind: str = ""
    effect: Literal["healthy", "breaks", "silent"] = "healthy"
    right: tuple[str, ...] = ()
    where: str = ""
    plain: float = math.nan
    passed: bool = False
    missed: tuple[str, ...] = ()
    first_line: str = ""
    causes: tuple[Said, ...] = ()
    raised: str = ""
    broke: tuple[str, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    cost: float | None = None

    @property
    def case(self) -> str:
        """What the case is called."""
        return f"{self.program} {self.operator}".strip()

    @property
    def detected(self) -> bool:
        """The plugin gave a verdict, and that was red."""
        return not self.passed and not self.raised

    def right_among(self, count: int) -> bool:
        """Whether one of the first causes is right."""
        return self.detected and any(cause.id in self.right for cause in self.causes[:count])


def row_from(entry: dict[str, Any]) -> Row:
    """A row as ``asdict`` and JSON leave it."""
    causes = tuple(Said(**cause) for cause in entry["causes"])
    tuples = {name: tuple(entry[name]) for name in ("right", "missed", "broke")}
    return Row(**{**entry, **tuples, "causes": causes})


@dataclass(frozen=True)
class Dropped:
    """A mistake that has no place in a program, or is no case there."""

    program: str
    why: str


Judge = Callable[[Row, dict[str, Any], int], Row]


@dataclass
class Tried:
    """How a mistake went over several programs, until one of them made a case of it."""

    dropped: list[Dropped] = field(default_factory=list)
    row: Row | None = None


def case_of(
    mistake: Operator, programs: Sequence[Program], seed: int, judge: Judge, tell: Callable[[Row], None]
) -> Tried:
    """The first of the programs on which the mistake is a case, run under the plugin.

    Args:
        judge: runs it: ``judged``.
        tell: told of the case before the plugin runs, so that a run which never ends has a name.
    """
    tried = Tried()
    for program in programs:
        try:
            row = checked(mistake, program, seed)
        except Exception as error:  # a mistake that stops the user's own loop is seen without any tool
            row = f"raises {type(error).__name__}: {str(error)[:80]}"
        if isinstance(row, str):
            tried.dropped.append(Dropped(program.name, row))
            continue
        tell(row)
        made = broken(program, mistake, trace_of(program, seed), seed)
        assert made is not None
        tried.row = judge(row, _call(program, made[0]), seed)
        return tried
    return tried


def checked(mistake: Operator, program: Program, seed: int) -> Row | str:
    """The case without the plugin's words, or why it is none."""
    if not mistake.needs <= program.traits:
        return "traits"
    trace = trace_of(program, seed)
    made = broken(program, mistake, trace, seed)
    if made is None:
        return "no place"
    setup, where = made
    found, plain = effect_of(program, setup, seed)
    if found == "nothing" or found not in mistake.counts:
        return found
    return Row(
        program.name, program.library, mistake.id, mistake.kind, found, mistake.causes, where, plain.reached
    )  # fmt: skip


def effect_of(program: Program, setup: Setup, seed: int) -> tuple[Effect, Plain]:
    """What a mistake does: the broken run whole, and of the healthy one the first steps beside it."""
    plain = train(program, setup, seed)
    if not plain.learns(program.limit):
        return "breaks", plain
    early = train(replace(program, steps=EARLY), healthy(program, seed), seed)
    return effect(program, early, plain), plain


def healthy_case(program: Program, seed: int) -> Row:
    """A program as it is, under the plugin; what a plain loop reaches where it was not passed."""
    row = Row(program.name, program.library)
    bare = None
    if program.steps >= LONG:
        bare = judged(row, {**healthy_call(program, seed), "diagnose": False}, seed)
    row = judged(row, healthy_call(program, seed), seed)
    if row.passed and bare is not None and bare.passed and min(row.steps, bare.steps) >= LONG:
        row = replace(row, cost=row.seconds / bare.seconds)
    if not row.passed:
        row = replace(row, plain=train(program, healthy(program, seed), seed).reached)
    return row


def healthy_call(program: Program, seed: int) -> dict[str, Any]:
    """The arguments of ``run_overfit`` for a program as it is."""
    call = _call(program, healthy(program, seed))
    return call if program.own_call is None else {**call, **program.own_call()}


def _call(program: Program, setup: Setup) -> dict[str, Any]:
    """The arguments of ``run_overfit`` that a user would give."""
    own: dict[str, Any] = {"loss": setup.loss} if setup.step is None else {"step": setup.step}
    if setup.optimizer is None:
        own["optimizer"] = lambda parameters: program.optimizer(parameters, program.lr)
    else:
        own["optimizer"] = setup.optimizer
    limits = {"objective": program.limit, "max_steps": program.steps}
    return {"model": setup.model, "data": setup.batch, **own, **limits, **setup.given}


def judged(row: Row, call: dict[str, Any], seed: int) -> Row:
    """The row with what the plugin said."""
    from pytest_overfit import run_overfit

    started = time.process_time()
    try:
        result = run_overfit(**call, seeds=(seed,))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        said = (str(error).strip().splitlines() or [""])[0]
        return replace(
            row, raised=f"{type(error).__name__}: {said[:200]} [{at}]", seconds=time.process_time() - started
        )
    causes = tuple(
        Said(each.id, each.strength, each.certain, each.where, each.observed, each.advice) for each in result.causes
    )
    lines = [line for line in result.failure_text().splitlines() if line.strip()] if not result.passed else [""]
    return replace(
        row,
        passed=result.passed,
        missed=tuple(each.name for each in result.findings if each.missed),
        first_line=lines[0],
        causes=causes,
        broke=tuple(each.text() for each in result.not_asked if each.ours),
        steps=result.record.steps,
        seconds=time.process_time() - started,
    )


def entry_of(row: Row) -> dict[str, Any]:
    """A row as JSON has it."""
    return asdict(row)
