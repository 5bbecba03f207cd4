"""Saved runs, and what a new run is found to differ in."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.report.record.document import Change
from pytest_overfit.report.record.regression import change_text, regression
from pytest_overfit.report.record.saved import (
    POINTS,
    Saved,
    SavedRun,
    SavedSeed,
    checked_name,
    compare,
    parse_allowed,
    path_of,
    read_saved,
    saved_of,
    write_saved,
)
from tests.report.record.runs import FAILING, PASSING, document, result


def saved(seeds: tuple[int, ...] = (0,)) -> Saved:
    return saved_of("main", [document(result(seeds=seeds))], when="then")


def slower(base: Saved, factor: float) -> Saved:
    """As if the saved runs had taken ``1 / factor`` of the steps."""
    run = base.runs[0]
    seeds = tuple(replace(s, steps_to_pass=round((s.steps_to_pass or 0) / factor)) for s in run.seeds)
    return replace(base, runs=(replace(run, seeds=seeds),))


def test_a_run_against_itself_has_not_moved() -> None:
    """Every ratio is 1, the limit holds, and the finding says so."""
    comparison = compare(saved(), PASSING, 1, result(), {"steps": 1.5})
    assert {change.ratio for change in comparison.changes} == {1.0}
    assert not any(change.moved for change in comparison.changes)
    finding = regression(comparison)
    assert finding.passed
    assert finding.observed == f"steps {result().finding('objective').steps_to_pass} -> same (1x)".replace(
        "same", str(result().finding("objective").steps_to_pass)
    )
    assert finding.margin == 1.5


@pytest.mark.parametrize(("allowed", "passed"), [(4.5, True), (3.5, False)])
def test_slower_learning_is_a_regression(allowed: float, passed: bool) -> None:
    """Four times the steps: within a limit above it, beyond one below it."""
    comparison = compare(slower(saved(), 4.0), PASSING, 1, result(), {"steps": allowed})
    change = comparison.changes[0]
    assert change.quantity == "steps"
    assert change.ratio == pytest.approx(4.0, rel=0.05)
    assert change.moved
    finding = regression(comparison)
    assert finding.passed is passed
    assert (finding.where == "saved as main on then") is not passed


def test_a_run_that_does_not_pass_any_more_is_a_regression() -> None:
    """Its steps to pass have no number: the ratio is infinite."""
    comparison = compare(saved(), PASSING, 1, result(lr=1e-6), {"steps": 100.0})
    assert math.isinf(comparison.changes[0].ratio)
    assert not regression(comparison).passed
    assert "-> not passed" in regression(comparison).observed


def test_seeds_are_compared_with_themselves() -> None:
    """Both seeds have to move; the spread is that of their ratios."""
    base = saved((0, 1))
    run = base.runs[0]
    one = replace(run, seeds=(run.seeds[0], replace(run.seeds[1], steps_to_pass=(run.seeds[1].steps_to_pass or 0) * 4)))
    change = compare(replace(base, runs=(one,)), PASSING, 1, result(seeds=(0, 1))).changes[0]
    assert change.seeds == 2
    assert change.spread[0] == pytest.approx(0.25, rel=0.05)
    assert change.spread[1] == 1.0
    assert not change.moved


def test_other_seeds_are_compared_by_their_medians() -> None:
    """And the text says so."""
    change = compare(saved((0,)), PASSING, 1, result(seeds=(1, 2))).changes[0]
    assert change.seeds == 0
    assert "medians of different seeds" in change_text(change)


def test_a_test_that_is_new_has_nothing_to_compare() -> None:
    comparison = compare(saved(), FAILING, 1, result())
    assert comparison.note == "main has no run of this test; the nearest is tests/test_a.py::test_learns"
    assert regression(comparison).missed


def test_an_unknown_quantity_is_refused() -> None:
    with pytest.raises(OverfitError, match=r"no quantity 'step' in this run\n.*allowed: steps, objective"):
        compare(saved(), PASSING, 1, result(), {"step": 2.0})


def test_a_ratio_to_a_negative_number_is_refused() -> None:
    """A likelihood below zero has no ratio."""
    negative = SavedSeed(0, 10, {"objective": -2.0}, {})
    base = Saved("main", "then", (SavedRun(PASSING, 1, (negative,)),))
    assert math.isnan(next(c for c in compare(base, PASSING, 1, result()).changes if c.quantity == "objective").ratio)
    with pytest.raises(OverfitError, match="objective was -2: a ratio to it means nothing"):
        compare(base, PASSING, 1, result(), {"objective": 2.0})


def test_files_come_back_and_keep_other_tests(tmp_path: Path) -> None:
    """Saving one test again leaves the others of the name."""
    path = path_of(tmp_path / ".overfit", "main")
    first = saved_of("main", [document(result()), document(result(lr=1e-6), FAILING)], when="then")
    write_saved(path, first)
    assert read_saved(path) == first
    again = saved_of("main", [document(result(seeds=(0, 1)))], when="now", before=first)
    assert [(run.title, len(run.seeds)) for run in again.runs] == [(PASSING, 2), (FAILING, 1)]
    assert path.read_text().endswith("}\n")


def test_curves_are_thinned_to_what_a_page_needs() -> None:
    """First and last step are kept."""
    base = result()
    long = replace(base, record=replace(base.record, curves={"objective": tuple(map(float, range(1, 3001)))}))
    curve = saved_of("main", [document(long)], when="then").runs[0].curves["objective"]
    assert len(curve.steps) == POINTS
    assert (curve.steps[0], curve.steps[-1], curve.values[-1]) == (1, 3000, 3000.0)


@pytest.mark.parametrize("name", ["../x", "", "a b", ".hidden", "x" * 81])
def test_a_name_is_a_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match="the name of saved runs"):
        checked_name(name)


@pytest.mark.parametrize("text", ["steps", "steps:", "steps:x", "steps:-1x", ":2x", "steps:nan"])
def test_a_limit_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="QUANTITY:RATIO"):
        parse_allowed([text])


def test_a_name_that_was_never_saved_lists_those_that_were(tmp_path: Path) -> None:
    write_saved(path_of(tmp_path, "main"), saved())
    with pytest.raises(OverfitError, match=r"nothing was saved as 'other'\n.*one of main"):
        read_saved(path_of(tmp_path, "other"))
    path_of(tmp_path, "broken").write_text('{"name": 3}')
    with pytest.raises(OverfitError, match="what --overfit-save NAME wrote"):
        read_saved(path_of(tmp_path, "broken"))


def test_a_change_is_broken_only_beyond_what_is_allowed() -> None:
    """The limit itself is allowed."""
    change = Change("steps", 40.0, 60.0, 1.5, (1.5, 1.5), 1, True, allowed=1.5)
    assert not change.broken
    assert replace(change, ratio=1.5001).broken
    assert not replace(change, allowed=None).broken


IMPOSSIBLE = {
    "no seeds": (("seeds",), [], "no seed"),
    "a seed twice": (("seeds",), "twice", "one seed twice"),
    "no steps": (("seeds", 0, "steps_to_pass"), 0, "0 steps to pass"),
    "digits": (("seeds", 0, "steps_to_pass"), 10**4000, "a whole number of 4001 digits"),
    "a seed of digits": (("seeds", 0, "seed"), 10**400, "a whole number of 401 digits"),
    "digits in a text": (("seeds", 0, "steps_to_pass"), "1" * 400, "steps_to_pass: a whole number beyond 64 bits"),
    "text of infinity": (("seeds", 0, "final", "objective"), "1e400", "objective is inf"),
    "the word": (("seeds", 0, "final", "objective"), "Infinity", "objective is inf"),
    "no number": (("seeds", 0, "final", "objective"), "nan", "objective is nan"),
    "a gradient": (("seeds", 0, "grad_norms", "a.weight"), "-inf", "grad_norm/a.weight is -inf"),
    "a curve": (("curves", "objective", "values", 0), "inf", "the curve of objective is inf"),
    "an uneven curve": (("curves", "objective", "values"), [1.0], "a curve of objective with more steps than values"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_run_was_saved_with_is_refused(tmp_path: Path, name: str) -> None:
    """An infinite loss, or no seed, would let every later run pass: such a file is none of ours."""
    path, value, said = IMPOSSIBLE[name]
    written = write_saved(tmp_path / "main.json", saved())
    tree = json.loads(written.read_text())
    *way, last = path
    node = tree["runs"][0]
    for key in way:
        node = node[key]
    node[last] = node[last] * 2 if value == "twice" else value
    written.write_text(json.dumps(tree))
    with pytest.raises(OverfitError, match=said) as error:
        read_saved(written)
    assert error.value.allowed == "what --overfit-save NAME wrote"
    written.write_text(written.read_text().replace('"1e400"', "1e400"))
    with pytest.raises(OverfitError):
        read_saved(written)
