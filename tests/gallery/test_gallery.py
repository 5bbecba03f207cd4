"""The gallery is what it says: every cause, enough bugs, cases that build, and a check that can fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from benchmarks.gallery.__main__ import main as gallery
from benchmarks.gallery.case import Bug, is_held_out
from benchmarks.gallery.causes import GROUPS, IDS, group_of
from benchmarks.gallery.families import FAMILIES
from benchmarks.gallery.measure import Seen, judge, judge_all, row_of
from benchmarks.gallery.registry import BUGS, CASES, PLACES
from benchmarks.gallery.table import TABLE, read, sample, write
from benchmarks.gallery.verify import run_plain, verify

FAST = (
    "missing_step", "maximize", "rate_from_integer_division", "sgd_rate_of_twenty", "prediction_against_itself",
    "objective_negated", "nan_weight", "column_against_row", "shift_missing", "random_shift_of_the_image",
    "layer_never_called", "clipped_before_backward", "depth_flipped", "batch_norm_momentum",
)  # fmt: skip


def named(name: str) -> Bug:
    return next(bug for bug in BUGS if bug.name == name)


def test_every_cause_is_the_best_answer_twice() -> None:
    """No id of the catalogue without cases, and no id that the catalogue does not have.

    A budget that is too small, and another way of executing the same, are no mistakes of a program: a plain loop of as
    many steps, executed so, fares no better. Their examples are tests in tests/diagnose.
    """
    best = Counter(bug.causes[0] for bug in BUGS)
    assert [cause for cause in IDS if best[cause] < 2] == ["few-steps", "backend"]
    assert {cause for bug in BUGS for cause in bug.causes} <= set(IDS)
    assert len(IDS) == len(set(IDS))


def test_there_are_enough() -> None:
    """The size of the gallery is part of what it proves."""
    assert len(BUGS) >= 150
    assert len({bug.family for bug in BUGS}) >= 30
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert {bug.family for bug in BUGS} <= set(FAMILIES)


def test_a_third_of_the_families_is_held_out() -> None:
    """By the name of the family alone, and in every group of causes there is something on both sides."""
    held_out = [family for family in FAMILIES if is_held_out(family)]
    assert 0.2 < len(held_out) / len(FAMILIES) < 0.45
    assert all(bug.held_out == is_held_out(bug.family) for bug in BUGS)
    assert {bug.kind for bug in BUGS if bug.held_out} == {"breaking", "silent"}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_builds(bug: Bug) -> None:
    """Every bug builds, under the declarations of its twin and within 400 steps, and says where it is."""
    broken, healthy = bug.build(0), bug.healthy(0)
    assert dict(broken.settings) == dict(healthy.settings)
    assert broken.settings["max_steps"] <= 400
    assert bug.where
    assert len(set(bug.causes)) == len(bug.causes) >= 1
    assert group_of(bug.causes[0]) in GROUPS


@pytest.mark.parametrize("name", FAST)
def test_is_what_it_says(name: str) -> None:
    """python -m benchmarks.gallery --verify does so for all of them, with three seeds."""
    assert verify(named(name), 0) == []


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [("maximize", "silent", "a plain loop misses"), ("objective_negated", "breaking", "a plain loop passes")],
)
def test_a_wrong_kind_is_found(name: str, kind: Literal["breaking", "silent"], problem: str) -> None:
    """The check can fail: by the wrong kind."""
    (found,) = verify(replace(named(name), kind=kind), 0)
    assert problem in found


def test_a_bug_without_effect_is_found() -> None:
    """The check can fail: by a bug that is its own twin."""
    bug = named("objective_negated")
    assert verify(replace(bug, build=bug.healthy), 0) == ["behaves as its twin does"]


def test_a_callable_batch_is_drawn_in_every_step() -> None:
    """Data that changes keeps a plain loop from its limit."""
    assert not run_plain(named("new_batch_in_every_step").build(0)).reached


def test_judge_reads_a_result_and_an_exception() -> None:
    """What the model raises is a detection too, told with its place."""
    missed = judge(named("missing_step").build(0), 0)
    assert not missed.passed
    assert missed.missed
    setup = named("missing_step").build(0)
    raised = judge(replace(setup, step=lambda model, batch: 1 / 0), 0)
    assert not raised.passed
    assert raised.raised.startswith("ZeroDivisionError: division by zero")


def test_the_table_has_every_case() -> None:
    """With the seeds that are run by default, and nothing that is no case."""
    table = read(TABLE)
    assert set(table) == {(case, seed) for case in CASES for seed in range(3)}
    assert all(row.kind == ("healthy" if (bug := CASES[row.case]) is None else bug.kind) for row in table.values())


def test_no_row_of_the_table_says_one_thing_and_its_contrary() -> None:
    """A rate that is too high and too low, or more steps for what is held up by something else."""
    for row in read(TABLE).values():
        causes = row.causes.split()
        assert not {"lr-high", "lr-low"} <= set(causes), row
        assert "few-steps" not in causes or len(causes) == 1, row


def test_a_sample_has_every_kind_and_file() -> None:
    """Forty cases: what the gate runs."""
    chosen = sample(list(CASES), 40, PLACES)
    assert len(set(chosen)) == 40
    for part in (0, -1):
        assert {PLACES[case].split()[part] for case in chosen} == {place.split()[part] for place in PLACES.values()}


def test_rows_are_what_runs_said() -> None:
    """Of a bug and of a healthy family, in two processes as in one."""
    keys = [(named("missing_step").case, 0), ("mlp_classification", 0)]
    rows = [row_of(key, seen) for key, seen in judge_all(keys).items()]
    assert rows == [row_of(key, seen) for key, seen in judge_all(keys, jobs=2).items()]
    assert [(row.key, row.kind, row.verdict, row.right) for row in rows] == [
        (keys[0], "breaking", "detected", "first"),
        (keys[1], "healthy", "passed", ""),
    ]
    assert rows == [read(TABLE)[key] for key in keys]


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    """The gallery of one bug and its family, beside a table of its own that agrees."""
    arguments = ["--seeds", "1", "--only", named("missing_step").case, "--table", str(tmp_path / "table.csv")]
    assert gallery([*arguments, "--write-table"]) == 0
    return arguments


def test_the_command_ends_well_beside_rows_that_are_equal_or_got_better(
    call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And names those that got better."""
    assert gallery(call) == 0
    path = Path(call[-1])
    write([replace(row, verdict="missed", by="", right="no", causes="") for row in read(path).values()], path)
    capsys.readouterr()
    assert gallery(call) == 0
    assert f"better {named('missing_step').case} seed 0" in capsys.readouterr().out


def test_the_command_fails_on_a_row_that_got_worse(
    call: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a plugin that has gone blind."""
    monkeypatch.setattr("benchmarks.gallery.measure.judge", lambda setup, seed: Seen(True, (), (), "", 0.0))
    capsys.readouterr()
    assert gallery(call) == 1
    assert f"worse  {named('missing_step').case} seed 0" in capsys.readouterr().out


def test_the_command_fails_on_a_table_that_has_other_cases(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An entry whose case is gone, and no entry at all; --write-table mends both."""
    path = Path(call[-1])
    write([*read(path).values(), replace(read(path)[named("missing_step").case, 0], case="none/such")], path)
    assert gallery(call) == 1
    assert "worse  none/such seed 0" in capsys.readouterr().out
    path.unlink()
    assert gallery(call) == 1
    assert gallery([*call, "--write-table"]) == 0
    assert gallery(call) == 0
