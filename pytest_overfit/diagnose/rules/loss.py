"""The loss as a whole: its shape, its floor, and what it compares with what."""

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


def vacuous(evidence: Evidence) -> Iterator[Cause]:
    """Nothing is supervised, or nothing can be wrong."""
    ops = noted(evidence)
    empty = next((op for op in ops if op.numbers.get("supervised") == 0), None)
    itself = next((op for op in ops if op.notes.get("same")), None)
    curve = evidence.objective
    zero = bool(curve) and max(map(abs, curve)) == 0
    if empty is not None:
        yield Cause(
            "vacuous",
            empty.where,
            f"{empty.name} has no supervised element: every label is ignored",
            "look at the labels, or fail on a batch without any",
            "shown",
            {"supervised": 0.0},
            certain=True,
            weight=0.975,
        )
    elif itself is not None and evidence.record.non_finite is None and (zero or _deaf(evidence)):
        yield Cause(
            "vacuous",
            itself.where,
            "the prediction is compared with itself",
            "compare it with the target",
            "shown",
            {},
            certain=True,
            weight=0.96,
        )
    elif zero and evidence.record.non_finite is None:
        yield Cause(
            "vacuous",
            LOSS,
            f"the objective is exactly 0 in all {len(curve)} steps: nothing is supervised, or nothing can be wrong",
            "look for an empty mask, a margin that every sample keeps, a target of zeros",
            "shown",
            {"objective": 0.0},
            certain=True,
            weight=0.965,
        )
    elif (
        "supervised" in evidence.missed
        and evidence.record.supervision is not None
        and evidence.record.non_finite is None
    ):
        seen = evidence.record.supervision
        if seen.answers and len(seen.unread) == len(seen.answers):
            yield Cause(
                "vacuous",
                LOSS,
                f"the loss does not change when any of {', '.join(seen.unread)} does",
                "compare the prediction with the target of the batch",
                "shown",
                {"unread": len(seen.unread)},
                certain=True,
                weight=0.8,
            )


def _deaf(evidence: Evidence) -> bool:
    """Whether the loss answers to no target of the batch."""
    seen = evidence.record.supervision
    return (
        seen is not None
        and bool(seen.answers)
        and all(key in seen.inputs or key in seen.unread for key in seen.answers)
    )


def unread_samples(evidence: Evidence) -> Iterator[Cause]:
    """The loss reads some of the samples only."""
    count, samples = evidence.probed.unread_samples, evidence.probed.samples
    if count and samples:
        yield Cause(
            "term-missing",
            LOSS,
            f"{count} of {samples} samples can be exchanged for another one, and the objective stays what it is: "
            "their outputs are not in it",
            "sum over the samples: += in place of =, and no return inside the loop",
            "shown",
            {"unread": count, "samples": samples},
            certain=True,
            weight=0.94,
        )


def unread_items(evidence: Evidence) -> Iterator[Cause]:
    """Of a list of samples, the loss reads an entry of some and not of others."""
    seen = evidence.record.supervision
    if seen is None:
        return
    named: dict[str, list[str]] = {}
    for key in seen.answers:
        index, _, name = key.partition(".")
        if index.isdecimal() and name:
            named.setdefault(name, []).append(key)
    terms = [name for name in next(iter(seen.answers.values()), {}) if name != "objective"] or ["objective"]
    for name, keys in named.items():
        for term in terms:
            unread = [key for key in keys if not seen.answers[key].get(term)]
            if len(keys) > 1 and unread and len(unread) < len(keys) and not _empty(evidence, unread):
                yield Cause(
                    "term-missing",
                    f"{', '.join(unread)} in {term}",
                    f"{term} answers to {name} of {len(keys) - len(unread)} of {len(keys)} samples: "
                    f"{', '.join(unread)} can be changed at will",
                    "sum over the samples: += in place of =, and no return inside the loop",
                    "shown",
                    {"unread": len(unread), "samples": len(keys)},
                    certain=True,
                    weight=0.94,
                )
                return


def _empty(evidence: Evidence, keys: list[str]) -> bool:
    """Whether a sample of a list has an entry without elements: there is nothing of it to be read."""
    items = {key.partition(".")[0] for key in keys}
    return any(t.key.partition(".")[0] in items and 0 in t.shape for t in evidence.probed.tensors)


def impossible_targets(evidence: Evidence) -> Iterator[Cause]:
    """Targets of a loss that takes probabilities, outside of 0..1."""
    for op in noted(evidence):
        low, high = op.numbers.get("target_low", 0.0), op.numbers.get("target_high", 0.0)
        if op.name.startswith("binary_cross_entropy") and (low < 0 or high > 1):
            yield Cause(
                "target-mismatch",
                op.where,
                f"{op.name} takes targets from 0 to 1, and gets {number(low)} to {number(high)}: it has no lower "
                "bound then",
                "map the labels to 0 and 1",
                "shown",
                {"low": low, "high": high},
                certain=True,
                weight=0.96,
            )
            return


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


def reduction(evidence: Evidence) -> Iterator[Cause]:
    """The size of the loss, and not its shape, is what the optimizer cannot take."""
    rate = next((a for a in evidence.attempts if a.passed and a.change.startswith("learning rate x")), None)
    summed = next((op for op in noted(evidence) if op.numbers.get("sum")), None)
    curve, limit = evidence.objective, evidence.limit_of_objective()
    elements = max(
        (float(math.prod(op.shapes[0])) for op in noted(evidence) if op.shapes and ("grad" in op.numbers)), default=0.0
    )
    sgd = any(g.kind == "SGD" for g in evidence.groups)
    if summed is not None and not evidence.learned and sgd:
        yield Cause(
            "loss-scale",
            summed.where,
            f"{summed.name} sums over {elements:.0f} elements in place of a mean",
            'use reduction="mean"',
            "proven" if rate else "shown",
            {"elements": elements},
            weight=0.85,
        )
    elif (
        rate is not None
        and rate.value
        and rate.was
        and rate.value < rate.was
        and sgd
        and curve
        and _summed(evidence, elements)
    ):
        yield Cause(
            "loss-scale",
            LOSS,
            f"the objective starts at {number(curve[0])}, about {elements:.0f} times the mean error of its "
            "elements, and learns with a hundredth of the rate",
            "take the mean in place of the sum",
            "proven",
            {"first": curve[0], "elements": elements},
            weight=0.8,
        )
    if curve and limit is not None and 0 < curve[0] < limit and "supervised" in evidence.missed and _moves(evidence):
        mean = _mean_error(evidence)
        if mean and curve[0] < 0.02 * mean:
            yield Cause(
                "loss-scale",
                LOSS,
                f"the objective starts at {number(curve[0])}, below its limit of {number(limit)}: the mean error of "
                f"its elements is {number(mean)}",
                "divide by the number of elements of this batch, not of a data set",
                "shown",
                {"first": curve[0], "mean_error": mean},
                weight=0.9,
            )


def _moves(evidence: Evidence) -> bool:
    return any(p.max_grad for p in evidence.record.parameters)


def _mean_error(evidence: Evidence) -> float | None:
    """A size of the mean squared error of the first step, from the ranges of what was compared."""
    chance = next(
        (
            math.log(op.numbers["classes"])
            for op in noted(evidence)
            if op.name == "cross_entropy" and op.numbers.get("classes", 0) > 1
        ),
        None,
    )
    if chance is not None:
        return chance
    op = next(
        (op for op in noted(evidence) if op.name in ("difference", *REGRESSORS) and "target_high" in op.numbers), None
    )
    if op is None:
        return None
    gap = max(abs(op.numbers["target_high"] - op.numbers["low"]), abs(op.numbers["high"] - op.numbers["target_low"]))
    return (gap / 3) ** 2


def _summed(evidence: Evidence, elements: float) -> bool:
    mean = _mean_error(evidence)
    return bool(mean) and elements >= 8 and evidence.objective[0] > 0.3 * elements * (mean or 0)


def floor(evidence: Evidence) -> Iterator[Cause]:
    """No prediction whatever brings the loss below its limit."""
    if not _has_floor(evidence):
        return
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    assert found is not None
    assert limit is not None
    if found.reads_weights:  # what is left is the weights' own part: see weight-decay
        return
    smoothing = max((op.numbers.get("smoothing", 0.0) for op in noted(evidence)), default=0.0)
    near = bool(evidence.objective) and min(evidence.objective) < 1.5 * found.reached + 0.02 * evidence.objective[0]
    yield Cause(
        "loss-floor",
        LOSS,
        f"over free predictions the objective gets to {number(found.reached)} at best (limit {number(limit)}), "
        "whatever the model returns" + (f"; label smoothing is {number(smoothing)}" if smoothing else ""),
        f"state a limit above it: objective={number(1.1 * found.reached)}"
        if not smoothing
        else f"train this test without label smoothing, or state objective={number(1.1 * found.reached)}",
        "shown",
        {"floor": found.reached, "limit": limit},
        weight=0.86 if near else 0.5,
    )


def _has_floor(evidence: Evidence) -> bool:
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    if found is None or limit is None or limit <= 0 or found.steps < 50 or evidence.learned:
        return False
    return found.reached > limit and not found.unbounded and found.reached > 0.02 * abs(found.start)


def ignores_output(evidence: Evidence) -> Iterator[Cause]:
    """The loss answers to nothing that the model returns."""
    if evidence.probed.weights_alone:
        yield Cause(
            "loss-ignores-output",
            LOSS,
            "no output of a model that is trained is in what is differentiated, and its gradient is the same for "
            "another batch: it comes from the weights alone",
            "compute the loss from the output of the model that is trained",
            "shown",
            {},
            certain=True,
            weight=0.95,
        )
        return
    found = evidence.probed.floor
    if found is not None and found.low and len(found.unread) == len(found.low) and not evidence.learned:
        yield Cause(
            "loss-ignores-output",
            LOSS,
            f"no gradient of the loss reaches {', '.join(found.unread)}",
            "compare the model's own output with the target",
            "shown",
            {"outputs": len(found.unread)},
            certain=True,
            weight=0.9,
        )


def mismatched(evidence: Evidence) -> Iterator[Cause]:
    """What is compared is the batch's target in another order.

    Beside the target as it is, that is a mixture of samples; and predictions may come in the same other order.
    """
    ops = (*noted(evidence), *evidence.probed.ops)
    plain = {op.notes["origin"] for op in ops if op.notes.get("origin") and not op.notes.get("turned")}
    seen = dict.fromkeys(
        (op.where, op.notes["origin"], op.notes["turned"])
        for op in ops
        if op.notes.get("turned")
        and op.notes["origin"] not in plain
        and not ("sample" in op.notes["turned"] and evidence.probed.paired)
    )
    for where, key, turned in seen:
        yield Cause(
            "target-mismatch",
            where,
            f"the loss compares with {key} {turned}",
            f"compare with {key} as the batch has it",
            "shown",
            {},
            certain=True,
            weight=0.95,
        )
        return


def mispaired(evidence: Evidence) -> Iterator[Cause]:
    """A prediction is held against the answer of another sample."""
    name = evidence.probed.mispaired
    if name:
        yield Cause(
            "target-mismatch",
            f"output {name}",
            f"half of the samples got other inputs, and other rows of {name} moved than those that answer to the "
            "targets of these samples: predictions and targets are in another order",
            "bring both into one order: sort the targets as the inputs are sorted, or undo the sorting of the outputs",
            "shown",
            {},
            certain=True,
            weight=0.95,
        )


def scrambled(evidence: Evidence) -> Iterator[Cause]:
    """Classes and places of an output are mixed up by a reshape."""
    for op in (*noted(evidence), *evidence.probed.ops):
        if op.notes.get("scrambled"):
            yield Cause(
                "target-mismatch",
                op.where,
                f"an output {op.notes['scrambled']} without its axes having been exchanged: its classes do not "
                "belong to its places",
                "permute first: logits.permute(0, 2, 3, 1).reshape(-1, classes)",
                "shown",
                {},
                certain=True,
                weight=0.95,
            )
            return


def scaled_backward(evidence: Evidence) -> Iterator[Cause]:
    """What is differentiated is a multiple of what is reported, and the optimizer takes it as it is."""
    if evidence.learned or not evidence.own_step or not evidence.steps:
        return
    ratios = [
        s.roots[0] / s.reported
        for s in evidence.steps
        if len(s.roots) == 1 and s.reported and math.isfinite(s.reported)
    ]
    if not ratios or max(ratios) - min(ratios) > 1e-2 * abs(ratios[0]) or 1e-2 < abs(ratios[0]) < 30:
        return
    yield Cause(
        "loss-scale",
        "the train step",
        f"what is differentiated is {number(ratios[0])} times the reported objective: gradients are as many times "
        "too large or small",
        "unscale gradients before the step (scaler.step(optimizer)), or differentiate the loss itself",
        "shown",
        {"ratio": ratios[0]},
        weight=0.94,
    )


def blind_views(evidence: Evidence) -> Iterator[Cause]:
    """One of several views has next to no valid pixel: nothing is learnt about it."""
    frames = evidence.views.frames if evidence.views is not None else ()
    blind = [frame for frame in frames if frame.valid < 0.01]
    if blind and len(blind) < len(frames):
        yield Cause(
            "vacuous",
            f"view {blind[0].view}",
            f"{blind[0].valid:.2%} of the pixels of view {blind[0].view} are valid, and up to "
            f"{max(f.valid for f in frames):.0%} of the others",
            "look at the mask and the depth file of that view",
            "shown",
            {"valid": blind[0].valid},
            certain=True,
            weight=0.9,
        )


RULES = (
    activated_twice,
    broadcasts,
    vacuous,
    unread_samples,
    unread_items,
    impossible_targets,
    clamped,
    reduction,
    floor,
    ignores_output,
    mismatched,
    mispaired,
    scrambled,
    scaled_backward,
    blind_views,
)
