"""The table of the gallery: a row that got worse is seen, one that did not fails nobody, and none is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gallery.table import Change, Row, compare, merge, read, sample, write

BUG = Row("mlp/flipped", 0, "silent", "detected", "objective defects", "leak capacity", "first")
HEALTHY = Row("mlp", 0, "healthy", "passed", "", "", "")
TABLE = {BUG.key: BUG, HEALTHY.key: HEALTHY}


def only_change(now: Row, before: Row | None = None) -> Change:
    """The one change that a comparison of one row with its entry finds."""
    table = TABLE if before is None else {before.key: before}
    (change,) = compare(table, [now], [now.key])
    assert (change.before, change.now) == (table[now.key], now)
    return change


@pytest.mark.parametrize(
    "now",
    [
        replace(BUG, verdict="missed", by=""),
        replace(BUG, right="in three", causes="capacity leak"),
        replace(BUG, right="no", causes="capacity"),
        replace(BUG, verdict="raised", by="KeyError", causes="", right="no"),
        replace(BUG, verdict="raised", by="KeyError"),
        replace(HEALTHY, verdict="blamed", by="objective"),
        replace(HEALTHY, causes="leak"),
        replace(HEALTHY, verdict="raised", by="KeyError"),
    ],
    ids=str,
)
def test_worse(now: Row) -> None:
    """What is no longer detected, named later or not, blamed, or raises."""
    assert only_change(now).difference == "worse"


@pytest.mark.parametrize(
    "before",
    [
        replace(BUG, verdict="missed", by=""),
        replace(BUG, right="in three", causes="capacity leak"),
        replace(BUG, right="no", causes="capacity"),
        replace(BUG, verdict="raised", by="KeyError", causes="", right="no"),
        replace(HEALTHY, verdict="blamed", by="objective"),
        replace(HEALTHY, causes="leak"),
        replace(HEALTHY, verdict="raised", by="KeyError"),
    ],
    ids=str,
)
def test_better(before: Row) -> None:
    """The same differences the other way round are told, and fail nothing."""
    assert only_change(HEALTHY if before.kind == "healthy" else BUG, before).difference == "better"


@pytest.mark.parametrize(
    "now", [replace(BUG, by="objective"), replace(BUG, causes="leak symmetry"), replace(BUG, causes="symmetry leak")]
)
def test_otherwise(now: Row) -> None:
    """Other criteria, and other causes that are right in the same place."""
    assert only_change(now).difference == "other"


def test_a_worse_name_of_a_bug_that_is_detected_now_is_worse() -> None:
    """What got better makes up for nothing."""
    assert only_change(replace(BUG, right="no"), replace(BUG, verdict="missed")).difference == "worse"


def test_an_exception_that_is_known_is_a_detection() -> None:
    """What the user's code raises comes through; another type is a crash until somebody has looked."""
    raising = replace(BUG, verdict="raised", by="ValueError", causes="", right="no")
    assert compare({raising.key: raising}, [raising], [raising.key]) == []
    assert only_change(replace(raising, by="KeyError"), raising).difference == "worse"


def test_equal_rows_are_no_change() -> None:
    """And entries that nobody asked for are none either."""
    assert compare(TABLE, [BUG, HEALTHY], TABLE) == []
    assert compare(TABLE, [BUG], [BUG.key]) == []


def test_a_row_without_an_entry_is_worse() -> None:
    """Another seed of a known case is without an entry, too."""
    row = replace(BUG, seed=1)
    (change,) = compare(TABLE, [row], [row.key])
    assert (change.difference, change.before, change.now) == ("worse", None, row)
    assert "no entry" in str(change)


def test_an_expected_row_that_was_not_run_is_worse() -> None:
    """With an entry and without one."""
    gone = ("mlp/gone", 0)
    changes = compare(TABLE, [BUG], [BUG.key, HEALTHY.key, gone])
    assert [(each.difference, each.key, each.now) for each in changes] == [
        ("worse", HEALTHY.key, None),
        ("worse", gone, None),
    ]


def test_a_change_names_case_before_and_now() -> None:
    """Worse ones stand first."""
    table = {**TABLE, ("mlp", 1): replace(HEALTHY, seed=1, verdict="blamed", by="finite", causes="leak")}
    rows = [replace(HEALTHY, seed=1), replace(BUG, verdict="missed", by="", causes="", right="no")]
    assert [str(change) for change in compare(table, rows, [])] == [
        "worse  mlp/flipped seed 0\n"
        "         before  detected (objective defects), leak capacity, right: first\n"
        "         now     missed, no cause, right: no",
        "better mlp seed 1\n         before  blamed (finite), leak\n         now     passed, no cause",
    ]


def test_rows_survive_the_file(tmp_path: Path) -> None:
    """Written and read again; no file is an empty table; a key twice is refused."""
    path = tmp_path / "table.csv"
    assert read(path) == {}
    write(TABLE.values(), path)
    assert read(path) == TABLE
    write([BUG, replace(BUG, right="no")], path)
    with pytest.raises(ValueError, match="twice"):
        read(path)


def test_merge_replaces_adds_and_drops() -> None:
    """In the order of the known cases, then by seed."""
    other = Row("mlp/new", 1, "breaking", "detected", "finite", "", "no")
    now = replace(BUG, right="no")
    assert list(merge(TABLE, [other, replace(other, seed=0), now], ["mlp/new", "mlp/flipped"]).values()) == [
        replace(other, seed=0),
        other,
        now,
    ]


def test_a_sample_is_even_and_always_the_same() -> None:
    """Every place gives its share, whatever the order of the cases."""
    place = {f"{name}{number}": name for name, size in (("a", 50), ("b", 30), ("c", 20)) for number in range(size)}
    chosen = sample(list(place), 10, place)
    assert Counter(place[case] for case in chosen) == {"a": 5, "b": 3, "c": 2}
    assert sample(sorted(place, reverse=True), 10, place) == chosen
    assert chosen != sorted(chosen)
    assert sample(list(place), 1000, place) != chosen
    assert sorted(sample(list(place), 1000, place)) == sorted(place)
