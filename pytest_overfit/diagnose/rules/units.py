"""Units that do nothing: rectified ones that never fire, squashed ones at their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence, Op
from pytest_overfit.diagnose.rules.graph import NEARLY_NOTHING
from pytest_overfit.diagnose.rules.seen import learning, noted, proof
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

ALL = 0.95  # of the units of a layer: so many that fire for no sample
AT_BOUNDS = 0.6  # of the outputs of a squashing function
ON_ONE_KEY = 0.9  # of the rows of an attention
HOT = 30.0  # deviation of attention logits that are hot from the start
SHUT = 1e-6  # largest output of a recurrent layer whose gates are shut


def dead(evidence: Evidence) -> Iterator[Cause]:
    """Rectified units that fire for no sample."""
    if evidence.learned or evidence.record.non_finite is not None:
        return
    norms = {p.name: p.max_grad for p in learning(evidence) if p.trainable}
    largest = max((norm for norm in norms.values() if norm), default=0.0)
    silent = [name for name, norm in norms.items() if norm is not None and norm <= NEARLY_NOTHING * largest]
    for ops, when in ((noted(evidence), "at the start"), (evidence.probed.ops, "at the end")):
        worst = max(
            (op for op in ops if op.name == "relu" and op.region != LOSS and op.numbers["units"] > 0),
            key=lambda op: op.numbers["dead"],
            default=None,
        )
        if worst is None or worst.numbers["dead"] < ALL or (worst.numbers["units"] == 1 and when == "at the end"):
            continue
        attempt = evidence.attempt("fresh weights")
        proven = attempt is not None and attempt.passed
        exploded = when == "at the end" and max(map(abs, evidence.objective), default=0.0) > 10 * abs(
            evidence.objective[0] if evidence.objective else 1
        )
        yield Cause(
            "dead-units",
            worst.where,
            f"{worst.numbers['dead']:.0%} of {worst.numbers['units']:.0f} units fire for no sample {when}"
            + (f"; no gradient reaches {shorten(silent)}" if silent else "")
            + proof(attempt, "with fresh weights"),
            "look at bias and weights before it, lower the learning rate, or use LeakyReLU or GELU",
            "proven" if proven else "shown" if when == "at the start" else "observed",
            {"dead": worst.numbers["dead"], "units": worst.numbers["units"]},
            weight=0.94 if not exploded else 0.3,
        )
        return


def saturated(evidence: Evidence) -> Iterator[Cause]:
    """Squashing functions at their bounds, where they have no slope."""
    for op in noted(evidence):
        if _squashed(op) and not evidence.learned:
            yield _at_bounds(evidence, op)
            return
        if _is_hot(op) or _is_peaked(op):
            yield _on_one_key(op)
            return
    if not evidence.learned and evidence.steps:
        yield from _shut_gates(evidence)


def _squashed(op: Op) -> bool:
    many = op.name in ("tanh", "sigmoid") and math.prod(op.shapes[-1] or (1,)) >= 4
    return many and op.numbers.get("bound", 0.0) > AT_BOUNDS


def _at_bounds(evidence: Evidence, op: Op) -> Cause:
    far = any(t.is_input and max(abs(t.low), abs(t.high)) > 50 for t in evidence.probed.tensors)
    bound = op.numbers["bound"]
    return Cause(
        "saturation",
        op.where,
        f"{bound:.0%} of {op.name}'s outputs are at its bounds from the start (inputs "
        f"{number(op.numbers.get('low', 0))} to {number(op.numbers.get('high', 0))})",
        "scale its input down, or initialise the weights before it smaller",
        "shown",
        {"bound": bound},
        weight=0.6 if far else 0.93,
    )


def _is_hot(op: Op) -> bool:
    numbers = op.numbers
    return op.name == "attention" and numbers["bound"] > ON_ONE_KEY and numbers.get("deviation", 0) > HOT


def _is_peaked(op: Op) -> bool:
    """A softmax over several keys, by hand, of logits that lie hundreds apart."""
    by_hand = op.name == "softmax" and op.region != LOSS and op.numbers.get("length", 0) > 3
    apart = op.numbers.get("high", 0) - op.numbers.get("low", 0) > 200
    return by_hand and apart and op.numbers.get("bound", 0.0) > ON_ONE_KEY


def _on_one_key(op: Op) -> Cause:
    bound = op.numbers["bound"]
    return Cause(
        "saturation",
        op.where,
        f"{bound:.0%} of the attention rows put everything on one key from the start (logits of deviation "
        f"{number(op.numbers.get('deviation', op.numbers.get('high', 0)))})",
        "scale the logits by 1 / sqrt(width), or initialise queries and keys smaller",
        "shown",
        {"bound": bound},
        certain=_is_hot(op),
        weight=0.9,
    )


def _shut_gates(evidence: Evidence) -> Iterator[Cause]:
    gates = [
        m for m in evidence.steps[0].modules if m.kind in ("LSTM", "GRU", "RNN") and max(abs(m.low), abs(m.high)) < SHUT
    ]
    biases = [m for m in evidence.moves if "bias" in m.name and m.size > 5]
    if gates and biases:
        yield Cause(
            "saturation",
            f"module {gates[0].name}: {shorten(m.name for m in biases)}",
            f"the output of {gates[0].name} is at most {number(max(abs(gates[0].low), abs(gates[0].high)))}: its "
            f"gates start shut (biases of {number(biases[0].size)})",
            "start the biases of the gates at 0, the forget gate's at 1",
            "shown",
            {"output": gates[0].high},
            weight=0.93,
        )


def shut(evidence: Evidence) -> Iterator[Cause]:
    """Columns of an output behind a rectifier that is closed for every sample: no gradient opens it again."""
    rectifiers = [op for op in evidence.probed.ops if op.name == "relu" and op.region != LOSS and op.numbers["dead"]]
    if evidence.learned or evidence.record.non_finite is not None:
        return
    for output in evidence.probed.outputs:
        made = [
            op
            for op in rectifiers
            if op.numbers["units"] <= output.shape[-1]
            and 1 <= op.numbers["dead"] * op.numbers["units"] <= len(output.shut)
        ]
        if not made:
            continue
        several = len(output.shut) > 1
        yield Cause(
            "dead-units",
            made[-1].where,
            f"{'columns' if several else 'column'} {', '.join(map(str, output.shut))} of {output.name} "
            f"{'are' if several else 'is'} 0 for every sample at the end, and the loss wants more: behind a relu that "
            "is closed no gradient changes that",
            "initialise the bias before it so that it starts above zero, or use softplus or exp",
            "shown",
            {"shut": float(len(output.shut)), "columns": float(output.shape[-1])},
            weight=0.93,
        )
        return


RULES = (dead, shut, saturated)
