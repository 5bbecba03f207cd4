"""Is the encoding that the loss compares that of the batch's cameras? No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.two_view.diagnose.words import SURE, plain_number

FAR, NEAR, TIMES = 1e-3, 1e-3, 100.0  # of a term: what the true cameras cost, what others cost, and how many times less


@dataclass(frozen=True)
class EncodingCompared:
    """What the camera's `term` costs if the true cameras are predicted, in `absT_quaR_FoV` and in the cheapest other.

    `changes` are how that differs; empty where the true cameras are the cheapest, or nothing else is cheap.
    """

    term: str
    right: float
    best: float
    changes: tuple[str, ...] = ()


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
