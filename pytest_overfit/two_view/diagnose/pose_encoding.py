"""Is the encoding that the loss compares that of the batch's cameras? No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.two_view.diagnose.words import SURE, plain_number

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
        f"{seen.term} is {plain_number(seen.right)} where pose_enc is that of the batch's cameras (translation of "
        f"world2cam, quaternion x y z w, field of view of height and width), and {plain_number(seen.best)} "
        f"where {changes}",
        f"the encoding of the targets in the loss: {changes} there, pose_enc is read and decoded otherwise",
        "shown", {"right": seen.right, "best": seen.best}, certain=True, weight=SURE,
    )  # fmt: skip
