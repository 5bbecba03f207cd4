"""What a two-view model has to reach: its camera and its depth by their losses, and the predictions frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.judge.stopped import CUT, UNFINISHED
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import FramePrediction, RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criterion import Criterion, bounded

LEARNT = 0.01  # of a camera's loss: radians, and shares of the mean distance
FAR_OFF = 10.0  # times the limit: what a loss that low does not leave
COMPARED = (  # what, the sign of its limit, its unit, and the name of both
    ("AbsRel", "<", "", "abs_rel"), ("delta<1.25", ">", "", "delta_1_25"), ("rotation", "<", " deg", "rotation_deg"),
    ("translation", "<", " deg", "translation_deg"), ("field of view", "<", " deg", "fov_deg"),
)  # fmt: skip
NOTHING_PREDICTED = "every limit null", "at least one limit, or prediction: false"


@dataclass(frozen=True)
class Prediction:
    """Limits of the predictions themselves, per frame; None: not judged.

    ``abs_rel``: mean |pred - gt| / gt, below; ``delta_1_25``: share of pixels within a factor 1.25, above;
    ``rotation_deg`` and ``translation_deg``: angle errors in degrees, below; ``fov_deg``: that of the
    field of view.
    """

    abs_rel: float | None = bounded(0.05, above=0, optional=True)
    delta_1_25: float | None = bounded(0.95, at_least=0, under=1, optional=True)
    rotation_deg: float | None = bounded(1.0, above=0, at_most=180, optional=True)
    translation_deg: float | None = bounded(2.0, above=0, at_most=180, optional=True)
    fov_deg: float | None = bounded(2.0, above=0, at_most=180, optional=True)


def judge_prediction(record: RunRecord, settings: Prediction, limits: Mapping[str, Limit] | None = None) -> Finding:
    """Do predicted depth and camera match the ground truth, frame by frame?"""
    asked = _limits(settings)
    judged = [row for row in asked if any(getattr(frame, row[-1]) is not None for frame in record.predictions)]
    allowed = ", ".join(f"{what} {sign} {number(limit)}{unit}" for what, sign, limit, unit, _ in judged or asked)
    if all(frame.abs_rel is None and frame.rotation_deg is None for frame in record.predictions):
        keys = ", ".join(record.prediction_keys) or "none"
        where = f"keys of the prediction: {keys}"
        hint = "switch it off with overfit.criteria.prediction: false"
        return Finding(
            "prediction", False, "the model predicts neither depth nor pose_enc", allowed, where=where, hint=hint
        )
    misses = [miss for frame in record.predictions for miss in _misses(frame, asked)]
    if misses:
        where = f"step {record.steps}, {record.device}, seed {record.seed}"
        hint = _what_next(record, settings, limits or {})
        return Finding("prediction", False, "; ".join(misses), allowed, where=where, hint=hint)
    if record.stop in UNFINISHED:
        return Finding("prediction", False, f"{CUT} ({record.stop})", allowed)
    return Finding("prediction", True, "; ".join(map(describe_frame, record.predictions)), allowed)


def _what_next(record: RunRecord, settings: Prediction, limits: Mapping[str, Limit]) -> str:
    """A camera far off although the limit of its loss is met is another encoding, not a run that was too short."""
    camera = resolve_term("camera", record.curves)
    # Of the run's own limits only its stop tells: it ends so once all of them hold, or the best of its camera is small.
    met = record.stop == "passed" or (camera is not None and min(record.curves[camera], default=math.inf) <= LEARNT)
    off = [frame for frame in record.predictions if _camera_off(frame, settings) > FAR_OFF]
    if met and off:
        return (
            "the loss of the camera is low, and the camera that pose_enc stands for is not that of the batch: look at "
            "the encoding of its targets (order of the quaternion, of its parts, world2cam, field of view)"
        )
    if record.stop == "passed":
        return "the loss is low only where it looks: check its valid_range, masks and weights"
    if limits and all(_holds(record, name, limit) for name, limit in limits.items()):
        return "the losses hold their limits: give it more steps; else check their valid_range, masks and weights"
    return "see the loss criteria: the run did not reach its limits"


def _holds(record: RunRecord, name: str, limit: Limit) -> bool:
    """Whether a limit holds at the last step."""
    curve = record.curves.get(record.terms.get(name) or name, ())
    return bool(curve) and limit.holds(curve[-1] / curve[0] if limit.relative and curve[0] else curve[-1])


def _camera_off(frame: FramePrediction, settings: Prediction) -> float:
    """Times its limit that the worst angle of a camera is off."""
    angles = [(getattr(frame, name), limit) for _, _, limit, _, name in _limits(settings) if name.endswith("_deg")]
    return max((angle / limit for angle, limit in angles if angle is not None), default=0.0)


def describe_frame(frame: FramePrediction) -> str:
    """One frame in one line.

    Example:
        >>> describe_frame(FramePrediction(0, abs_rel=0.0123, delta_1_25=0.998, mae_metres=0.41))
        'frame 0: AbsRel 0.0123, delta<1.25 0.998, 0.41 m off'
    """
    rows = (*COMPARED[:2], ("", "", " m off", "mae_metres"), *COMPARED[2:])
    given = ((what, getattr(frame, name), unit) for what, _, unit, name in rows)
    told = [f"{what} {number(value)}{unit}".strip() for what, value, unit in given if value is not None]
    return f"frame {frame.frame}: {', '.join(told)}"


def _misses(frame: FramePrediction, limits: Sequence[tuple[str, str, float, str, str]]) -> Iterator[str]:
    """What of a frame is off; one that no limit can be held against proves nothing."""
    for what, sign, limit, unit, key in limits:
        value: float | None = getattr(frame, key)
        if value is not None and not (value > limit if sign == ">" else value < limit):
            metres = f" ({number(frame.mae_metres)} m off)" if key == "abs_rel" and frame.mae_metres is not None else ""
            yield f"frame {frame.frame} {what} {number(value)}{unit}{metres}"
    if all(getattr(frame, key) is None for *_, key in limits):
        yield f"frame {frame.frame}: nothing of it is compared"


def _limits(settings: Prediction) -> list[tuple[str, str, float, str, str]]:
    """(what, sign, limit, unit, field) of every limit that is set."""
    rows = ((what, sign, getattr(settings, name), unit, name) for what, sign, unit, name in COMPARED)
    return [row for row in rows if row[2] is not None]


def _asks_nothing(settings: Prediction) -> tuple[str, str] | None:
    return None if _limits(settings) else NOTHING_PREDICTED


CAMERA = Criterion(
    "camera", "limit of the camera's loss", Limit(0.001, stated=False), on=False, floor=0,
    targets=("extrinsics", "intrinsics"),
)  # fmt: skip
DEPTH = Criterion(
    "depth", "limit of the depth's loss", Limit(0.01, stated=False), on=False, floor=0, targets=("depths",)
)
PREDICTION = Criterion(
    "prediction", "the predictions themselves are near the truth", Prediction(),
    lambda record, setting, criteria: judge_prediction(record, setting, criteria.limits()),
    on=False, check=_asks_nothing, learning=True, awaited=True,
)  # fmt: skip
