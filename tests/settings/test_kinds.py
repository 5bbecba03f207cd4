"""One definition per setting: what reads it, what the tables say of it, and what its errors allow."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.criteria_section import read_record
from pytest_overfit.settings.keywords import keys_of_a_config, table_of_settings
from pytest_overfit.settings.kinds import DEVICE, SEEDS, SWITCH, Kind, choice, number
from pytest_overfit.settings.section import Section
from pytest_overfit.settings.settings import ANY_MODEL, OverfitSettings


def undefined(record: Any, above: str = "") -> list[str]:
    """The fields of a record, and of those in it, that have no definition."""
    found = []
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value) and not isinstance(value, (type, Criteria)):
            found += undefined(value, f"{above}{field.name}.")
        elif "definition" not in field.metadata and field.name != "criteria":
            found.append(f"{above}{field.name}")
    return found


def test_every_setting_is_defined() -> None:
    """Its kind and its line of documentation stand where its type and default do."""
    assert undefined(OverfitSettings()) == []
    rows = (*table_of_settings(), *keys_of_a_config())
    assert len({row.key for row in rows}) == len(rows)
    assert all(row.help and row.kind for row in rows)


def test_the_check_of_definitions_can_fail() -> None:
    """A record without definitions is one without."""
    assert "below" in undefined(Criteria().objective)


@pytest.mark.parametrize("defaults", [OverfitSettings(), ANY_MODEL])
def test_nothing_said_is_the_default(defaults: OverfitSettings) -> None:
    """An empty section reads as the record that it starts from, without a problem."""
    section = Section({}, "overfit", [])
    assert read_record(section, defaults, Path()) == defaults
    assert section.problems == []


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (number(whole=True, at_least=1), 3, 0),
        (number(above=0, at_most=2), 1.5, 3),
        (number(whole=True, words=("auto", "keep"), at_least=1, at_most=9), "keep", "many"),
        (choice("ddp", "fsdp"), "fsdp", "dp"),
        (SWITCH, False, 2),
        (DEVICE, "cuda:1", "gpu"),
    ],
)
def test_what_is_refused_is_told_in_the_words_of_the_table(kind: Kind, good: object, bad: object) -> None:
    """One set of words: those of docs/settings.md are those of the error."""
    section = Section({"good": good, "bad": bad}, "overfit", [])
    assert kind.read(section, "good", None, Path()) == good
    assert kind.read(section, "bad", None, Path()) is None
    (problem,) = section.problems
    assert (problem.key, problem.allowed) == ("overfit.bad", kind.words)


def test_seeds_are_one_or_several() -> None:
    """Each once."""
    section = Section({"one": 4, "several": [2, "3"], "twice": [1, 1]}, "overfit", [])
    read = [SEEDS.read(section, name, (), Path()) for name in section.values]
    assert read == [(4,), (2, 3), ()]
    assert [problem.key for problem in section.problems] == ["overfit.twice"]
