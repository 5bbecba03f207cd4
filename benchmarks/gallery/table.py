"""What every case of the gallery came to, row by row, and what has got worse against a committed table."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

TABLE = Path(__file__).with_name("table.csv")

Kind = Literal["breaking", "silent", "healthy"]
Verdict = Literal["detected", "missed", "passed", "blamed", "raised"]
Right = Literal["first", "in three", "no", ""]
Difference = Literal["worse", "better", "other", "same"]
Key = tuple[str, int]

GOOD: Mapping[str, frozenset[str]] = {
    "breaking": frozenset({"detected", "raised"}),
    "silent": frozenset({"detected", "raised"}),
    "healthy": frozenset({"passed"}),
}
NAMED: Mapping[str, int] = {"first": 2, "in three": 1, "no": 0, "": 0}


@dataclass(frozen=True)
class Row:
    """One case at one seed.

    ``by`` are the criteria that were missed, or the exception of a run that raised. ``causes`` are the best three, and
    ``right`` says where among them the first right one stands; a healthy case has none that is right.
    """

    case: str
    seed: int
    kind: Kind
    verdict: Verdict
    by: str
    causes: str
    right: Right

    @property
    def key(self) -> Key:
        return self.case, self.seed

    def __str__(self) -> str:
        """The row in words, as the lines of a comparison show it."""
        told = f"{self.verdict} ({self.by})" if self.by else self.verdict
        return f"{told}, {self.causes or 'no cause'}" + (f", right: {self.right}" if self.right else "")


@dataclass(frozen=True)
class Change:
    """A row beside its entry in the table; ``now`` is missing where the case is gone, ``before`` where it is new."""

    difference: Difference
    key: Key
    before: Row | None
    now: Row | None

    def __str__(self) -> str:
        case, seed = self.key
        before = self.before or "no entry in the table: --write-table"
        now = self.now or "no such case, or it was not run: --write-table"
        return f"{self.difference:6} {case} seed {seed}\n         before  {before}\n         now     {now}"


def compare(table: Mapping[Key, Row], rows: Iterable[Row], expected: Iterable[Key]) -> list[Change]:
    """Every row that is not as its entry, and every expected one that was not run; the worse ones first.

    A row without an entry is worse: nobody has said yet that it is right. So is an expected key without a row.
    Further causes come and go with the seconds that trials get: all 834 rows twice, on a machine that did two and then
    fifteen things at once (2026-11-28), gave four other rows and none that was worse.
    """
    ran = {row.key: row for row in rows}
    changes = [Change(_difference(table.get(key), row), key, table.get(key), row) for key, row in ran.items()]
    changes += [Change("worse", key, table.get(key), None) for key in dict.fromkeys(expected) if key not in ran]
    order = ("worse", "better", "other")
    return sorted((each for each in changes if each.difference in order), key=lambda each: order.index(each.difference))


def _difference(before: Row | None, now: Row) -> Difference:
    """Worse: a verdict that is no longer right, an exception of another type, a cause that is named later or not."""
    if before is None:
        return "worse"
    if now.verdict == "raised" and (before.verdict, before.by) != ("raised", now.by):
        return "worse"
    scores = list(zip(_scores(before), _scores(now), strict=True))
    if any(new < old for old, new in scores):
        return "worse"
    if any(new > old for old, new in scores):
        return "better"
    return "same" if before == now else "other"


def _scores(row: Row) -> tuple[bool, int, bool]:
    """Right verdict, how early a right cause is named, and nothing held against what is healthy."""
    return row.verdict in GOOD[row.kind], NAMED[row.right], row.kind != "healthy" or not row.causes


def merge(table: Mapping[Key, Row], rows: Iterable[Row], known: Iterable[str]) -> dict[Key, Row]:
    """The table with new rows in place of old ones, without the cases that are gone, in the order of ``known``."""
    order = {case: place for place, case in enumerate(known)}
    both = {**table, **{row.key: row for row in rows}}
    return {key: both[key] for key in sorted(both, key=lambda key: (order.get(key[0], 0), key[1])) if key[0] in order}


def read(path: Path) -> dict[Key, Row]:
    """The rows of a table by case and seed; none where there is no table yet."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        entries: list[dict[str, Any]] = [{**entry, "seed": int(entry["seed"])} for entry in csv.DictReader(lines)]
    rows = [Row(**entry) for entry in entries]
    if len({row.key for row in rows}) != len(rows):
        raise ValueError(f"{path} has a case and seed twice")
    return {row.key: row for row in rows}


def write(rows: Iterable[Row], path: Path) -> None:
    """A line per row, so that a change of the table reads as a diff."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


Case = TypeVar("Case")


def sample(cases: Sequence[Case], count: int, place: Mapping[Case, str]) -> list[Case]:
    """``count`` cases, spread evenly over the places and by a checksum of the name within one: always the same."""
    ordered = sorted(cases, key=lambda case: (place[case], zlib.crc32(str(case).encode())))
    step = len(ordered) / min(count, len(ordered)) if ordered and count > 0 else 0
    return [ordered[int(index * step)] for index in range(min(count, len(ordered)))] if step else []
