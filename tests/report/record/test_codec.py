"""Documents survive JSON, follow their schema, and refuse what is none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.record.codec import from_json, json_schema, result_from_json, result_to_json, to_json
from pytest_overfit.report.record.document import Change, Comparison, Document, Pair, PairView
from tests.report.record.runs import document, result


def schema_errors(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [error.json_path for error in validator.iter_errors(json.loads(text))]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("lr", [1e-2, 1e-6])
def test_a_run_comes_back_as_it_was(lr: float, seeds: tuple[int, ...]) -> None:
    """Findings, causes, evidence and curves of real runs, those of several seeds too."""
    before = document(result(lr=lr, seeds=seeds))
    after = from_json(to_json(before))
    assert after == before
    assert after.result is not None
    assert after.result.evidence is not None
    assert after.result.evidence.record is after.result.record
    assert after.result.summary() == result(lr=lr, seeds=seeds).summary()
    assert after.result.failure_text() == result(lr=lr, seeds=seeds).failure_text()


@pytest.mark.parametrize("lr", [1e-2, 1e-6])
def test_a_record_follows_the_schema(lr: float) -> None:
    """What is written is what is published."""
    assert schema_errors(to_json(document(result(lr=lr, seeds=(0, 1))))) == []


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_result_goes_to_another_process_as_it_was(seeds: tuple[int, ...]) -> None:
    """Findings, causes, evidence and curves of every seed; the evidence has the very record of its result again."""
    before = result(lr=10.0, seeds=seeds)
    after = result_from_json(result_to_json(before))
    assert after == before
    assert after.failure_text() == before.failure_text()
    assert after.evidence is None or after.evidence.record is after.record


def full(verdict: Any) -> Document:
    """Every field set."""
    return document(
        verdict,
        state="interrupted",
        checks=(Finding("pair", True, "sound", "two views"),),
        pair=Pair("scene_0", (PairView("<script>", "a.jpg", 3, 4), PairView("b", "c.jpg"))),
        pictures=("frame_0_image.png",),
        comparison=Comparison("main", "then", (Change("steps", 40.0, math.inf, math.inf, (1.0, math.inf), 1, True),)),
        error="ValueError: \u2028</script>",
    )


def test_every_field_and_every_number_survives() -> None:
    """NaN and infinity are texts in JSON, which knows neither; a strict parser reads the file."""
    verdict = result()
    curves = {"objective": (1.0, math.inf, -math.inf)}
    verdict = replace(verdict, record=replace(verdict.record, curves=curves), evidence=None)
    text = to_json(full(verdict))
    assert from_json(text) == full(verdict)
    assert schema_errors(text) == []

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)
    bad = replace(verdict, record=replace(verdict.record, peak_mib=math.nan))
    kept = from_json(to_json(document(bad))).result
    assert kept is not None
    assert math.isnan(kept.record.peak_mib or 0.0)


def test_the_published_schema_is_this_one() -> None:
    """Written by `python -m pytest_overfit.report.record.codec > docs/record-1.schema.json`."""
    published = Path(__file__).parents[3] / "docs" / "record-1.schema.json"
    assert json.loads(published.read_text(encoding="utf-8")) == json_schema()


def test_the_schema_can_refuse() -> None:
    """A field too many, a missing one and a wrong type are all seen."""
    tree = json.loads(to_json(document(result())))
    for change in ({"verdicts": 1}, {"title": 3}, {"state": "fine"}):
        assert schema_errors(json.dumps({"overfit": {**tree["overfit"], **change}}))
    assert schema_errors(json.dumps({"overfit": tree["overfit"]}))
    del tree["overfit"]["id"]
    assert schema_errors(json.dumps(tree))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ("[]", "JSON of another kind"),
        ("null", "JSON of another kind"),
        ('{"overfit": 3}', "JSON of another kind"),
        ('{"overfit": {"version": 99}}', "a record of version 99"),
        ('{"overfit": {"version": 1, "result": {"runs": 3}}}', "id: Field required"),
    ],
)
def test_what_is_no_record_is_refused(text: str, told: str) -> None:
    """One error that says what was seen, where, and what is allowed."""
    with pytest.raises(OverfitError) as caught:
        from_json(text, where="a.json")
    assert str(caught.value).startswith(f"a.json: {told}")
    assert "allowed: a record.json of pytest-overfit, version 1" in str(caught.value)


def test_evidence_of_another_release_costs_nobody_the_record() -> None:
    """It is an object without promises: verdict, findings, causes and curves are read all the same."""
    before = document(result(lr=1e-6, seeds=(0, 1)))
    tree = json.loads(to_json(before))
    assert tree["verdict"] == before.verdict == "failed"
    for each in (tree["overfit"]["result"], *tree["overfit"]["result"]["runs"]):
        each["evidence"] = {"of_tomorrow": [1, 2], "interrupted": True}
    assert schema_errors(json.dumps(tree)) == []
    after = from_json(json.dumps(tree))
    assert before.result is not None
    assert after.result is not None
    assert (after.verdict, after.findings, after.result.causes) == ("failed", before.findings, before.result.causes)
    assert after.result.evidence is not None
    assert after.result.evidence.interrupted
    tree["overfit"]["result"]["causes"] = 3
    with pytest.raises(OverfitError):
        from_json(json.dumps(tree))


def test_a_cut_record_is_refused() -> None:
    """Half of a file is an error, wherever it was cut."""
    text = to_json(document(result()))
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(OverfitError):
            from_json(text[: int(len(text) * share)])


@pytest.mark.parametrize("value", [10**400, "9" * 400, "-" + "9" * 400, 2**64])
def test_integers_are_bounded_however_they_are_spelt(value: object) -> None:
    """One that no float holds would be an OverflowError to whoever divides by it."""
    tree = json.loads(to_json(document(result())))
    tree["overfit"]["result"]["record"]["steps"] = value
    with pytest.raises(OverfitError, match="beyond 64 bits"):
        from_json(json.dumps(tree))
