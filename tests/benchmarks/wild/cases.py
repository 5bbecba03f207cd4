"""What every set of operators is asked for: each is a case on a program of torch alone, by the plain loop."""

from __future__ import annotations

from benchmarks.wild.case import Program
from benchmarks.wild.measure import Row, checked
from benchmarks.wild.operators import BY_ID


def written_in(modules: str) -> set[str]:
    """The operators of the modules whose name begins so."""
    return {each.id for each in BY_ID.values() if f".operators.{modules}" in each.apply.__module__}


def assert_case(name: str, program: Program, effect: str) -> None:
    """The limit is missed, or met by another training."""
    row = checked(BY_ID[name], program, 0)
    assert isinstance(row, Row), row
    assert row.effect == effect
    assert row.where
