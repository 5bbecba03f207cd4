"""The optimizer and the update: what it holds, and whether anything moves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.rules.seen import (
    is_declared,
    learning,
    passed_with,
)
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

FAR_CLIPPED = 100.0  # norm of a gradient over what it is clipped to
SCALE_FREE = frozenset({"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "RMSprop", "Adafactor", "Lion"})
FAR_ABOVE_EPSILON = 1e-3  # a norm of gradients that the eps of an optimizer does not feel


def left_out(evidence: Evidence) -> Iterator[Cause]:
    """Trainable parameters are in no optimizer."""
    trainable = [p for p in learning(evidence) if p.trainable]
    missing = [p for p in trainable if not p.in_optimizer]
    if not missing or (evidence.own_step and not evidence.groups):
        return
    foreign = any(step.foreign_in_optimizer for step in evidence.steps) or _holds_others(evidence)
    whole = len(missing) == len(trainable)
    yield Cause(
        "optimizer-coverage",
        shorten(p.name for p in missing),
        f"{len(missing)} of {len(trainable)} trainable parameter tensors are in no optimizer"
        + (", and the optimizer holds parameters that are not the model's" if foreign else ""),
        "build the optimizer from model.parameters() after the last change to the model",
        "shown",
        {"missing": len(missing), "trainable": len(trainable)},
        certain=True,
        weight=0.93 if whole and evidence.own_step else 0.97,
    )


def _holds_others(evidence: Evidence) -> bool:
    return any(group.tensors > len(group.names) for group in evidence.groups)


def no_update(evidence: Evidence) -> Iterator[Cause]:
    """Parameters get gradients, are stepped, and stay bit for bit what they were."""
    if not evidence.counts.get("steps") or evidence.record.stop == "non_finite":
        return
    rates_of = {name: max(g.rates) for g in evidence.groups for name in g.names if g.rates}
    alive = any(event.numbers.get("living", 1) for _, event in evidence.events("step"))
    middle = statistics.median([m.gradient for m in evidence.moves if m.gradient] or [0.0])
    still = [
        m
        for m in evidence.moves
        if m.still
        and m.gradient
        and m.gradient > 1e-6 * middle
        and rates_of.get(m.name, 0) > 0
        and not any(m.ratios)
        and not is_declared(m.name, evidence)
    ]
    if not still or not alive:
        return
    half = all(m.dtype in ("bfloat16", "float16") for m in still)
    yield Cause(
        "precision" if half else "no-update",
        shorten(m.name for m in still),
        f"{len(still)} parameter tensors have gradients and a learning rate of up to "
        f"{number(max(rates_of[m.name] for m in still))}, and are bit for bit what they were after "
        f"{evidence.counts['steps']} steps"
        + (f": the update is below the precision of {still[0].dtype}" if half else ""),
        "keep float32 weights, and use autocast for the forward pass"
        if half
        else "update parameters in place: p.data.add_(...), under torch.no_grad()",
        "shown",
        {"tensors": len(still)},
        certain=True,
        weight=0.92,
    )


def clipped_away(evidence: Evidence) -> Iterator[Cause]:
    """Clipping leaves a hundredth of the gradient or less."""
    worst = max(
        (
            (event.numbers["norm"] / event.numbers["most"], event)
            for _, event in evidence.events("clip")
            if event.numbers["most"] > 0 and event.numbers["norm"]
        ),
        key=lambda pair: pair[0],
        default=None,
    )
    if worst is None or worst[0] < FAR_CLIPPED or evidence.learned:
        return
    ratio, event = worst
    proven = passed_with(evidence, "our step") or passed_with(evidence, "no clipping")
    if not proven and event.numbers["most"] >= FAR_ABOVE_EPSILON and _scale_free(evidence):
        return
    yield Cause(
        "grad-clip",
        event.line or "the train step",
        f"gradients of {number(event.numbers['norm'])} are clipped to {number(event.numbers['most'])}: {ratio:.3g} "
        "times less" + ("; the run passes without clipping" if proven else ""),
        f"clip at {number(10 ** math.ceil(math.log10(event.numbers['norm'])))}, above the usual norm, or not at all",
        "proven" if proven else "shown",
        {"norm": event.numbers["norm"], "most": event.numbers["most"]},
        weight=0.95,
    )


def _scale_free(evidence: Evidence) -> bool:
    """Whether the steps are the same for gradients a hundred times smaller: divided by their own size."""
    kinds = {group.kind for group in evidence.groups}
    return bool(kinds) and kinds <= SCALE_FREE


RULES = (left_out, no_update, clipped_away)
