"""What a model predicts for a two-view batch: a scale or an encoding of cameras that is another one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.two_view.diagnose.views import (
    SURE,
    DepthPredicted,
    ViewsPredicted,
    ViewsSeen,
    percent,
    plain_number,
)


def depth_scale(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """The predicted structure is right and its scale is not."""
    for depth in predicted.depths if predicted else ():
        if depth.factor <= 0 or abs(math.log(depth.factor)) < math.log(1.2) or depth.error < 0.2:
            continue
        if depth.correlation < 0.9 or depth.aligned > min(0.15, depth.error / 3):
            continue
        certain = _cameras_have_scale(depth, predicted)
        observed = (
            f"{depth.name} is {depth.factor:.3g} times the depth of the batch: off by {percent(depth.error)}, and by "
            f"{percent(depth.aligned)} once it is divided by that"
        )
        if certain:
            observed += "; the predicted cameras have the batch's scale"
        yield Cause(
            "scale", f"output {depth.name}", observed,
            "compare depths in the batch's units, without aligning or normalising the prediction, or normalise both",
            "shown", {"factor": depth.factor, "error": depth.error, "aligned error": depth.aligned},
            certain=certain, weight=SURE if certain else 0.8,
        )  # fmt: skip


def turned_over(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """The prediction fits the batch once it is turned over, and only then: it was compared with something turned."""
    for depth in predicted.depths if predicted else ():
        if depth.error >= 0.1 and depth.turned_error <= depth.error / 3:
            yield Cause(
                "target-mismatch", f"output {depth.name}",
                f"{depth.name} is off by {percent(depth.error)} as it is returned, and by "
                f"{percent(depth.turned_error)} once it is {depth.turned}",
                f"compare {depth.name} and the depth of the batch as they are: look for a flip or another order of one "
                "of them in the loss",
                "shown", {"error": depth.error, "turned": depth.turned_error},
                certain=depth.turned_error <= 0.1, weight=SURE,
            )  # fmt: skip


def _cameras_have_scale(depth: DepthPredicted, predicted: ViewsPredicted | None) -> bool:
    """Depth up to a scale can be meant, but not beside cameras that are right to scale."""
    if predicted is None or predicted.baseline is None or predicted.camera_error is None:
        return False
    cameras = abs(predicted.baseline - 1) <= 0.15 and predicted.camera_error <= 0.15
    return cameras and depth.aligned <= 0.08 and abs(math.log(depth.factor)) >= math.log(1.3)


RULES = (depth_scale, turned_over)


SAME = 1e-5  # of how far cameras lie apart: predictions that do by less are one
LEARNS = 0.99  # of what a term costs at the start: below, its head has learned
FAR, NEAR, TIMES = 1e-3, 1e-3, 100.0  # of a term: what the true cameras cost, what others cost, and how many times less


@dataclass(frozen=True)
class EncodingCompared:
    """What the camera's `term` costs if the true cameras are predicted, in `absT_quaR_FoV` and in the cheapest other.

    `changes` are how that differs; empty where the true cameras are the cheapest, or nothing else is cheap. `apart` is
    how far the true encodings of the frames lie apart, `told` how far the predicted ones do.
    """

    term: str
    right: float
    best: float
    changes: tuple[str, ...] = ()
    apart: float = 0.0
    told: float = math.inf


def one_pose_for_all(evidence: Evidence) -> Iterator[Cause]:
    """The frames have different cameras, and the trained model gives them one.

    Where the term has not fallen this may be how a head begins, and is no certain defect; NaN compares with nothing.
    """
    seen = evidence.fact(EncodingCompared)
    if seen is None or not seen.apart >= FAR or not seen.told <= SAME * seen.apart or math.isinf(seen.apart):
        return
    curve = evidence.record.curves.get(seen.term) or (0.0,)
    learns = min(curve) < LEARNS * curve[0]
    yield Cause(
        "constant-output", "output pose_enc",
        f"pose_enc is the same in all frames (they differ by {plain_number(seen.told)}), and their cameras differ by "
        f"{plain_number(seen.apart)}",
        "give the camera's head the token of each frame: look for [:, :1], expand, repeat or mean over the frames on "
        "the way to pose_enc",
        "shown", {"apart": seen.apart, "told": seen.told}, certain=learns, weight=0.94 if learns else 0.5,
    )  # fmt: skip


def another_encoding(evidence: Evidence) -> Iterator[Cause]:
    """The true cameras cost something, and in another encoding nothing."""
    seen = evidence.fact(EncodingCompared)
    if seen is None or not seen.changes or seen.right < FAR or seen.best > min(NEAR, seen.right / TIMES):
        return
    changes = " and ".join(seen.changes)
    yield Cause(
        "camera-convention", f"term {seen.term}",
        f"to the loss {changes}: {seen.term} is {plain_number(seen.best)} so, and {plain_number(seen.right)} where "
        "pose_enc is that of the batch's cameras (translation of world2cam, quaternion x y z w, field of view of "
        "height and width)",
        f"the encoding of the targets in the loss: {changes} there, pose_enc is read and decoded otherwise",
        "shown", {"right": seen.right, "best": seen.best}, certain=True, weight=SURE,
    )  # fmt: skip
