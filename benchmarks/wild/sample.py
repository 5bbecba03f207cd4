"""Which cases a report is made of: operators in turn, each over programs in a seeded order, library by library."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.wild.case import Program
from benchmarks.wild.measure import Dropped, Judge, Row, Tried, case_of, healthy_case, judged
from benchmarks.wild.operators.operator import Operator
from benchmarks.wild.pool import Ended, run_all

TRIES = 12  # programs that an operator tries in one turn


@dataclass
class Drawn:
    """The cases of a sample, and what was dropped on the way by operator."""

    rows: list[Row] = field(default_factory=list)
    dropped: dict[str, list[Dropped]] = field(default_factory=dict)


def order(programs: Sequence[Program], seed: str) -> list[Program]:
    """The programs, the first of every library before the second of any."""
    source = random.Random(seed)
    by_library: dict[str, list[Program]] = {}
    for program in programs:
        by_library.setdefault(program.library, []).append(program)
    groups = list(by_library.values())
    source.shuffle(groups)
    for group in groups:
        source.shuffle(group)
    return [group[place] for place in range(max(map(len, groups), default=0)) for group in groups if place < len(group)]


def draw(
    operators: Sequence[Operator],
    programs: Sequence[Program],
    count: int,
    *,
    seed: int,
    jobs: int,
    seconds: float,
    tell: Callable[[Row], None],
    judge: Judge = judged,
) -> Drawn:
    """``count`` cases, or all there are: one of every operator, then a second one, and so on.

    The answer depends on the seed alone, not on how many processes share the work.
    """
    drawn = Drawn()
    left = {each.id: [p for p in order(programs, f"{seed} {each.id}") if each.needs <= p.traits] for each in operators}
    turns = list(operators)
    random.Random(seed).shuffle(turns)
    while len(drawn.rows) < count and any(left.values()):
        asked = [each for each in turns if left[each.id]][: count - len(drawn.rows)]
        works = [functools.partial(case_of, each, left[each.id][:TRIES], seed, judge) for each in asked]
        for mistake, ended in zip(asked, run_all(works, jobs, seconds), strict=True):
            tried = _tried(ended, left[mistake.id])
            drawn.dropped.setdefault(mistake.id, []).extend(tried.dropped)
            left[mistake.id] = left[mistake.id][len(tried.dropped) + (tried.row is not None) :]
            if tried.row is not None:
                drawn.rows.append(tried.row)
                tell(tried.row)
    return drawn


def _tried(ended: Ended, programs: Sequence[Program]) -> Tried:
    """The answer of a turn; a case that never ended is a case, a check that never ended is none."""
    if isinstance(ended.answer, Tried):
        return ended.answer
    if isinstance(ended.told, Row):
        names = [program.name for program in programs]
        before = [Dropped(name, "see above") for name in names[: names.index(ended.told.program)]]
        return Tried(before, replace(ended.told, raised=ended.why))
    return Tried([Dropped(program.name, ended.why) for program in programs[:TRIES]])


def healthy_rows(
    programs: Sequence[Program], *, seed: int, jobs: int, seconds: float, tell: Callable[[Row], None]
) -> list[Row]:
    """Every program as it is."""
    rows: list[Row] = []
    works = [functools.partial(_healthy, program, seed) for program in programs]
    for program, ended in zip(programs, run_all(works, jobs, seconds), strict=True):
        is_row = isinstance(ended.answer, Row)
        rows.append(ended.answer if is_row else Row(program.name, program.library, raised=ended.why))
        tell(rows[-1])
    return rows


def _healthy(program: Program, seed: int, tell: Callable[[object], None]) -> Row:
    return healthy_case(program, seed)
