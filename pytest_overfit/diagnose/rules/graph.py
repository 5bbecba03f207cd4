"""The graph from the loss back to the parameters: where it is cut, what it never reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence, Op
from pytest_overfit.diagnose.rules.seen import learning, proof, rebuilt
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.run.record import ParameterRecord

CUTTING = ("detach", "data", "item", "numpy", "tolist", "argmax", "fresh", "detach_", "multinomial", "one_hot", "gt",
           "lt", "ge", "le", "eq", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "long", "int")  # fmt: skip
FLAT = ("round", "sign", "floor", "ceil", "trunc", "heaviside", "sgn", "bucketize")
NEARLY_NOTHING = 1e-9  # of the largest gradient of the run


def detached(evidence: Evidence) -> Iterator[Cause]:
    """What is differentiated, or would be, has no way back to the model."""
    nothing = evidence.record.stop == "detached"
    first = evidence.steps[0] if evidence.steps else None
    cut = (
        first is not None
        and bool(first.roots)
        and not first.reached
        and not first.foreign
        and not first.foreign_in_optimizer
    )
    if not (nothing or cut) or first is None:
        return
    cuts = [
        op
        for op in first.ops
        if op.name in CUTTING and (op.name != "fresh" or op.notes.get("by") in ("tensor", "as_tensor", "from_numpy"))
    ]
    compared = [op for op in first.ops if op.name in ("difference",) or "grad" in op.numbers]
    reads = any(op.numbers.get("grad") for op in compared)
    if cuts:
        op = min(cuts, key=lambda op: op.region != LOSS)
        yield Cause(
            "loss-detached",
            op.where,
            f"the objective has no gradient: {_called(op)} cuts it from the model",
            f"keep the tensor itself in the loss, without {_called(op)}",
            "shown",
            {"cuts": len(cuts)},
            certain=True,
            weight=0.97,
        )
    yield Cause(
        "loss-ignores-output" if not cuts and not reads else "loss-detached",
        LOSS,
        "the objective has no gradient, and nothing that the model returned was cut on the way: it is computed "
        "from other tensors"
        if not cuts
        else "the objective has no gradient",
        "compare the model's own output with the target",
        "shown",
        {},
        certain=True,
        weight=0.9,
    )


def _called(op: Op) -> str:
    name = op.notes.get("by", op.name)
    return {"data": ".data", "item": ".item()", "detach": ".detach()", "numpy": ".numpy()", "tolist": ".tolist()"}.get(
        name, f"{name}()"
    )


def cut_off(evidence: Evidence) -> Iterator[Cause]:
    """Parameters that take part and get no gradient, and parameters that take no part."""
    if evidence.record.stop in ("detached", "no_trainable_parameters") or not evidence.steps:
        return
    first = evidence.steps[0]
    missing = [p for p in learning(evidence) if p.trainable and p.max_grad is None]
    trainable = [p for p in learning(evidence) if p.trainable]
    if not missing or (len(missing) == len(trainable) and not first.reached):
        return
    called = {module.name for module in first.modules}
    reached = set(first.reached)
    taking = [p for p in missing if _home(p) in called and p.name not in reached]
    idle = [p for p in missing if p not in taking and p.name not in reached]
    if taking:
        off = [module.name for module in first.modules if not module.grad_enabled]
        cuts = [op for op in first.ops if op.name in CUTTING and op.name != "item"]
        without = [p for p in taking if _home(p) in off]
        op = min(cuts, key=lambda op: op.region == LOSS, default=None)
        if without and len(without) == len(taking):
            how, place = (
                f"{shorten(dict.fromkeys(map(_home, without)))} ran without gradients",
                "call them outside of torch.no_grad()",
            )
        elif op is not None:
            how, place = (
                f"{_called(op)} cuts the graph in {op.where}",
                f"remove {_called(op)}, or declare it: unused=[...]",
            )
        else:
            how, place = (
                "the graph is cut behind them",
                "look for detach(), .data, .numpy(), no_grad or a new tensor behind these modules",
            )
        yield Cause(
            "no-gradient",
            shorten(p.name for p in taking),
            f"{len(taking)} of {len(trainable)} trainable tensors take part in the forward pass and get no "
            f"gradient: {how}",
            place,
            "shown",
            {"tensors": len(taking)},
            certain=True,
            weight=0.92,
        )
    if idle:
        yield Cause(
            "unused",
            shorten(p.name for p in idle),
            f"{len(idle)} of {len(trainable)} trainable tensors are not used in the forward pass",
            f"call them, remove them, or declare them: unused=[{_pattern(idle)!r}]",
            "shown",
            {"tensors": len(idle)},
            certain=True,
            weight=0.85 if not taking else 0.6,
        )


def _home(parameter: ParameterRecord) -> str:
    return parameter.name.rpartition(".")[0]


def _pattern(parameters: Sequence[ParameterRecord]) -> str:
    return f"{parameters[0].name.split('.')[0]}*"


def nothing_arrives(evidence: Evidence) -> Iterator[Cause]:
    """Gradients that are there, and exactly or nearly zero throughout."""
    if not evidence.steps or evidence.record.stop in ("detached", "non_finite"):
        return
    norms = {p.name: p.max_grad for p in learning(evidence) if p.trainable and p.max_grad is not None}
    largest = max(norms.values(), default=0.0)
    dead = [name for name, norm in norms.items() if norm <= NEARLY_NOTHING * largest]
    if not dead:
        return
    flat = next((op for op in evidence.steps[0].ops if op.name in FLAT), None)
    zeros = [m.name for m in evidence.moves if m.size == 0 and len(m.shape) > 1]
    why, change = "", "look for a factor of zero, a rounding or a saturated unit behind them"
    if flat is not None:
        why, change = (
            f": {flat.name}() in {flat.where} has a gradient of zero",
            "use a straight-through estimator: x + (x.round() - x).detach()",
        )
    elif zeros:
        why, change = (
            f": {shorten(zeros)} start at zero",
            "initialise them at random; at most one factor of a product may start at zero",
        )
    yield Cause(
        "zero-gradient",
        shorten(dead),
        f"the gradient of {len(dead)} of {len(norms)} tensors never exceeds "
        f"{number(max(norms[name] or 0 for name in dead))} (the largest is {number(largest)}){why}",
        change,
        "shown",
        {"tensors": len(dead), "largest": largest},
        certain=all(norms[name] == 0 for name in dead),
        weight=0.9 if flat is not None or zeros else 0.55,
    )


def vanishes(evidence: Evidence) -> Iterator[Cause]:
    """Gradients shrink layer by layer, so that the first layers get next to nothing."""
    matrices = [(m.name, m.gradient) for m in evidence.moves if len(m.shape) > 1 and m.gradient is not None]
    if evidence.learned or len(matrices) < 4:
        return
    first, last = matrices[0], max(matrices[-2:], key=lambda pair: pair[1] or 0.0)
    if not first[1] or not last[1] or first[1] > 1e-5 * last[1] or last[1] > 1e3:
        return
    yield Cause(
        "zero-gradient",
        first[0],
        f"the first gradient of {first[0]} is {number(first[1])}, that of {last[0]} {number(last[1])}: it vanishes "
        "on the way back",
        "use residual connections, normalisation, or activations that do not saturate (ReLU, GELU)",
        "shown",
        {"first": first[1], "last": last[1]},
        weight=0.89,
    )


def too_much_frozen(evidence: Evidence) -> Iterator[Cause]:
    """It learns once everything may."""
    frozen = [p for p in evidence.record.parameters if not p.trainable]
    attempt = evidence.attempt("unfrozen")
    nothing = evidence.record.stop == "no_trainable_parameters"
    if not frozen or evidence.learned:
        return
    proven = attempt is not None and attempt.passed
    lower = (
        attempt is not None
        and attempt.curve
        and evidence.objective
        and min(attempt.curve) < 0.3 * min(evidence.objective)
    )
    if not (proven or nothing or lower):
        return
    patterns = ", ".join(repr(m.pattern) for m in evidence.record.freeze_matches)
    yield Cause(
        "frozen",
        shorten(p.name for p in frozen),
        f"{len(frozen)} of {len(evidence.record.parameters)} parameter tensors are frozen"
        + (f" by {patterns}" if patterns else "")
        + proof(attempt, "with all of them trainable"),
        f"freeze less: narrow {patterns}" if patterns else "set requires_grad_(True) for what has to learn",
        "proven" if proven else "shown",
        {"frozen": len(frozen)},
        certain=nothing,
        weight=0.9,
    )


def not_registered(evidence: Evidence) -> Iterator[Cause]:
    """Leaves of the graph that are nobody's parameters."""
    first = next((step for step in evidence.steps if step.foreign), None)
    if first is None:
        return
    if rebuilt(evidence) is not None:
        return
    kinds = ", ".join(first.outside)
    yield Cause(
        "unregistered",
        kinds or f"tensors of shape {', '.join(first.foreign[:4])}",
        f"{len(first.foreign)} tensors that require a gradient take part in the loss and are neither the model's "
        "nor in an optimizer" + (f"; {kinds} ran and is no submodule" if kinds else ""),
        "keep layers in nn.ModuleList or nn.ModuleDict, and tensors as nn.Parameter",
        "shown",
        {"tensors": len(first.foreign)},
        certain=True,
        weight=0.94 if first.reached else 0.9,
    )


RULES = (detached, cut_off, nothing_arrives, vanishes, too_much_frozen, not_registered)
