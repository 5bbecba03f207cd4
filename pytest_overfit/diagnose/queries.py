"""What several rules look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_overfit.diagnose.evidence import Evidence, Output, Tensor
from pytest_overfit.diagnose.operation import Comparison, Op
from pytest_overfit.diagnose.step_trace import Event, Group
from pytest_overfit.diagnose.trial import Attempt
from pytest_overfit.judge.globs import is_declared as matches
from pytest_overfit.run.columns import gone_at
from pytest_overfit.run.record import ParameterRecord

REGRESSORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss", "poisson_nll_loss")
TYPICAL_RATE = 1e-3
FALLING = 0.05  # of the way that a curve has come, in the last half of it
USUAL_RATES = {"SGD": 0.05, "Adam": 1e-3, "AdamW": 1e-3, "RMSprop": 1e-3, "Adagrad": 0.01, "NAdam": 1e-3}


def predictions(evidence: Evidence) -> list[Output]:
    return [output for output in evidence.probed.outputs if output.gradient is not None]


def is_given(evidence: Evidence, tensor: Tensor) -> bool:
    """Whether a tensor of the batch goes into the model: its outputs change with it, or its numbers reach a layer.

    Where all units are at their bounds no output changes with what is far too large.
    """
    largest = max(abs(tensor.low), abs(tensor.high))
    modules = evidence.steps[0].modules if evidence.steps and not tensor.is_target else ()
    return tensor.is_input or any(largest > 0 and math.isclose(m.fed, largest, rel_tol=1e-5) for m in modules)


def never_stepped(evidence: Evidence) -> list[str]:
    """Parameters in the graph of what is differentiated, whose optimizer is known and takes no step at all."""
    stepped = {name for group in evidence.groups for name in group.names}
    reached = evidence.steps[0].reached if evidence.steps else ()
    waiting = [p for p in evidence.record.parameters if p.trainable and p.in_optimizer and not p.moved]
    few = 0 < len(evidence.groups) < 20  # more are not written down
    return [p.name for p in waiting if few and p.name in reached and p.name not in stepped]


def exchanged(evidence: Evidence) -> list[tuple[Op, Comparison]]:
    """The losses that are given their target in the place of another argument."""
    return [(op, compared) for op, compared in evidence.ops(Comparison) if compared.exchanged]


def best_of(evidence: Evidence, name: str) -> tuple[float, float]:
    floor = evidence.probed.floor
    if floor is None or name not in floor.low:
        return 0.0, 0.0
    return floor.low[name], floor.high[name]


def term_weights(evidence: Evidence) -> dict[str, float]:
    """The weight of each term in the objective, fitted over the curves; empty where they do not add up to it."""
    import numpy as np

    curve = evidence.objective
    names = [n for n, c in evidence.record.curves.items() if n != "objective" and len(c) == len(curve) and any(c)]
    if not names or len(curve) < 2 * len(names) + 2:
        return {}
    matrix = np.array([evidence.record.curves[n] for n in names], dtype=float).T
    wanted = np.array(curve, dtype=float)
    if not (np.isfinite(matrix).all() and np.isfinite(wanted).all()):
        return {}
    scale = np.abs(matrix).max(0)
    found, _, rank, _ = np.linalg.lstsq(matrix / scale, wanted, rcond=1e-7)
    if rank < len(names):  # terms that are made of each other have no weights of their own
        return {}
    gap = np.abs(matrix / scale @ found - wanted).max()
    return (
        {n: float(w / s) for n, w, s in zip(names, found, scale, strict=True)}
        if gap < 1e-3 * np.abs(wanted).max()
        else {}
    )


def learning(evidence: Evidence) -> list[ParameterRecord]:
    """The parameters that have elements and are not declared to stay as they are."""
    return [p for p in evidence.record.parameters if p.numel and not is_declared(p.name, evidence)]


def is_declared(name: str, evidence: Evidence) -> bool:
    return matches(name, (*evidence.unused, *evidence.frozen))


def passes(attempt: Attempt, how: str) -> str:
    """A trial that learns, in words: "passes in 140 steps without weight decay"."""
    return f"passes in {attempt.passed_at} steps {how}"


def proof(attempt: Attempt | None, how: str) -> str:
    """The same behind what was observed; empty where no trial proves it."""
    return f"; {passes(attempt, how)}" if attempt else ""


def line_of(events: Sequence[Event]) -> str:
    return next((event.line for event in events if event.line), "")


def usual_rate(groups: Sequence[Group]) -> float:
    """The learning rate that the optimizer mostly gets; that of Adam where there are several kinds."""
    kinds = {group.kind for group in groups if group.rates}
    return USUAL_RATES.get(next(iter(kinds)), TYPICAL_RATE) if len(kinds) == 1 else TYPICAL_RATE


def odd_schedule(group: Group) -> bool:
    """Whether the rate never gets near what it was set to, or grows beyond it."""
    if len(group.rates) < 2 or max(group.initial_rate, *group.rates) <= 0:
        return False
    first, last = group.rates[0], group.rates[-1]
    grows = last > 20 * first and last > 5 * group.initial_rate > 0 and group.scheduled
    moves = group.scheduled or len(set(group.rates)) > 1
    later = group.rates[1:] if len(group.rates) > 3 else group.rates  # a step may build its scheduler after the first
    return grows or (moves and max(later) < 0.05 * group.initial_rate)


def cut_short(evidence: Evidence) -> int | None:
    """The step from which on a rate that is gone keeps the objective where it is, which fell until then."""
    curve, at = evidence.objective, gone_at(evidence.record.learning_rate)
    if at is None or len(curve) <= at or evidence.record.non_finite is not None:
        return None
    fell, since = curve[at // 2] - curve[at], curve[at] - min(curve[at:][: at + 1])
    return at if fell > max(2 * since, FALLING * (curve[0] - curve[at]), 0.0) else None
