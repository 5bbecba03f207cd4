"""Run, judge, result: the package's one verb for a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.judge.agreement import judge_prediction, judge_train_val
from pytest_overfit.judge.criteria import judge
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.execute import Loss, Outcome, run_config
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.sample import Sample

if TYPE_CHECKING:
    from torch import nn

    from pytest_overfit.config.schema import OverfitConfig
    from pytest_overfit.run.loop import Observer


def overfit_config(
    config: OverfitConfig,
    model: nn.Module,
    sample: Sample,
    *,
    loss: Loss | None = None,
    observers: Sequence[Observer] = (),
    workers: int = 1,
) -> OverfitResult:
    """Trains a model on one sample under a config and judges the run by the config's criteria.

    Example:
        >>> config = load_config("quick.yaml")                                       # doctest: +SKIP
        >>> overfit_config(config, build_model(config), sample).passed               # doctest: +SKIP
        True
    """
    criteria = config.overfit.criteria
    limits = criteria.limits()

    def accept(outcome: Outcome) -> bool:
        looked = _looked_at(outcome)
        return (criteria.train_val is None or judge_train_val(looked, criteria.train_val, limits).passed) and (
            criteria.prediction is None or judge_prediction(looked, criteria.prediction).passed
        )

    record = run_config(
        config, model, sample, limits=limits, accept=accept, loss=loss, observers=observers, workers=workers
    )
    return OverfitResult(record, judge(record, criteria, hold_steps=config.overfit.budget.hold_steps))


def _looked_at(outcome: Outcome) -> RunRecord:
    """A record that holds nothing but an outcome: enough to judge agreement in the middle of a run."""
    blank: dict[str, Any] = {"name": "", "seed": 0, "device": "", "planned_steps": 0, "steps": 0, "seconds": 0.0}
    curves: Mapping[str, tuple[float, ...]] = {}
    return RunRecord(
        **blank,
        stop="passed",
        curves=curves,
        evaluation=outcome.evaluation,
        predictions=outcome.frames,
        prediction_keys=outcome.keys,
    )
