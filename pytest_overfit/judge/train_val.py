"""The criterion that compares the trained model with its evaluation mode, on the validation sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.judge.stopped import CUT, UNFINISHED
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criterion import Criterion, bounded


@dataclass(frozen=True)
class TrainVal:
    """Evaluation and training loss agree to this relative tolerance."""

    tolerance: float = bounded(0.1, at_least=0)


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
        term = record.terms.get(name)
        below = None if term is None else limit.ceiling(record.curves[term])
        if term is None or below is None or term not in evaluation.train or term not in evaluation.val:
            continue
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
        return Finding("train_val", False, f"{CUT} ({record.stop})", allowed)
    if not shown:
        hint = "state an upper limit on a term that the loss gives in evaluation too"
        return Finding("train_val", False, "no limited term to compare", allowed, hint=hint)
    return Finding("train_val", True, shown[0], allowed)


TRAIN_VAL = Criterion(
    "train_val",
    "evaluation and training loss agree",
    TrainVal(),
    lambda record, setting, criteria: judge_train_val(record, setting, criteria.limits()),
    on=False,
    on_in_config=False,
    condition="data.val",
    awaited=True,
)
