"""Numbers that are none, numbers that are too coarse, gradients that are too large."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence, Op
from pytest_overfit.diagnose.rules.seen import proof
from pytest_overfit.judge.finding import number
from pytest_overfit.run.record import NonFinite

HALF = ("float16", "bfloat16")
EXPLODED = 30.0
EARLY = 2  # steps: what is not finite by then was built so


def not_finite(evidence: Evidence) -> Iterator[Cause]:
    """Where the first NaN or infinity arose, and what fed it."""
    bad, probed = evidence.record.non_finite, evidence.probed
    if bad is None:
        return
    half = _half(evidence, probed.first_bad)
    if half:
        yield _in_half(bad, half, probed.first_bad)
    if probed.first_bad is not None:
        yield _at_operation(bad, probed.first_bad)
    elif probed.bad_gradient is not None:
        yield _at_gradient(bad, probed.bad_gradient)
    elif probed.huge is not None:
        yield _after_huge(bad, probed.huge)
    else:
        yield _somewhere(bad)


def _in_half(bad: NonFinite, half: str, op: Op | None) -> Cause:
    return Cause(
        "precision",
        op.where if op else bad.what,
        f"{bad.what} is not finite at step {bad.step} in {half}: {_fed(op) if op else 'its range ends at 65504'}",
        "use bfloat16 or float32 here, or scale the loss",
        "shown",
        {"step": bad.step},
        certain=True,
        weight=0.97,
    )


def _at_operation(bad: NonFinite, op: Op) -> Cause:
    kind = "nonfinite-output" if op.region != LOSS else "nonfinite-loss"
    if bad.what.startswith("gradient"):  # the value was left out on the way forward, and not on the way back
        kind = "nonfinite-gradient"
    return Cause(
        kind,
        op.where,
        f"{op.name}() gives the first value that is not finite, at step {bad.step}: {_fed(op)}",
        _guard(op.name),
        "shown",
        {"step": bad.step, **op.numbers},
        certain=True,
        weight=0.96 if bad.step <= EARLY else 0.5,
    )


def _at_gradient(bad: NonFinite, op: Op) -> Cause:
    return Cause(
        "nonfinite-gradient",
        f"{op.line or LOSS}, the backward pass of {op.name}",
        f"the backward pass of {op.name} gives NaN at step {bad.step}, with finite losses: a root, "
        "logarithm or norm at zero",
        "put a small number under the root (x + eps).sqrt(), or a safe value inside torch.where",
        "shown",
        {"step": bad.step},
        certain=True,
        weight=0.95 if bad.step <= EARLY else 0.8,
    )


def _after_huge(bad: NonFinite, op: Op) -> Cause:
    return Cause(
        "nonfinite-output" if op.region != LOSS else "nonfinite-loss",
        op.where,
        f"{op.name}() gives {number(op.numbers['high'])} from {number(op.numbers['low0'])} to "
        f"{number(op.numbers['high0'])}, and {bad.what} is not finite at step {bad.step}",
        _guard(op.name),
        "shown",
        {"step": bad.step, **op.numbers},
        certain=True,
        weight=0.94 if bad.step <= EARLY else 0.5,
    )


def _somewhere(bad: NonFinite) -> Cause:
    kinds = {"gradient": "nonfinite-gradient", "prediction": "nonfinite-output"}
    return Cause(
        next((kind for word, kind in kinds.items() if word in bad.what), "nonfinite-loss"),
        bad.module or bad.what,
        f"{bad.what} is not finite at step {bad.step}",
        "look at what feeds it in that step",
        "observed",
        {"step": bad.step},
        certain=True,
        weight=0.6,
    )


def _half(evidence: Evidence, op: Op | None) -> str:
    if op is not None and op.notes.get("dtype") in HALF:
        return op.notes["dtype"]
    kinds = {m.dtype for m in evidence.moves}
    return next((kind for kind in HALF if kind in kinds), "")


def _fed(op: Op) -> str:
    ranges = [
        f"{number(op.numbers[f'low{i}'])} to {number(op.numbers[f'high{i}'])}"
        for i in (0, 1)
        if f"low{i}" in op.numbers
    ]
    if op.notes.get("sound") == "False":
        return "its input is not finite already"
    return f"it was given {' and '.join(ranges)}" if ranges else "its input was finite"


def _guard(name: str) -> str:
    bare = name.strip("_")
    if bare.startswith("log") and "softmax" not in bare:
        return "take the logarithm of something positive: clamp(min=eps), softplus or log_softmax"
    if bare in ("div", "truediv", "mean", "std", "var", "true_divide", "cross_entropy"):
        return "guard the division: clamp(min=1) on a count, + eps on a deviation, and fail on an empty mask"
    if bare in ("exp", "pow", "square", "softplus", "sum", "mul"):
        return "bound what goes in: clamp it, or work with logarithms"
    if "softmax" in bare or "attention" in bare:
        return "leave at least one key unmasked in every row"
    return "guard this operation against the values that it was given"


def coarse(evidence: Evidence) -> Iterator[Cause]:
    """Half precision where the update needs more."""
    attempt = evidence.attempt("float32")
    proven = attempt is not None and attempt.passed
    half = [m for m in evidence.moves if m.dtype in HALF]
    if not half or evidence.learned or evidence.record.non_finite is not None:
        return
    rounded = [m for m in half if m.gradient and len(m.ratios) > 1 and not any(m.ratios[1:])]
    if proven or rounded:
        yield Cause(
            "precision",
            half[0].name,
            f"{len(half)} parameter tensors are {half[0].dtype}"
            + (f", and updates of {len(rounded)} of them are rounded away" if rounded else "")
            + proof(attempt, "in float32"),
            "keep the weights in float32 and use autocast",
            "proven" if proven else "shown",
            {"tensors": len(half)},
            weight=0.96,
        )


def explodes(evidence: Evidence) -> Iterator[Cause]:
    """Activations and gradients are far too large from the start."""
    if evidence.learned or not evidence.steps:
        return
    attempt = evidence.attempt("fresh weights")
    proven = attempt is not None and attempt.passed
    real = [m for m in evidence.steps[0].modules if m.finite]
    inputs = max((abs(t.mean) + t.deviation for t in evidence.probed.tensors if t.is_input), default=1.0)
    wild = [m for m in real if m.size > EXPLODED * max(1.0, inputs)]
    gradient = max((m.gradient or 0.0 for m in evidence.moves), default=0.0)
    if not wild or (inputs > 20 and not proven):
        return
    first, last = wild[0], max(wild, key=lambda m: m.size)
    yield Cause(
        "gradient-explosion",
        f"module {first.name}",
        f"activations grow to {number(last.size)} (module {last.name}) in the first forward pass, and the largest "
        f"gradient is {number(gradient)}" + proof(attempt, "with fresh weights"),
        "initialise the weights with a deviation of 1 / sqrt(inputs), or normalise between layers",
        "proven" if proven else "shown",
        {"activation": last.size, "gradient": gradient},
        weight=0.9,
    )


RULES = (not_finite, coarse, explodes)
