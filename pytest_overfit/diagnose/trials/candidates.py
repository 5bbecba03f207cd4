"""Which trials are made, in which order, given what was seen; the time runs out before the list does."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn

from pytest_overfit.diagnose.answers import NOT_NEEDED
from pytest_overfit.diagnose.causes.data_scale import is_compared
from pytest_overfit.diagnose.causes.learning_rate import LOW
from pytest_overfit.diagnose.causes.output_scale import shrunk
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.operation import Drawn, Rectified, Squashed
from pytest_overfit.diagnose.queries import TYPICAL_RATE, cut_short, is_given, odd_schedule, usual_rate
from pytest_overfit.diagnose.step_trace import GroupSettings
from pytest_overfit.diagnose.trial import Trial
from pytest_overfit.diagnose.trials import changes
from pytest_overfit.diagnose.trials.changes import Change, attempt
from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.call_task import Several
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.phases import TRIAL
from pytest_overfit.run.task import Precision
from pytest_overfit.twins.places import moved
from pytest_overfit.twins.switches import autocast, eager, is_compiled

FAR = 200.0  # times the usual rate, or less than its part
LOST = 0.01  # of every weight in every step: half of it in 70
Hopeless = Callable[[Sequence[float]], bool]


def make_trials(
    context: RunContext,
    evidence: Evidence,
    *,
    until: float,
    learned: Callable[[Evidence], None],
    questions: Questions,
    settled: bool = False,
) -> None:
    """Makes trials until one passes or the time is over; ``learned`` is told after each of them.

    Args:
        settled: the cause is certain: what nothing that was seen asks for is not tried.
    """
    steps = context.plan.max_steps
    planned: list[Change] = []
    with questions.asking("which trials to make"):
        for change in candidates(context, evidence):
            planned.append(change)  # one by one: what comes before a mistake of ours is tried
    if settled and (blind := sum(change.blind for change in planned)):
        questions.leave_out(f"{blind} of {len(planned)} trials", NOT_NEEDED)
        planned = [change for change in planned if not change.blind]
    for index, change in enumerate(planned, 1):
        left = until - time.perf_counter()
        if left < 0.05:
            questions.leave_out(f"{len(planned) - index + 1} of {len(planned)} trials", "out of time: diagnose_seconds")
            return
        phase = f"{TRIAL} {index}/{len(planned)}"
        hopeless = _told(context, phase, change.trial.text, until=until, hopeless=_hopeless(evidence, steps))
        done = None
        with questions.asking(f"the trial {change.trial.text}"):
            done = attempt(context, change, steps=steps, seconds=left, hopeless=hopeless)
        if done is None:
            continue
        evidence = replace(evidence, attempts=(*evidence.attempts, done))
        learned(evidence)
        if done.passed and change.trial.kind != "our step":  # which of the step's parts it is, the others tell
            return


def _told(context: RunContext, trial: str, what: str, *, until: float, hopeless: Hopeless) -> Hopeless:
    """``hopeless``, which is asked now and then, as the moment to say how far a trial is; its start is said at once."""

    def tell(steps: int) -> None:
        context.tell(trial, f"{what}, step {steps}/{context.plan.max_steps}", until - time.perf_counter())

    def asked(curve: Sequence[float]) -> bool:
        tell(len(curve))
        return hopeless(curve)

    tell(0)
    return asked


def _hopeless(evidence: Evidence, steps: int) -> Hopeless:
    limit = evidence.limit_of_objective()

    def enough(curve: Sequence[float]) -> bool:
        if not curve or not math.isfinite(curve[-1]):
            return bool(curve)
        start, now = curve[0], statistics.median(curve[-10:])
        if limit is None or limit <= 0 or start <= limit or now <= 0:
            return len(curve) >= 0.5 * steps and now >= 0.9 * start
        progress = math.log(start / now) / math.log(start / limit)
        return (len(curve) >= 0.25 * steps and progress < 0.1) or (len(curve) >= 0.6 * steps and progress < 0.35)

    return enough


def candidates(context: RunContext, evidence: Evidence) -> Iterator[Change]:
    """The changes worth a trial, the likeliest first: a rate or a decay that nobody would take before all else.

    Where a schedule is what makes the rate so, it is that which is changed.
    """
    yield from _held(evidence)
    rate = _rate(evidence)
    low = FAR if unsteady(evidence.objective) else LOW
    far = rate > 0 and not 1 / low < rate / usual_rate(evidence.groups) < FAR
    if far:
        yield from _rates(evidence, far=True)
    decay = max((g.settings.weight_decay for g in evidence.groups), default=0.0)
    if decay * rate > LOST:
        yield Change(Trial("no weight decay", decay, 0.0), applied=changes.settings(weight_decay=0.0))
    if any(group.steps_before for group in evidence.groups):
        yield Change(Trial("fresh state"), applied=changes.fresh_state)
    yield from _executed(context)
    if context.step is not None and all(len(step.differentiated) == 1 for step in evidence.steps):
        yield Change(Trial("our step"), update=changes.plain_update, task=changes.own_loss, blind=True)
    elif context.clip.groups:
        yield Change(Trial("no clipping"), update=changes.plain_update, blind=True)
    yield from _optimizer(evidence)
    yield from _trainable(context, evidence)
    if (floor := evidence.probed.floor) is not None and floor.stretch > 1:
        change = changes.rescaled("", floor.stretch)
        yield Change(Trial("rescaled", 1.0, floor.stretch, "outputs"), applied=change)
    if evidence.steps and (small := shrunk(evidence.steps[0].modules, evidence.updates)) is not None:
        factor = 10.0 ** round(math.log10(small.wanted / small.module.size))
        change = changes.rescaled(small.module.name, factor)
        yield Change(Trial("rescaled", 1.0, factor, small.module.name), applied=change)
    ops = (*evidence.probed.ops, *(op for step in evidence.steps for op in step.ops))
    if evidence.probed.random_training > 0 or any(isinstance(op.fact, Drawn) for op in ops):
        yield Change(Trial("same random numbers"), applied=changes.same_numbers)
    if any(m.dtype in ("float16", "bfloat16") for m in evidence.updates):
        yield Change(Trial("float32"), applied=changes.full_precision, task=changes.full_batch)
    yield from _data(context, evidence)
    if suspicious := _weights_suspicious(evidence):
        yield Change(Trial("fresh weights"), applied=changes.fresh_weights)
    if not far:
        blind = 1 / LOW < rate / usual_rate(evidence.groups) < LOW
        yield from (replace(change, blind=blind) for change in _rates(evidence, far=False))
    if not suspicious:
        yield Change(Trial("fresh weights"), applied=changes.fresh_weights, blind=True)


def _executed(context: RunContext) -> Iterator[Change]:
    """What a run was executed by beside plain torch on a CPU, taken away."""
    if is_compiled(context):
        yield Change(Trial("eager"), applied=eager, blind=True)
    if context.task.precision.enabled and context.step is None:
        yield Change(Trial("full precision"), task=autocast(Precision(), context).task, blind=True)
    if context.task.device.type != "cpu":
        there = moved(torch.device("cpu"))
        yield Change(Trial("on the CPU"), applied=there.applied, task=there.task, blind=True)


def _held(evidence: Evidence) -> Iterator[Change]:
    """The rate that a schedule starts from, or reaches, held in place of it."""
    groups, gone = evidence.groups, cut_short(evidence) is not None
    tops = {g.index: max(g.initial_rate, *g.rates) for g in groups if g.rates and (gone or odd_schedule(g))}
    if gone and len(tops) == 1:
        tops = dict.fromkeys(tops, max(evidence.record.learning_rate))
    if scheduled := {index: top for index, top in tops.items() if top > 0}:
        held = {
            index: _sane(rate, [g.initial_rate for g in groups if g.index == index])
            for index, rate in scheduled.items()
        }
        lowest = min(min(g.rates) for g in groups)
        yield Change(Trial("held rate", lowest, max(held.values())), applied=changes.fixed_rates(held))


def _optimizer(evidence: Evidence) -> Iterator[Change]:
    """Groups and settings that are far from what is usual."""
    groups = evidence.groups
    rates = {g.index: g.rates[0] for g in groups if g.rates and g.optimizer == 0}
    if len(rates) > 1 and max(rates.values()) > 30 * max(min(rates.values()), 1e-30):
        best = min(rates.values(), key=lambda rate: abs(math.log(max(rate, 1e-30) / TYPICAL_RATE)))
        yield Change(Trial("one rate", value=best), applied=changes.fixed_rates(dict.fromkeys(rates, best)))
    decay = max((g.settings.weight_decay for g in groups), default=0.0)
    if decay >= 1e-3 and decay * _rate(evidence) <= LOST:
        yield Change(Trial("no weight decay", decay, 0.0), applied=changes.settings(weight_decay=0.0))
    if any(_odd(g.settings) for g in groups):
        yield Change(Trial("default settings"), applied=changes.settings(**changes.DEFAULT_SETTINGS))


def _trainable(context: RunContext, evidence: Evidence) -> Iterator[Change]:
    """Parameters that are frozen, or that no optimizer holds."""
    several = isinstance(context.task.model, Several) and not isinstance(
        getattr(context.task, "given", None), nn.Module
    )  # one of them may be a teacher
    everything = changes.all_parameters(TYPICAL_RATE)
    if any(not p.trainable for p in evidence.record.parameters) and not several:
        yield Change(Trial("unfrozen"), applied=changes.unfrozen, update=everything, task=changes.own_loss)
    if any(p.trainable and not p.in_optimizer for p in evidence.record.parameters):
        yield Change(Trial("all parameters"), update=everything, task=changes.own_loss)


def _data(context: RunContext, evidence: Evidence) -> Iterator[Change]:
    tensors = [t for t in evidence.probed.tensors if t.dtype.startswith(("float", "bfloat")) and t.finite]
    odd = [
        t.key
        for t in tensors
        if is_given(evidence, t)
        and not t.is_target
        and odd_scale(t.mean, t.deviation, t.column_deviation, t.column_mean)
    ]
    if odd and hasattr(context.task, "batch"):
        yield Change(Trial("standardised inputs", detail=", ".join(odd)), task=changes.standardised(odd))
    odd = [
        t.key
        for t in tensors
        if t.is_target
        and (abs(t.mean) > 10 or t.deviation > 10)
        and is_compared(evidence, max(abs(t.low), abs(t.high)))
    ]
    if odd:
        yield Change(Trial("standardised targets", detail=", ".join(odd)), task=changes.standardised(odd))


def odd_scale(mean: float, deviation: float, columns: tuple[float, float], column_mean: float) -> bool:
    """Whether numbers are far from zero mean and unit deviation."""
    largest = max(deviation, columns[1])
    return largest > 20 or max(abs(mean), column_mean) > 20 or 0 < largest < 0.02


def _weights_suspicious(evidence: Evidence) -> bool:
    first = evidence.steps[0] if evidence.steps else None
    alike = any(m.rows_alike for m in evidence.updates if len(m.shape) > 1 and m.gradient is not None)
    facts = [op.fact for op in first.ops] if first is not None else []
    dead = any(isinstance(fact, Rectified) and fact.dead > 0.9 for fact in facts)
    wild = first is not None and any(m.size > 30 for m in first.modules)
    nothing = any(m.size == 0 for m in evidence.updates if len(m.shape) > 1)
    bound = any(isinstance(fact, Squashed) and fact.length is None and fact.bound > 0.9 for fact in facts)
    return alike or dead or wild or nothing or bound


def _rate(evidence: Evidence) -> float:
    return max((max(g.rates) for g in evidence.groups if g.rates), default=0.0)


def _rates(evidence: Evidence, *, far: bool) -> Iterator[Change]:
    rate = _rate(evidence)
    if rate == 0:
        if evidence.groups:
            fixed = {g.index: TYPICAL_RATE for g in evidence.groups}
            yield Change(Trial("learning rate", 0.0, TYPICAL_RATE), applied=changes.fixed_rates(fixed))
        return
    down, up = (0.1, 0.01, 1e-3), (10.0, 100.0, 1e3)
    order = (*down, *up[:1]) if unsteady(evidence.objective) else (*up, *down[:1])
    usual = usual_rate(evidence.groups) / rate
    factors = (usual, 10 * usual, 0.1 * usual, *order) if far else order
    for value in dict.fromkeys(float(f"{rate * factor:.3g}") for factor in factors):
        yield Change(Trial("learning rate", rate, value), applied=changes.rate(value / rate))


def unsteady(curve: Sequence[float]) -> bool:
    """Whether a curve climbs above its start, ends in no number, or jumps about more than it falls."""
    if len(curve) < 3:
        return True
    if not all(map(math.isfinite, curve)) or max(curve) > 1.5 * abs(curve[0]) + 1e-12:
        return True
    late = curve[len(curve) // 2 :]
    jumps, level = statistics.fmean(abs(b - a) for a, b in itertools.pairwise(late)), statistics.fmean(late)
    return jumps > 0.05 * max(abs(level), curve[0] - level) + 1e-12


def _sane(top: float, initial: list[float]) -> float:
    return min([rate for rate in initial if rate > 0], default=top)


def _odd(settings: GroupSettings) -> bool:
    return (
        settings.maximize or settings.eps > 1e-3 or settings.momentum > 0.95 or settings.beta1 > 0.95
        or settings.beta2 > 0.99995 or settings.dampening > 0.5 or settings.beta2 < settings.beta1
    )  # fmt: skip
