"""Thresholds of rules at their edges, on plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.causes import (
    activations,
    batch_content,
    correspondence,
    data_scale,
    leak,
    learning_rate,
    loss_function,
    optimizer,
    output_range,
    supervision,
    symmetry,
    term_sign,
    term_weights,
    terms,
    train_step,
)
from pytest_overfit.diagnose.evidence import Evidence, Floor, Leak, Output, Probed, Term
from pytest_overfit.diagnose.operation import LOSS, Attention, Clamped, Comparison, KeysRead, Op, Rectified, Squashed
from pytest_overfit.diagnose.step_trace import Clip, Event, Group, Module, Step
from pytest_overfit.diagnose.trial import Attempt, Trial
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import BatchRecord, RunRecord
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.settings.criteria import Limit

CURVES = {"objective": (1.0,) * 10, "task": (1.0,) * 10, "balance": (1.0,) * 10}
SUPERVISION = Supervision({"x": {"task": 1.0, "balance": 1.0}, "y": {"task": 1.0}}, (), inputs=("x",))
RECORD = RunRecord("net", 0, "cpu", 10, 10, "max_steps", 1.0, CURVES, supervision=SUPERVISION)
FAILED = Evidence(RECORD, (Finding("objective", False, "", ""),), {})
FLOOR = (
    "look whether each prediction meets its own target: shapes, masks, the order of rows; where it is meant, "
    "objective=0.22"
)


def ids(causes: Iterable[Cause]) -> list[str]:
    return [cause.id for cause in causes]


def stepped(*ops: Op, modules: tuple[Module, ...] = ()) -> Evidence:
    return replace(FAILED, steps=(Step(1, 1.0, ops=ops, modules=modules),))


@pytest.mark.parametrize(("bound", "found"), [(0.6, []), (0.61, ["saturation"])])
def test_most_outputs_of_a_squashing_function_at_its_bounds(bound: float, found: list[str]) -> None:
    op = Op("tanh", "net", "", ((4, 8), (4, 8)), fact=Squashed(bound, -9.0, 9.0))
    assert ids(activations.saturated(stepped(op))) == found


@pytest.mark.parametrize(("deviation", "found"), [(30.0, []), (30.1, ["saturation"])])
def test_attention_logits_that_are_hot(deviation: float, found: list[str]) -> None:
    op = Op("attention", "net", "", (), fact=Attention(0.95, deviation, 8))
    assert ids(activations.saturated(stepped(op))) == found


@pytest.mark.parametrize(("dead", "found"), [(0.94, []), (0.95, ["dead-units"])])
def test_units_that_fire_for_no_sample(dead: float, found: list[str]) -> None:
    op = Op("relu", "net", "", (), fact=Rectified(dead, 64))
    assert ids(activations.dead(stepped(op))) == found


@pytest.mark.parametrize(
    ("columns", "units_of_it", "found"),
    [
        ((7,), 2, ["dead-units"]),
        ((), 2, []),
        ((7,), 64, []),  # a hidden layer with one unit too many is none of the output's
    ],
)
def test_a_column_of_an_output_behind_a_closed_relu(
    columns: tuple[int, ...], units_of_it: int, found: list[str]
) -> None:
    made = Op("relu", "head", "head.py:9", (), fact=Rectified(1 / units_of_it, units_of_it))
    hidden = Op("relu", "depth", "depth.py:5", (), fact=Rectified(1 / 32, 32))
    output = Output("pose", (1, 2, 9), -1.0, 1.0, None, "Cat", gradient=0.1, shut=columns)
    assert ids(activations.shut(replace(FAILED, probed=Probed(ops=(made, hidden), outputs=(output,))))) == found


def clipped(most: float, *kinds: str, attempts: tuple[Attempt, ...] = ()) -> Evidence:
    """A first gradient far above what it is clipped to, under such optimizers."""
    event = Event("clip", fact=Clip(400.0 * most, most))
    groups = tuple(Group(i, kind, 0, 1, ("w",), (1e-3,), 1e-3) for i, kind in enumerate(kinds))
    return replace(FAILED, steps=(Step(1, 1.0, events=(event,)),), groups=groups, attempts=attempts)


PASSED = Attempt(Trial("no clipping"), (1.0, 0.0), 2, "passed")


@pytest.mark.parametrize(
    ("evidence", "found"),
    [
        (clipped(1.0, "SGD"), ["grad-clip"]),
        (clipped(1.0, "AdamW"), []),  # it divides gradients by their own size
        (clipped(1.0, "AdamW", "SGD"), ["grad-clip"]),
        (clipped(1e-6, "AdamW"), ["grad-clip"]),  # eps is felt
        (clipped(1.0, "AdamW", attempts=(PASSED,)), ["grad-clip"]),
        (clipped(1.0), ["grad-clip"]),
    ],
)
def test_clipping_where_the_size_of_a_gradient_counts(evidence: Evidence, found: list[str]) -> None:
    assert ids(optimizer.clipped_away(evidence)) == found


@pytest.mark.parametrize(
    ("change", "reached", "found"),
    [
        ({}, 0.099, ["symmetry"]),
        ({}, 0.1, []),
        ({"alike_along": None}, 0.01, []),
        ({"constant_within": True}, 0.01, []),
    ],
)
def test_slots_that_stay_alike(change: dict[str, Any], reached: float, found: list[str]) -> None:
    """Only where free predictions get far lower, and not where the whole output is one number."""
    output = Output("boxes", (3, 5, 4), 0.0, 1.0, 0.5, "Sigmoid", gradient=0.1, alike_along=1)
    floor = Floor(reached, 1.0, 100, False, low={"boxes": 0.0}, high={"boxes": 1.0})
    probed = Probed(outputs=(replace(output, **change),), floor=floor)
    assert ids(symmetry.slots_alike(replace(FAILED, probed=probed))) == found


def module(name: str, fed: float, size: float = 1.0, kind: str = "Linear") -> Module:
    return Module(name, kind, True, True, 9, (4, 8), size, -size, size, 1.0, 1.0, True, fed=fed)


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        ((module("time", 2 * data_scale.FAR + 1),), ["input-scale"]),
        ((module("time", 2 * data_scale.FAR),), []),
        ((module("first", 1.0, size=500.0), module("second", 900.0)), []),  # the layer before made them
        ((module("norm", 900.0, kind="LayerNorm"),), []),
    ],
)
def test_layers_that_are_given_large_numbers(modules: tuple[Module, ...], found: list[str]) -> None:
    assert ids(data_scale.fed(stepped(modules=modules))) == found


GATE = Op("argmax", "experts", "", ((4, 3), (4,)), "Softmax")
TERMS = Term("task", True, True), Term("balance", True, True, alone=("gate.weight",))


@pytest.mark.parametrize(
    ("op", "balance", "found"),
    [
        (GATE, {}, ["no-gradient"]),
        (replace(GATE, final="Neg"), {}, []),  # the nearest code of a book
        (replace(GATE, region="the loss"), {}, []),  # an accuracy
        (GATE, {"alone": ()}, []),
        (GATE, {"weights_only": True}, []),
        (GATE, {"in_objective": False}, []),
    ],
)
def test_weights_behind_an_argmax(op: Op, balance: dict[str, Any], found: list[str]) -> None:
    evidence = replace(stepped(op), probed=Probed(terms=(TERMS[0], replace(TERMS[1], **balance))))
    assert ids(terms.gated(evidence)) == found


COMPARED = Comparison(True, target_low=0.0, target_high=1.0)


@pytest.mark.parametrize(("other", "found"), [(True, ["leak"]), (False, [])])
def test_a_regulariser_may_compare_an_output_with_zero(other: bool, found: list[str]) -> None:
    """The mistake is one only where nothing else is compared."""
    facts = (replace(COMPARED, adds_target=True), replace(COMPARED, adds_target=other))
    assert ids(leak.leaks(stepped(*(Op("mse_loss", LOSS, "", fact=fact) for fact in facts)))) == found


@pytest.mark.parametrize(
    ("causal", "advice"), [(True, "mask the future in layers.1"), (False, "the mask inside layers.1 leaves")]
)
def test_a_mask_that_lets_nothing_through_before(causal: bool, advice: str) -> None:
    reads = [Attention(0.0, 1.0, 8, reads=KeysRead(8, causal=each)) for each in (causal, False)]
    ops = (Op("softmax", f"layers.{i}", "", fact=fact) for i, fact in enumerate(reads))
    evidence = replace(stepped(*ops), probed=Probed(leaks=(Leak("ids at place 4", "", "layers.1"),)))
    assert [cause.advice[: len(advice)] for cause in leak.leaks(evidence)] == [advice]


TURNED = Op("mse_loss", LOSS, "", fact=Comparison(True, origin="y", turned="with its last axis in reverse order"))


@pytest.mark.parametrize(
    ("others", "found"), [((), ["target-mismatch"]), ((replace(TURNED, fact=Comparison(True, origin="y")),), [])]
)
def test_targets_that_were_turned(others: tuple[Op, ...], found: list[str]) -> None:
    """Beside the targets as they are that is meant."""
    assert ids(correspondence.mismatched(stepped(TURNED, *others))) == found


@pytest.mark.parametrize(("elsewhere", "is_floor"), [(None, True), (0.201, True), (0.15, False), (0.4, False)])
def test_a_minimum_of_a_search_is_no_floor(elsewhere: float | None, is_floor: bool) -> None:
    """A limit above it is advised only where another start ends at the same place."""
    evidence = replace(FAILED, record=replace(RECORD, curves={"objective": (1.0, 0.3)}))
    evidence = replace(evidence, limits={"objective": Limit(below=0.1)})
    probed = Probed(floor=Floor(0.2, 1.0, 100, False, elsewhere=elsewhere))
    found = list(loss_function.floor(replace(evidence, probed=probed)))
    assert [cause.advice for cause in found] == [FLOOR] * is_floor


def test_what_raises_a_loss_by_itself_is_no_floor() -> None:
    """The lowest loss behind a softmax that is one too many: a limit above it would let the fault pass."""
    softmax = Op("cross_entropy", LOSS, "", final="Softmax", fact=Comparison(True, 0.0, 1.0, sum_error=0.0, classes=3))
    evidence = replace(FAILED, record=replace(RECORD, curves={"objective": (1.0, 0.6)}))
    probed = Probed(floor=Floor(0.55, 1.0, 100, False))
    evidence = replace(evidence, limits={"objective": Limit(below=0.1)}, probed=probed)
    assert ids(loss_function.floor(evidence)) == ["loss-floor"]
    step = Step(1, 1.0, ops=(softmax,))
    assert ids(loss_function.floor(replace(evidence, steps=(step,)))) == []


def test_a_search_from_another_start_that_gets_below_the_limit_refutes_a_floor() -> None:
    """The loss can get there."""
    evidence = replace(FAILED, record=RECORD, limits={"objective": Limit(below=0.1)})
    probed = Probed(floor=Floor(0.2, 1.0, 100, False, elsewhere=0.05))
    assert ids(loss_function.floor(replace(evidence, probed=probed))) == []


@pytest.mark.parametrize(("last", "found"), [(-0.1, ["loss-sign"]), (0.1, []), (float("nan"), [])])
def test_an_objective_without_a_floor(last: float, found: list[str]) -> None:
    """Below zero, and falling; NaN is neither."""
    record = replace(RECORD, curves={"objective": (1.0, last)})
    assert ids(term_sign.sign(replace(FAILED, record=record))) == found


@pytest.mark.parametrize(
    ("weight", "last", "limit", "found"),
    [
        (20.0, 0.0009, 0.001, ["term-weight"]),  # 0.018 of an objective that has to get below 0.01
        (10.0, 0.0009, 0.001, []),  # at its limit it makes up exactly what is allowed
        (20.0, 0.0004, 0.001, []),  # it makes up 0.008: something else is too large
        (20.0, 0.0011, 0.001, []),  # it has not met its own limit: it did not drown anything
    ],
)
def test_a_term_that_outweighs_the_limit_of_the_objective(
    weight: float, last: float, limit: float, found: list[str]
) -> None:
    """Both limits at once cannot be met: the weight that can is told."""
    curves = {"objective": (5.0, 0.02), "camera": (0.2, last)}
    term = Term("camera", True, True, weight=weight)
    evidence = replace(
        FAILED,
        record=replace(RECORD, curves=curves),
        limits={"objective": Limit(below=0.01), "camera": Limit(below=limit)},
        probed=Probed(terms=(term,)),
    )
    causes = [*term_weights.outweighed(evidence)]
    assert ids(causes) == found
    assert [cause.advice for cause in causes] == ["lower the weight of camera to 10 or less"] * len(found)


@pytest.mark.parametrize(("works", "strength"), [(5e-8, "proven"), (1e-4, "proven"), (1e-2, "shown")])
def test_a_lower_learning_rate_proves_gradients_that_add_up(works: float, strength: str) -> None:
    """However much lower: a factor of 5e-05 too; a higher one proves nothing."""
    step = Step(1, 1.0, differentiated=(1.0, 1.0, 1.0), events=(Event("step"),))
    attempts = (Attempt(Trial("learning rate", 1e-3, works), (1.0, 0.0), 2, "passed"),)
    (cause,) = train_step.not_zeroed(replace(FAILED, steps=(step,), attempts=attempts))
    assert (cause.id, cause.strength) == ("grad-accumulation", strength)


@pytest.mark.parametrize(("missed", "found"), [("prediction", ["loss-clamped"]), ("", [])])
def test_a_clamp_that_holds_up_what_no_limit_is_stated_for(missed: str, found: list[str]) -> None:
    """The limits hold, and another criterion does not; of a run that passes nothing is said."""
    op = Op("clamp", LOSS, "loss.py:3", ((2, 3), (2, 3)), fact=Clamped(1.0, False, 0.01, 0.2, 0.005, 0.005))
    findings = (Finding("objective", True, "", ""), *([Finding(missed, False, "", "")] if missed else ()))
    evidence = replace(stepped(op), findings=findings, limits={"objective": Limit(below=2.0)})
    assert evidence.learned
    assert ids(loss_function.clamped(evidence)) == found


@pytest.mark.parametrize(
    ("error_reads", "found"), [("values", ["loss-sign"]), ("values and more", []), ("pose", ["loss-sign"])]
)
def test_an_error_of_another_output_says_nothing_of_a_sign(error_reads: str, found: list[str]) -> None:
    """A term falls below zero: the error beside it that comes down has to be one of the same outputs."""
    curves = {"objective": (1.0, -2.0), "conf": (0.5, -3.0), "error": (1.0, 0.1), "own": (0.2, 0.9)}
    outputs = {"values": ("other",), "values and more": ("depth", "other"), "pose": ("pose",)}[error_reads]
    names = (("conf", ("depth", "sure")), ("error", outputs), ("own", ("depth",)))
    probed = Probed(terms=tuple(Term(name, depends=True, in_objective=True, outputs=o) for name, o in names))
    record = replace(RECORD, curves=curves)
    assert ids(term_sign.sign(replace(FAILED, record=record, probed=probed))) == found


def test_a_clamp_at_the_end_of_a_model_is_a_range() -> None:
    """Of the output that it makes, by its own range; not of another one with as many numbers."""
    clamp = Op("clamp", "head", "head.py:3", ((2, 4), (2, 4)), fact=Clamped(1.0, False, 0.8, 0.9, 0.3, 0.3))
    compared = Op(
        "difference", LOSS, "", ((2, 4), (2, 4)), "ClampBackward1", Comparison(True, target_low=0.5, target_high=1.5)
    )
    of_sure = replace(compared, final="AddBackward0")
    outputs = (
        Output("sure", (2, 4), 1.8, 1.9, 0.1, "AddBackward0", 1.0),
        Output("depth", (2, 4), 0.3, 0.3, 0.0, "ClampBackward1", 1.0),
    )
    evidence = replace(stepped(compared, of_sure), probed=Probed(ops=(clamp,), outputs=outputs))
    (cause,) = output_range.out_of_range(evidence)
    assert (cause.id, cause.where) == ("output-range", "output depth, module head, head.py:3")


def test_what_falls_below_zero_is_held_up_by_no_range() -> None:
    """An only term that is negative went where it should not: its sign is wrong, and not the range of the output."""
    squashed = Op("sigmoid", "head", "head.py:3", ((2, 4), (2, 4)), fact=Squashed(1.0, 3.0, 9.0))
    output = Output("depth", (2, 4), 19.0, 20.0, 0.1, "MulBackward0", 1.0)
    probed = Probed(
        ops=(squashed,), outputs=(output,), floor=Floor(-3.0, -1.0, 400, False, {"depth": 9}, {"depth": 50})
    )
    record = replace(RECORD, curves={"objective": (-1.1, -1.7)})
    assert ids(output_range.out_of_range(replace(FAILED, record=record, probed=probed))) == []
    record = replace(RECORD, curves={"objective": (1.7, 1.1)})
    assert ids(output_range.out_of_range(replace(FAILED, record=record, probed=probed))) == ["output-range"]


@pytest.mark.parametrize(
    ("unbounded", "ends", "found"),
    [
        (False, (3.0, 9.0), ["output-range"]),  # it is wanted larger, and its input is large
        (True, (3.0, 9.0), []),  # under a free confidence any prediction is the best
        (False, (-2.0, 2.0), []),  # nothing of it is at a bound
    ],
)
def test_a_range_is_told_where_the_loss_has_a_best_and_the_output_stands_at_that_end(
    unbounded: bool, ends: tuple[float, float], found: list[str]
) -> None:
    squashed = Op("sigmoid", "head", "head.py:3", ((2, 4), (2, 4)), fact=Squashed(1.0, *ends))
    output = Output("depth", (2, 4), 19.0, 20.0, 0.1, "MulBackward0", 1.0)
    floor = Floor(-3.0, -1.0, 400, unbounded, {"depth": 19}, {"depth": 50})
    started = replace(squashed, fact=Squashed(0.0, -1.0, 1.0))
    evidence = replace(stepped(started), probed=Probed(ops=(squashed,), outputs=(output,), floor=floor))
    assert ids(output_range.out_of_range(evidence)) == found
    assert ("saturation" in ids(activations.saturated(evidence))) is not (unbounded or bool(found))  # told once
    other = replace(evidence.probed, outputs=(replace(output, squashed=("exp",)),))  # a sigmoid makes another output
    assert ids(output_range.out_of_range(replace(evidence, probed=other))) == []


@pytest.mark.parametrize(("curve", "found"), [((0.0,) * 10, ["vacuous"]), ((0.0,) * 9 + (1e-9,), [])])
def test_a_limited_term_that_is_nothing_in_all_steps(curve: tuple[float, ...], found: list[str]) -> None:
    """Its mask is empty; the other terms fall as they should."""
    evidence = replace(FAILED, record=replace(RECORD, curves={**CURVES, "depth": curve}), limits={"depth": Limit(0.1)})
    causes = list(supervision.vacuous(evidence))
    assert ids(causes) == found
    assert [(cause.where, cause.certain) for cause in causes] == [("term depth", True)] * len(found)


def test_what_holds_the_sample_of_a_trainer_is_the_change() -> None:
    """As options to paste; what makes it change is told beside."""
    why = (
        "a.fix_img_num is -1: drawn",
        "all at once: --overfit-set a.fix_img_num=2",
        "all at once: --overfit-set b=false",
    )
    batch = BatchRecord("1", "1", ("x: shape (2,) against (3,)",), why)
    (cause,) = batch_content.changes(replace(FAILED, record=replace(RECORD, batch=batch)))
    assert cause.advice == "--overfit-set a.fix_img_num=2 --overfit-set b=false"
    assert cause.observed.endswith("against (3,); a.fix_img_num is -1: drawn")


@pytest.mark.parametrize(("was", "lowest", "found"), [(5e-5, 0.05, ["lr-low"]), (5e-5, 0.2, []), (2e-4, 0.05, [])])
def test_a_rate_ten_times_below_the_usual_one_is_too_low_where_that_reaches_the_limit(
    was: float, lowest: float, found: list[str]
) -> None:
    """Another limit may still be missed; nearer to the usual one, or half of the way, it gets around what is wrong."""
    attempt = Attempt(Trial("learning rate", was, 1e-3), (1.0, lowest), None, "max_steps")
    record = replace(RECORD, curves={"objective": (1.0, 0.5), "task": (1.0, 0.5)})
    group = Group(0, "Adam", 0, 2, ("w", "b"), (was, was), was)
    evidence = replace(FAILED, record=record, groups=(group,), attempts=(attempt,), limits={"objective": Limit(0.1)})
    assert ids(learning_rate.rates(evidence)) == found
