"""The criteria that compare the trained model with something else: its evaluation mode, and the ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import CUT_SHORT, FramePrediction, RunRecord
from pytest_overfit.settings.criteria import Limit, Prediction, TrainVal

UNFINISHED = (*CUT_SHORT, "non_finite", "no_trainable_parameters", "detached")


def judge_train_val(record: RunRecord, settings: TrainVal, limits: Mapping[str, Limit]) -> Finding:
    """Does the loss in evaluation mode on the validation sample agree with training?

    A term agrees when it is below its own limit too, or at most ``tolerance`` (relative to the larger of the training
    value and the limit) above the training value.
    """
    allowed = f"below its limit, or at most {settings.tolerance:.0%} above training"
    evaluation = record.evaluation
    if evaluation is None:
        return Finding(
            "train_val",
            False,
            "the model was not evaluated",
            allowed,
            where=f"run stopped by {record.stop}",
            hint="see the other criteria for why the run did not get there",
        )
    worst: tuple[float, str] | None = None
    shown = []
    for name, limit in limits.items():
        term = resolve_term(name, evaluation.val)
        if term is None or term not in evaluation.train or limit.below is None:
            continue
        start = record.curves.get(term, (1.0,))[0] if limit.relative else 1.0
        below = limit.below * start
        train, val = evaluation.train[term], evaluation.val[term]
        text = f"{term} {number(val)} in evaluation, {number(train)} in training"
        shown.append(text)
        excess = val - max(below, train + settings.tolerance * max(abs(train), abs(below)))
        if not excess < 0 and (worst is None or excess > worst[0]):
            worst = (excess, text)
    if worst is not None:
        return Finding(
            "train_val",
            False,
            worst[1],
            allowed,
            where=f"step {record.steps}, {record.device}",
            hint="compare train() with eval(): batch statistics, dropout; compare the two split files",
        )
    if record.stop in UNFINISHED:
        return Finding("train_val", False, f"the run was cut short ({record.stop})", allowed)
    if not shown:
        return Finding("train_val", False, "no limited term to compare", allowed)
    return Finding("train_val", True, shown[0], allowed)


def judge_prediction(record: RunRecord, settings: Prediction) -> Finding:
    """Do predicted depth and camera match the ground truth, frame by frame?"""
    allowed = ", ".join(f"{what} {sign} {number(limit)}{unit}" for what, sign, limit, unit, _ in _limits(settings))
    if not record.predictions or all(_empty(frame) for frame in record.predictions):
        keys = ", ".join(record.prediction_keys) or "none"
        return Finding(
            "prediction",
            False,
            "the model predicts neither depth nor pose_enc",
            allowed,
            where=f"keys of the prediction: {keys}",
            hint="switch it off with overfit.criteria.prediction: false",
        )
    misses = [miss for frame in record.predictions for miss in _misses(frame, settings)]
    if misses:
        return Finding(
            "prediction",
            False,
            "; ".join(misses),
            allowed,
            where=f"step {record.steps}, {record.device}, seed {record.seed}",
            hint="the loss is low only where it looks: check its valid_range, masks and weights"
            if record.stop == "passed"
            else "see the loss criteria: the run did not reach its limits",
        )
    if record.stop in UNFINISHED:
        return Finding("prediction", False, f"the run was cut short ({record.stop})", allowed)
    return Finding("prediction", True, "; ".join(map(describe_frame, record.predictions)), allowed)


def describe_frame(frame: FramePrediction) -> str:
    """One frame in one line.

    Example:
        >>> describe_frame(FramePrediction(0, abs_rel=0.0123, delta_1_25=0.998, mae_metres=0.41))
        'frame 0: AbsRel 0.0123, delta<1.25 0.998, 0.41 m off'
    """
    parts = []
    if frame.abs_rel is not None:
        parts.append(f"AbsRel {number(frame.abs_rel)}")
    if frame.delta_1_25 is not None:
        parts.append(f"delta<1.25 {number(frame.delta_1_25)}")
    if frame.mae_metres is not None:
        parts.append(f"{number(frame.mae_metres)} m off")
    if frame.rotation_deg is not None:
        parts.append(f"rotation {number(frame.rotation_deg)} deg")
    if frame.translation_deg is not None:
        parts.append(f"translation {number(frame.translation_deg)} deg")
    return f"frame {frame.frame}: " + ", ".join(parts)


def _empty(frame: FramePrediction) -> bool:
    return frame.abs_rel is None and frame.rotation_deg is None


def _misses(frame: FramePrediction, settings: Prediction) -> Iterator[str]:
    for what, sign, limit, unit, key in _limits(settings):
        value: float | None = getattr(frame, key)
        if value is not None and not (value > limit if sign == ">" else value < limit):
            metres = f" ({number(frame.mae_metres)} m off)" if key == "abs_rel" and frame.mae_metres is not None else ""
            yield f"frame {frame.frame} {what} {number(value)}{unit}{metres}"


def _limits(settings: Prediction) -> list[tuple[str, str, float, str, str]]:
    """(what, sign, limit, unit, field) of every limit that is set."""
    rows = (
        ("AbsRel", "<", settings.abs_rel, "", "abs_rel"),
        ("delta<1.25", ">", settings.delta_1_25, "", "delta_1_25"),
        ("rotation", "<", settings.rotation_deg, " deg", "rotation_deg"),
        ("translation", "<", settings.translation_deg, " deg", "translation_deg"),
    )
    return [(what, sign, limit, unit, key) for what, sign, limit, unit, key in rows if limit is not None]


def judge_generates(record: RunRecord) -> Finding:
    """Does the trained model give the memorised sequences back, token by token, from their first ones?"""
    found, allowed = record.generated, "every token of the memorised sequences"
    if found is None or not found.total:
        return Finding("generates", False, "nothing was generated", allowed, where=f"run stopped by {record.stop}")
    allowed = f"{allowed}, greedily from the first {'one' if found.prompt == 1 else found.prompt}"
    observed = f"{found.right} of {found.total} tokens right"
    if found.right == found.total:
        return Finding("generates", True, observed, allowed)
    return Finding(
        "generates",
        False,
        observed,
        allowed,
        where=found.first_wrong or None,
        hint="a small loss beside this means that training and generation see different sequences: labels shifted "
        "twice, another start token, a wrong padding or attention mask, or an answer that leaks into the input",
    )
