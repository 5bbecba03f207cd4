"""The split is stable and covers, and the command reports on a tiny sample without any public library."""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.wild import __main__ as command
from benchmarks.wild.measure import Row, Said, entry_of, healthy_case, row_from
from benchmarks.wild.operators import BY_ID, OPERATORS
from benchmarks.wild.pool import run_all
from benchmarks.wild.report import detail, line, table
from benchmarks.wild.sample import draw, order
from benchmarks.wild.split import part_of_library, parts_of_operators
from tests.benchmarks.wild.programs import PROGRAMS, TOKENS

LIBRARIES = [
    "timm", "transformers", "diffusers", "gpytorch", "peft", "kornia", "zuko", "e3nn", "lightly",
    "monai", "normflows", "torchvision", "pyro",
]  # fmt: skip


def test_every_kind_has_both_parts() -> None:
    """Some operators of every kind, a quarter and more of all are held out, and the same ones at every call."""
    parts = parts_of_operators()
    assert parts == parts_of_operators(reversed(OPERATORS))
    by_kind = Counter((each.kind, parts[each.id]) for each in OPERATORS)
    assert all(by_kind[each.kind, part] for each in OPERATORS for part in ("tuned", "held-out"))
    assert 4 * sum(part == "held-out" for part in parts.values()) >= len(parts)


def test_libraries_do_not_move() -> None:
    """By name alone, except for those that were looked at: these are the parts that the numbers in README are of."""
    parts = {library: part_of_library(library) for library in LIBRARIES}
    assert {name for name, part in parts.items() if part == "held-out"} == {"monai", "normflows", "torchvision", "pyro"}


def test_libraries_take_turns() -> None:
    """The first of every library comes before the second of any."""
    many = [replace(TOKENS, name=f"{library}/{place}", library=library) for library in "ab" for place in range(3)]
    drawn = [each.library for each in order(many, "0")]
    assert sorted(drawn[:2]) == sorted(drawn[2:4]) == ["a", "b"]
    assert order(many, "0") == order(many, "0") != order(many, "1")


def test_sample_does_not_depend_on_the_processes() -> None:
    """One case of each operator before a second of any, in one process or in three."""
    mistakes = [BY_ID[name] for name in ("step_forgotten", "sign_swapped", "tie_lost")]
    told: list[Row] = []
    both = [
        draw(mistakes, [TOKENS], 5, seed=0, jobs=jobs, seconds=300, tell=told.append, judge=_blind) for jobs in (1, 3)
    ]
    assert [row.case for row in both[0].rows] == [row.case for row in both[1].rows] == [r.case for r in told[:3]]
    assert {row.operator for row in both[0].rows} == {each.id for each in mistakes}


def _blind(row: Row, call: Any, seed: int) -> Row:
    """In place of the plugin: no word."""
    return replace(row, passed=True)


def test_work_that_dies_or_hangs_is_told() -> None:
    """The other pieces of work give their answers, and what was told on the way is kept."""

    def hang(tell: Callable[[Any], None]) -> None:
        tell("on it")
        time.sleep(600)

    def die(tell: Callable[[Any], None]) -> None:
        raise SystemExit(3)

    def fail(tell: Callable[[Any], None]) -> None:
        raise ValueError("no such layer")

    ended = list(run_all([hang, die, functools.partial(_answer, 7), fail], jobs=4, seconds=5))
    assert [each.answer for each in ended] == [None, None, 7, None]
    assert ended[3].why == "outside of the plugin: ValueError: no such layer"
    assert (ended[0].told, ended[0].why) == ("on it", "no end after 5 s")
    assert ended[1].why == "the process died"


def _answer(value: int, tell: Callable[[Any], None]) -> int:
    return value


def row(**more: Any) -> Row:
    """A case that was found by its second cause."""
    said = [Said(name, "shown", True, "model.head", "numbers", "a line") for name in ("unused", "no-gradient")]
    given: dict[str, Any] = {
        "operator": "features_detached",
        "plain": 0.5,
        "effect": "silent",
        "right": ("no-gradient",),
    }
    return Row(
        **{
            "program": "timm/A",
            "library": "timm",
            **given,
            "causes": tuple(said),
            "first_line": "1 of 7 criteria missed",
            **more,
        }
    )


def test_table_counts() -> None:
    """Detected, first and among three, false alarms, crashes and the cost, each of what it is of."""
    rows = [
        row(),
        row(passed=True),
        row(raised="ValueError: no"),
        row(effect="breaks"),
        row(operator="", effect="healthy", passed=True, cost=1.1),
        row(operator="", effect="healthy", passed=True, cost=1.3, broke=("not asked",)),
        row(operator="", effect="healthy", program="timm/B"),
    ]
    name, cases, detected, breaking, silent, first, three, well, alarms, crashes, cost = line("tuned", rows)
    assert (name, cases, detected, breaking, silent) == ("tuned", "4", "2/4 50%", "1/1 100%", "1/3 33%")
    assert (first, three) == ("0/4 0% (0%)", "2/4 50% (100%)")
    assert (well, alarms, crashes, cost) == ("3", "1/3 33%", "1 + 1", "1.20x of 2")
    assert "| tuned " in table([line("tuned", rows)])


def test_mistakes_in_red_programs_do_not_count() -> None:
    """Who is red without a mistake has not found one."""
    alarm = row(operator="", effect="healthy", right=())
    assert line("tuned", [row(), row(program="timm/B"), alarm])[1:3] == ("1 + 1", "1/1 100%")
    assert line("tuned", [row(), row(program="timm/B")])[1:3] == ("2", "2/2 100%")


def test_rows_survive_json() -> None:
    """What was said can be judged later."""
    given = row(broke=("a question",))
    assert row_from(json.loads(json.dumps(entry_of(given)))) == given
    assert "THIRD timm/A features_detached: silent" in detail(given)
    assert "where: model.head" in detail(given)


def test_healthy_case_is_passed() -> None:
    """The healthy program under the plugin, with what that costs."""
    seen = healthy_case(TOKENS, 0)
    assert (seen.passed, seen.raised, seen.broke) == (True, "", ())


@pytest.fixture
def of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of this folder in place of those of public libraries."""
    programs = tuple(replace(each, library="timm") for each in PROGRAMS)
    monkeypatch.setattr(command, "_collected", lambda only: programs)


@pytest.mark.usefixtures("of_torch")
def test_command_reports_a_tiny_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cases of the tuned part, written, read and shown."""
    file = tmp_path / "rows.json"
    assert command.main(["--part", "tuned", "--sample", "2", "--jobs", "2", "--write", str(file)]) == 0
    ran = capsys.readouterr().out
    assert "| tuned | 2 " in ran
    assert command.main(["--part", "tuned", "--read", str(file), "--show", "tuned"]) == 0
    shown = capsys.readouterr().out
    assert ran.splitlines()[-6:] == shown.splitlines()[-6:]
    assert shown.count("right: ") == 2


@pytest.mark.usefixtures("of_torch")
def test_held_out_cases_are_not_shown_by_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Who looks has to say so, and is told what follows."""
    assert command.main(["--show", "held-out"]) == 2
    assert "move over" in capsys.readouterr().out


@pytest.mark.usefixtures("of_torch")
def test_list_names_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """Every operator with its part, causes and sentence, every library with its part."""
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(each.id in listed for each in OPERATORS)
    assert "timm" in listed
