"""The loss as a whole: its shape, its activations, its clamps, its floor."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence
from pytest_overfit.diagnose.rules.seen import (
    REGRESSORS,
    noted,
)
from pytest_overfit.judge.finding import number

SAME = 0.05  # of a floor: two searches that lie closer have found the same one


def activated_twice(evidence: Evidence) -> Iterator[Cause]:
    """Probabilities where a loss wants logits."""
    for op in noted(evidence):
        low, high = op.numbers.get("low", -1.0), op.numbers.get("high", 2.0)
        if (
            op.name == "cross_entropy"
            and low >= 0
            and high <= 1
            and op.numbers.get("sum_error", 1.0) < 1e-3
            and op.numbers.get("classes", 0) > 1
        ):
            name, fix = "a softmax", "pass logits to cross_entropy"
        elif op.name == "binary_cross_entropy_with_logits" and low >= 0 and high <= 1 and op.final == "Sigmoid":
            name, fix = "a sigmoid", "pass logits to binary_cross_entropy_with_logits"
        elif op.name == "cross_entropy" and op.final == "Sigmoid" and low >= 0 and high <= 1:
            name, fix = "a sigmoid", "pass logits to cross_entropy"
        else:
            continue
        yield Cause(
            "double-activation",
            op.where,
            f"{op.name} gets the output of {name} ({number(low)} to {number(high)}), and applies one itself",
            f"{fix}: remove {name}",
            "shown",
            {"low": low, "high": high},
            certain=True,
            weight=0.97,
        )
        return


def broadcasts(evidence: Evidence) -> Iterator[Cause]:
    """A prediction and a target of different shapes meet as a table of all against all."""
    for op in noted(evidence):
        if (
            op.name in REGRESSORS
            and len(op.shapes) >= 2
            and op.shapes[0] != op.shapes[1]
            and op.shapes[0]
            and op.shapes[1]
        ):
            sure = True
        elif op.name == "broadcast" and op.region == LOSS and op.numbers.get("same_count") and op.numbers.get("grads"):
            sure = bool(op.numbers.get("ranks_differ"))
            if not sure and (evidence.passed or not _has_floor(evidence)):
                continue
        else:
            continue
        a, b = op.shapes[:2]
        yield Cause(
            "broadcast",
            op.where,
            f"{tuple(a)} meets {tuple(b)} in {op.notes.get('by', op.name)}, and becomes {_joint(a, b)}",
            "give prediction and target one shape: squeeze or unsqueeze one of them",
            "shown",
            {"elements": float(math.prod(_joint(a, b))), "wanted": float(math.prod(a))},
            certain=sure,
            weight=0.96,
        )
        return


def _joint(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    length = max(len(a), len(b))
    pairs = zip((1,) * (length - len(a)) + tuple(a), (1,) * (length - len(b)) + tuple(b), strict=True)
    return tuple(max(x, y) for x, y in pairs)


def clamped(evidence: Evidence) -> Iterator[Cause]:
    """A clamp stands between the loss and its gradient."""
    if evidence.learned:
        return
    for op in noted(evidence):
        if op.name != "clamp" or op.region != LOSS or not op.numbers["share"]:
            continue
        share = op.numbers["share"]
        if not (op.numbers["scalar"] or share > 0.1):
            continue
        what = "the loss itself" if op.numbers["scalar"] else f"{share:.0%} of what the loss reads"
        yield Cause(
            "loss-clamped",
            op.where,
            f"a clamp to {number(op.numbers['out_low'])}..{number(op.numbers['out_high'])} changes {what} "
            f"({number(op.numbers['low'])} to {number(op.numbers['high'])}): no gradient gets through it",
            "clip gradients, not the loss; clamp predictions after the loss",
            "shown",
            {"share": share},
            weight=0.94,
        )
        return


def floor(evidence: Evidence) -> Iterator[Cause]:
    """No prediction that a search finds brings the loss below its limit."""
    if not _has_floor(evidence):
        return
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    assert found is not None
    assert limit is not None
    if found.reads_weights:  # what is left is the weights' own part: see weight-decay
        return
    smoothing = max((op.numbers.get("smoothing", 0.0) for op in noted(evidence)), default=0.0)
    reached = found.reached
    ends = [reached] if found.elsewhere is None else sorted((reached, found.elsewhere))
    own = min((value for value in evidence.objective if value < (1 - SAME) * ends[0]), default=None)
    said = f"the best that a search over free predictions found is {number(ends[0])} (limit {number(limit)})"
    if ends[-1] > (1 + SAME) * ends[0]:
        said += f", from another start {number(ends[-1])}"
    if own is not None:
        said += f", and the run itself was at {number(own)}"
    local = own is not None or ends[-1] > (1 + SAME) * ends[0]  # a floor is where every search ends
    if smoothing:
        said += f"; label smoothing is {number(smoothing)}"
    if local:
        way_out = "look at the loss: it has several minima, so this is no floor, and a limit above it may hide a fault"
    elif smoothing:
        way_out = f"train this test without label smoothing, or state objective={number(1.1 * reached)}"
    else:
        way_out = f"state a limit above it: objective={number(1.1 * reached)}"
    near = bool(evidence.objective) and min(evidence.objective) < 1.5 * found.reached + 0.02 * evidence.objective[0]
    yield Cause(
        "loss-floor",
        LOSS,
        said,
        way_out,
        "shown",
        {"floor": found.reached, "limit": limit},
        weight=0.86 if near and not local else 0.5,
    )


def _has_floor(evidence: Evidence) -> bool:
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    if found is None or limit is None or limit <= 0 or found.steps < 50 or evidence.learned:
        return False
    if any(value < limit for value in evidence.objective):  # the run has been where the search did not get
        return False
    if found.elsewhere is not None and found.elsewhere <= limit:
        return False
    return found.reached > limit and not found.unbounded and found.reached > 0.02 * abs(found.start)


RULES = (activated_twice, broadcasts, clamped, floor)
