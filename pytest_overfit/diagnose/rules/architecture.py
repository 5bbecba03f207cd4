"""The model: units that do nothing, outputs that cannot get there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence, Module, Output
from pytest_overfit.diagnose.rules.graph import NEARLY_NOTHING
from pytest_overfit.diagnose.rules.seen import (
    best_of,
    learning,
    noted,
    predictions,
)
from pytest_overfit.judge.finding import number
from pytest_overfit.suggest import shorten

ALL = 0.95
FLAT = 1e-5  # deviation over the samples relative to the size: they are all alike
RANGES = {
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Hardtanh": (-1.0, 1.0),
    "Relu": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "Abs": (0.0, math.inf),
}


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
            + (f"; passes in {attempt.passed_at} steps with fresh weights" if proven and attempt else ""),
            "look at bias and weights before it, lower the learning rate, or use LeakyReLU or GELU",
            "proven" if proven else "shown" if when == "at the start" else "observed",
            {"dead": worst.numbers["dead"], "units": worst.numbers["units"]},
            weight=0.94 if not exploded else 0.3,
        )
        return


def alike(evidence: Evidence) -> Iterator[Cause]:
    """Units, or whole branches, that start and stay identical."""
    copies = [key.partition(":")[2] for key in evidence.counts if key.startswith("alike:")]
    rows = [m for m in evidence.moves if m.rows_alike and len(m.shape) > 1 and m.shape[0] > 1 and m.size > 0]
    zeros = [m for m in evidence.moves if m.size == 0 and len(m.shape) > 1 and m.shape[0] > 1]
    attempt = evidence.attempt("fresh weights")
    proven = attempt is not None and attempt.passed
    copies = [name for name in copies if _stay(evidence, name)]
    if copies:
        yield Cause(
            "symmetry",
            copies[0],
            f"all members of {copies[0]} start with the same weights",
            "build each of them anew instead of copying one",
            "shown",
            {},
            certain=True,
            weight=0.96,
        )
    if evidence.learned:
        return
    hidden = [m for m in rows if m.rows_alike_after or m.gradient is None or proven]
    if len(hidden) >= 1 and (len(hidden) > 1 or proven):
        yield Cause(
            "symmetry",
            shorten(m.name for m in hidden),
            f"all rows of {len(hidden)} weights start alike and get the same gradient"
            + (f"; passes in {attempt.passed_at} steps with fresh weights" if proven and attempt else ""),
            "initialise weights at random",
            "proven" if proven else "shown",
            {"weights": len(hidden)},
            weight=0.92,
        )
    elif len(zeros) > 1:
        stuck = [m.name for m in zeros if not m.gradient]
        if stuck:
            yield Cause(
                "zero-gradient",
                shorten(m.name for m in zeros),
                f"{len(zeros)} weights start at zero, and the gradient of {len(stuck)} of them is zero for it"
                + (f"; passes in {attempt.passed_at} steps with fresh weights" if proven and attempt else ""),
                "initialise them at random; at most one factor of a product may start at zero",
                "proven" if proven else "shown",
                {"weights": len(zeros)},
                weight=0.95,
            )


def _stay(evidence: Evidence, name: str) -> bool:
    """Whether copies could have parted: those that get the same gradient in the first step do not."""
    groups: dict[str, list[float]] = {}
    for m in evidence.moves:
        if m.name.startswith(f"{name}.") and m.gradient is not None:
            rest = m.name.removeprefix(f"{name}.").partition(".")[2]
            groups.setdefault(rest, []).append(m.gradient)
    several = [values for values in groups.values() if len(values) > 1]
    return bool(several) and all(max(v) - min(v) <= 1e-6 * max(v) for v in several if max(v) > 0)


def saturated(evidence: Evidence) -> Iterator[Cause]:
    """Squashing functions at their bounds, where they have no slope."""
    far = any(t.is_input and max(abs(t.low), abs(t.high)) > 50 for t in evidence.probed.tensors)
    for op in noted(evidence):
        bound = op.numbers.get("bound", 0.0)
        if (
            op.name in ("tanh", "sigmoid")
            and bound > 0.6
            and math.prod(op.shapes[-1] or (1,)) >= 4
            and not evidence.learned
        ):
            yield Cause(
                "saturation",
                op.where,
                f"{bound:.0%} of {op.name}'s outputs are at its bounds from the start (inputs "
                f"{number(op.numbers.get('low', 0))} to {number(op.numbers.get('high', 0))})",
                "scale its input down, or initialise the weights before it smaller",
                "shown",
                {"bound": bound},
                weight=0.6 if far else 0.93,
            )
            return
        hot = op.name == "attention" and bound > 0.9 and op.numbers.get("deviation", 0) > 30
        peaked = (
            op.name == "softmax"
            and bound > 0.9
            and op.region != LOSS
            and op.numbers.get("length", 0) > 3
            and op.numbers.get("high", 0) - op.numbers.get("low", 0) > 200
        )
        if hot or peaked:
            yield Cause(
                "saturation",
                op.where,
                f"{bound:.0%} of the attention rows put everything on one key from the start (logits of deviation "
                f"{number(op.numbers.get('deviation', op.numbers.get('high', 0)))})",
                "scale the logits by 1 / sqrt(width), or initialise queries and keys smaller",
                "shown",
                {"bound": bound},
                certain=hot,
                weight=0.9,
            )
            return
    if evidence.learned or not evidence.steps:
        return
    gates = [
        m
        for m in evidence.steps[0].modules
        if m.kind in ("LSTM", "GRU", "RNN") and 0 <= max(abs(m.low), abs(m.high)) < 1e-6
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


def out_of_range(evidence: Evidence) -> Iterator[Cause]:
    """The last activation cannot reach the targets."""
    if evidence.learned:
        return
    targets = [t for t in evidence.probed.tensors if t.is_target and t.dtype.startswith("float") and t.finite]
    for output in predictions(evidence):
        low, high = RANGES.get(output.final, (-math.inf, math.inf))
        best_low, best_high = best_of(evidence, output.name)
        op = next(
            (
                op
                for op in noted(evidence)
                if op.final == output.final
                and "target_low" in op.numbers
                and op.name in ("difference", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
            ),
            None,
        )
        wanted = (op.numbers["target_low"], op.numbers["target_high"]) if op else (best_low, best_high)
        bounded = math.isfinite(low) or math.isfinite(high)
        slack = 0.05 * (wanted[1] - wanted[0]) + 1e-6
        if bounded and (wanted[0] < low - slack or wanted[1] > high + slack):
            yield Cause(
                "output-range",
                f"output {output.name}, made by {output.final.lower()}",
                f"{output.final.lower()} gives {_interval(low, high)}, and the loss wants {number(wanted[0])} to "
                f"{number(wanted[1])}",
                f"remove the {output.final.lower()} at the end, or scale it to the targets",
                "shown",
                {"low": wanted[0], "high": wanted[1]},
                weight=0.95 if op else 0.8,
            )
            return
        squashed = next(
            (
                o
                for o in evidence.probed.ops
                if o.name in ("tanh", "sigmoid")
                and o.region != LOSS
                and o.numbers["bound"] > 0
                and o.shapes[-1] == output.shape
            ),
            None,
        )
        if best_high <= best_low and op is None and targets:
            best_low, best_high = targets[0].low, targets[0].high
        edge = next((e for e in (output.high, -output.low) if abs(e - 1) < 2e-3), None)
        inside = max(-output.low, output.high) < 1.002
        if squashed is None and edge is not None and inside and op is not None and max(map(abs, wanted)) > 3:
            yield Cause(
                "output-range",
                f"output {output.name}",
                f"{output.name} ends at {number(output.low)} to {number(output.high)}, and the loss wants "
                f"{number(wanted[0])} to {number(wanted[1])}",
                "bring targets and outputs to one range",
                "shown",
                {"low": best_low, "high": best_high},
                weight=0.86,
            )
            return
        if squashed is not None and best_high > best_low and _outside(output, best_low, best_high):
            yield Cause(
                "output-range",
                f"output {output.name}, {squashed.where}",
                f"{output.name} ends at {number(output.low)} to {number(output.high)}, "
                f"{squashed.numbers['bound']:.0%} of it at the bounds of {squashed.name}; "
                f"the loss wants {number(best_low)} to {number(best_high)}",
                f"scale the {squashed.name} to the targets, or remove it",
                "shown",
                {"low": best_low, "high": best_high},
                weight=0.85,
            )
            return


def _interval(low: float, high: float) -> str:
    return (
        f"{number(low)} to {number(high)}"
        if math.isfinite(low) and math.isfinite(high)
        else f"at least {number(low)}"
        if math.isfinite(low)
        else f"at most {number(high)}"
    )


def _outside(output: Output, low: float, high: float) -> bool:
    slack = 0.1 * (high - low)
    return high > output.high + slack or low < output.low - slack


def scaled_away(evidence: Evidence) -> Iterator[Cause]:
    """The output, or a branch, is multiplied by next to nothing."""
    if not evidence.steps:
        return
    modules = evidence.steps[0].modules
    floor = evidence.probed.floor
    pairs = [(a, b) for a, b in itertools.pairwise(modules) if a.inside and b.inside and a.shape == b.shape]
    gone = next(((a, b) for a, b in pairs if 0 < b.size < 1e-4 * a.size and b.finite), None)
    if gone is not None and not evidence.learned:
        before, after = gone
        yield Cause(
            "output-scale",
            f"module {after.name} ({after.kind})",
            f"{after.name} makes a size of {number(before.size)} into one of {number(after.size)} in the first "
            "forward pass",
            "remove the factor, or learn it",
            "shown",
            {"ratio": after.size / before.size},
            weight=0.91,
        )
        return
    for output in predictions(evidence) if not evidence.learned else ():
        alike = [m for m in modules if m.inside and m.shape == output.shape and m.size > 0]
        drop = max(itertools.pairwise(alike), key=lambda pair: pair[0].size / pair[1].size, default=None)
        if drop is None or drop[1].size > 1e-3 * drop[0].size:
            continue
        before, after = drop
        wants = max(map(abs, best_of(evidence, output.name))) if floor is not None else 1.0
        if wants > 100 * after.size:
            yield Cause(
                "output-scale",
                f"module {after.name} ({after.kind})",
                f"{after.name} makes a size of {number(before.size)} into one of {number(after.size)}, and the loss "
                f"wants up to {number(wants)}",
                "remove the factor, or learn it",
                "shown",
                {"ratio": after.size / before.size},
                weight=0.95,
            )
            return
    norms = {p.name: p.max_grad for p in learning(evidence) if p.trainable and p.max_grad is not None}
    typical = sorted(norm for norm in norms.values() if norm)
    middle = typical[len(typical) // 2] if typical else 0.0
    faint = [name for name, norm in norms.items() if 0 < norm < 1e-6 * middle]
    branches = {name.rpartition(".")[0] for name in faint if ".weight" in name}
    if (
        faint
        and branches
        and evidence.record.stop != "non_finite"
        and not any(m.name in faint and m.size == 0 for m in evidence.moves)
    ):
        yield Cause(
            "output-scale",
            shorten(faint),
            f"the gradient of {len(faint)} tensors never exceeds {number(max(norms[n] for n in faint))}; the median "
            f"of the others is {number(middle)}: what they make is scaled to nothing",
            "look for a tiny factor behind these modules",
            "shown",
            {"largest": max(norms[n] for n in faint), "median": middle},
            certain=max(norms[n] for n in faint) < 1e-7 * middle,
            weight=0.7,
        )


def all_alike(evidence: Evidence) -> Iterator[Cause]:
    """Every sample gets the same output, though the inputs differ and so do the targets."""
    if evidence.learned or evidence.record.stop in ("detached", "non_finite"):
        return
    for modules, when in (
        (evidence.steps[0].modules if evidence.steps else (), "from the start"),
        (evidence.probed.modules, "at the end"),
    ):
        roots = [m for m in modules if m.spread is not None]
        if (
            not roots
            or roots[-1].spread is None
            or roots[-1].spread > FLAT
            or (roots[-1].size == 0 and when == "from the start")
        ):
            continue
        first = next(
            (m for m in roots if m.spread is not None and m.spread <= FLAT and (m.input_spread or 0) > FLAT), None
        )
        if first is None:
            continue
        if when == "at the end" and any(m.size == 0 for m in roots):
            continue
        yield Cause(
            "constant-output",
            f"module {first.name} ({first.kind})",
            f"{when} all samples get the same output: {first.name} makes inputs that differ by "
            f"{number(first.input_spread or 0)} of their size into outputs that differ by "
            f"{number(first.spread or 0)}",
            _why_alike(first),
            "shown",
            {"input_spread": first.input_spread or 0.0, "spread": first.spread or 0.0},
            weight=0.85 if when == "from the start" else 0.6,
        )
        return
    for output in predictions(evidence):
        wanted = best_of(evidence, output.name)
        if (
            output.constant_within
            and wanted[1] - wanted[0] > 1e-3
            and (output.spread or 0) >= 0
            and len(output.shape) > 2
        ):
            yield Cause(
                "constant-output",
                f"output {output.name}",
                f"all {math.prod(output.shape[1:])} elements of a sample's {output.name} are the same "
                f"({number(output.low)} to {number(output.high)} over the samples), and the loss wants "
                f"{number(wanted[0])} to {number(wanted[1])}",
                "predict every element from features of its own, not from a pooled vector",
                "shown",
                {"low": wanted[0], "high": wanted[1]},
                weight=0.85,
            )
            return


def _why_alike(module: Module) -> str:
    if "Norm" in module.kind and (not module.shape or module.shape[-1] == 1):
        return "normalise over more than one feature"
    if "softmax" in module.kind.lower():
        return "take softmax over the classes; over one logit it is 1"
    return f"look at what {module.name} does with its input: a mean, a zero, a mask, a dead or saturated unit"


def flat_attention(evidence: Evidence) -> Iterator[Cause]:
    """Attention that weighs all keys alike after training: queries and keys get no gradient."""
    for op in evidence.probed.ops:
        flat = op.name == "attention" and op.numbers["deviation"] == 0 and op.numbers["length"] > 2
        level = op.name == "softmax" and op.region != LOSS and op.numbers.get("length", 0) > 2
        level = level and op.numbers.get("ranks", 0) > 2 and op.numbers.get("low", 0) == op.numbers.get("high", 1)
        if flat or level:
            yield Cause(
                "zero-gradient",
                op.where,
                "all attention logits are the same after training: every key weighs alike, queries and keys learn "
                "nothing",
                "look at the scale of the logits, 1 / sqrt(width)",
                "shown",
                {"deviation": 0.0},
                certain=True,
                weight=0.9,
            )
            return


def one_logit(evidence: Evidence) -> Iterator[Cause]:
    """A softmax over a single number is 1, whatever the number."""
    for op in noted(evidence):
        if op.name in ("softmax", "log_softmax") and op.numbers.get("length") == 1 and op.numbers.get("ranks", 0) > 0:
            yield Cause(
                "constant-output",
                op.where,
                f"{op.name} runs over an axis of one element (shape {op.shapes[-1]}): its output is the same for "
                "all inputs",
                "use a sigmoid for one logit, or two logits",
                "shown",
                {"length": 1.0},
                certain=True,
                weight=0.97,
            )
            return


def too_small(evidence: Evidence) -> Iterator[Cause]:
    """Nothing else is wrong, the loss could get there, and a layer is as narrow as can be."""
    if evidence.learned or not evidence.steps or not evidence.objective:
        return
    floor, limit = evidence.probed.floor, evidence.limit_of_objective()
    reachable = floor is not None and limit is not None and floor.reached < max(limit, 0.1 * min(evidence.objective))
    kinds = {m.name: m.kind for m in evidence.steps[0].modules}
    order = [m.name for m in evidence.steps[0].modules]
    homes = {m.name.rpartition(".")[0]: m.shape[1] for m in evidence.moves if len(m.shape) > 1}
    inner = [
        m
        for place, m in enumerate(evidence.steps[0].modules)
        if any(homes.get(later) == _width(m) for later in order[place + 1 :])
        and m.kind in ("Linear", "Conv1d", "Conv2d")
        and m.shape
        and m.parameters
    ]
    narrow = min(inner, key=_width, default=None)
    outputs = max((math.prod(o.shape[1:]) for o in predictions(evidence) if len(o.shape) > 1), default=1)
    books = [
        m
        for m in evidence.moves
        if len(m.shape) == 2 and m.shape[0] == 1 < m.shape[1] and kinds.get(m.name.rpartition(".")[0], "") != "Linear"
    ]
    tiny = narrow is not None and _width(narrow) <= 2 and outputs > _width(narrow)
    if not reachable or not (tiny or books) or floor is None:
        return
    width = _width(narrow) if tiny and narrow else 1
    where = f"module {narrow.name}" if tiny and narrow else books[0].name
    yield Cause(
        "capacity",
        where,
        f"over free predictions the loss gets to {number(floor.reached)}, the model to "
        f"{number(min(evidence.objective))}: "
        f"{where} passes on {width} number{'s' if width > 1 else ''} per place for {outputs} outputs",
        "widen it",
        "shown",
        {"width": float(width), "outputs": float(outputs)},
        weight=0.78,
    )


def _width(module: Module) -> int:
    return module.shape[1] if module.kind.startswith("Conv") and len(module.shape) > 2 else module.shape[-1]


RULES = (dead, alike, saturated, out_of_range, scaled_away, all_alike, flat_attention, one_logit, too_small)
