"""Learning rates, schedules and the other settings of an optimizer."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import passes, proof, usual_rate
from pytest_overfit.diagnose.step_trace import Group, ParameterUpdate
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.forecast import of_limit, round_steps

UNUSUAL, LOW = 30.0, 10.0  # times more or less; times below the usual one, as under a model that is fine-tuned
STILL, QUARTER = 0.02, 0.25  # shares of its start that a curve has lost
SYMPTOMS = 0.98  # of what a run is free of at another rate: the first step was finite, so it is the steps
MOVING = 3  # different rates in the sampled steps: one change may unfreeze a group
WHOLE_WEIGHT = 0.5  # of a weight's own norm in one update, again and again


def rates(evidence: Evidence) -> Iterator[Cause]:
    """The learning rate, as trials with others tell it."""
    zero = [g for g in evidence.groups if g.rates and not any(g.rates)]
    if zero and len(zero) == len(evidence.groups):
        works = evidence.proof("learning rate")
        rate = works.trial.value if works else None
        yield Cause(
            "lr-low",
            zero[0].where,
            "the learning rate is 0 in every group" + (proof(works, f"with {rate:g}") if rate else ""),
            f"set lr={rate:g}" if rate else "set a learning rate above 0",
            "proven" if works else "shown",
            {"lr": 0.0, **({"works": rate} if rate is not None else {})},
            certain=True,
            weight=0.95,
        )
        return
    bad = evidence.record.non_finite
    for attempt in evidence.attempts:
        was, value = attempt.trial.was, attempt.trial.value
        if attempt.trial.kind != "learning rate" or not attempt.passed or not was or not value:
            continue
        high, usual = value < was, usual_rate(evidence.groups)
        # A rate that nobody would take gets around what makes everything small; from one to a usual one is the way.
        around = not 1 / UNUSUAL < value / usual < UNUSUAL and 1 / UNUSUAL < was / usual < UNUSUAL
        found = 1 / UNUSUAL < value / usual < UNUSUAL and not 1 / UNUSUAL < was / usual < UNUSUAL
        yield Cause(
            "lr-high" if high else "lr-low",
            evidence.groups[0].where if evidence.groups else "the optimizer",
            passes(attempt, f"with a learning rate of {value:.3g} instead of {was:.3g}; {_shape(evidence)}"),
            f"set lr={value:.3g}",
            "observed" if around else "proven",
            {"lr": was, "works": value, "steps": float(attempt.passed_at or 0)},
            weight=(0.95 if bad is None or bad.step <= 1 else SYMPTOMS) if found else 0.7,
        )
    yield from _nearer(evidence)
    yield from _untried(evidence)


def _untried(evidence: Evidence) -> Iterator[Cause]:
    """No other rate was tried, as where there was no time, and this one is far below what anybody takes."""
    rate, usual = max((max(g.rates) for g in evidence.groups if g.rates), default=0.0), usual_rate(evidence.groups)
    tried = any(attempt.trial.kind in ("learning rate", "held rate") for attempt in evidence.attempts)
    if tried or evidence.passed or evidence.learned or not 0 < rate * UNUSUAL < usual or evidence.record.non_finite:
        return
    yield Cause(
        "lr-low",
        evidence.groups[0].where,
        f"the learning rate is {number(rate)}, where {evidence.groups[0].kind} mostly gets {number(usual)}; "
        f"{_shape(evidence)}",
        f"set lr={usual:.3g}",
        "observed",
        {"lr": rate, "works": usual},
        weight=0.65,
    )


def _nearer(evidence: Evidence) -> Iterator[Cause]:
    """No rate learns in so many steps; a usual one in place of an odd one does half the way, or ends a standstill."""
    limit, usual = evidence.limit_of_objective(), usual_rate(evidence.groups)
    tried = [each for each in evidence.attempts if each.trial.kind == "learning rate" and each.trial.was]
    start, still = (evidence.objective or (0.0,))[0], _fallen(evidence.objective) < STILL
    helps = [each for each in tried if evidence.helps(each) or (still and start > 0 and _fallen(each.curve) > QUARTER)]
    if not helps or limit is None or any(each.passed for each in evidence.attempts):
        return
    best = min(helps, key=lambda each: min(filter(math.isfinite, each.curve)))
    was, value = best.trial.was or 0.0, best.trial.value or 0.0
    ran = min(filter(math.isfinite, evidence.objective), default=0.0)
    odd = not 1 / UNUSUAL < was / usual < UNUSUAL
    met = was * LOW <= usual and min(filter(math.isfinite, best.curve)) < limit  # as of a model that is fine-tuned
    if not (odd or met) or not 1 / UNUSUAL < value / usual < UNUSUAL or ran <= limit:
        return
    bad = evidence.record.non_finite
    yield Cause(
        "lr-high" if value < was else "lr-low",
        evidence.groups[0].where if evidence.groups else "the optimizer",
        f"comes to {number(min(filter(math.isfinite, best.curve)))} in {len(best.curve)} steps with a learning rate of "
        f"{value:.3g} instead of {was:.3g}; {_shape(evidence)}",
        f"set lr={value:.3g}",
        "shown",
        {"lr": was, "works": value},
        weight=(0.95 if odd else 0.9) if bad is None or bad.step <= 1 else SYMPTOMS,
    )


def _fallen(curve: Sequence[float]) -> float:
    """Which share of its start a curve has lost at its lowest."""
    finite = list(filter(math.isfinite, curve))
    return 1 - min(finite) / finite[0] if finite and finite[0] > 0 else 0.0


def diverges(evidence: Evidence) -> Iterator[Cause]:
    """The objective climbed for some steps, and then was no number any more."""
    curve = [value for value in evidence.objective if math.isfinite(value)]
    bad = evidence.record.non_finite
    proven = evidence.proof("learning rate")
    if bad is None or bad.step < 3 or len(curve) < 2 or max(curve) < 30 * abs(curve[0]) or proven:
        return
    rate = max((max(g.rates) for g in evidence.groups if g.rates), default=0.0)
    yield Cause(
        "lr-high",
        evidence.groups[0].where if evidence.groups else "the optimizer",
        f"the objective climbs from {number(curve[0])} to {number(max(curve))} before step {bad.step}, with a "
        f"learning rate of {number(rate)}",
        f"set lr={number(rate / 100)}",
        evidence={"lr": rate, "highest": max(curve)},
        weight=0.7,
    )


def too_short(evidence: Evidence) -> Iterator[Cause]:
    """Every limit that was missed is one that its term still falls towards; none where a trial has met it in time."""
    missed = {name: limit for name, limit in evidence.limits.items() if name in evidence.missed}
    ahead = {name: of_limit(evidence.curve(name), limit) for name, limit in missed.items()}
    found = {name: each for name, each in ahead.items() if each is not None and each.earliest is not None}
    in_time = any(attempt.passed for attempt in evidence.attempts)
    if evidence.record.stop != "max_steps" or in_time or not found or len(found) < len(missed):
        return
    last = max(found, key=lambda name: found[name].latest or math.inf)
    curve, steps = evidence.curve(last), max(each.latest or 2 * (each.earliest or 0) for each in found.values())
    wanted = round_steps(math.ceil(steps))
    yield Cause(
        "few-steps",
        f"term {evidence.record.terms[last]}",
        f"{evidence.record.terms[last]} {found[last].text()}; "
        f"it went from {number(curve[0])} to {number(curve[-1])} in {len(curve)} steps",
        f"give it more steps: max_steps={wanted}",
        "observed",
        {"steps": float(wanted)},
        weight=0.6,
    )


def _shape(evidence: Evidence) -> str:
    curve = evidence.objective
    if not curve:
        return "no step was made"
    return f"the objective went from {number(curve[0])} to {number(curve[-1])} in {len(curve)} steps"


def group_rates(evidence: Evidence) -> Iterator[Cause]:
    """One parameter group learns at a rate of its own that is wrong."""
    if one := evidence.proof("one rate"):
        best = one.trial.value or 0.0
        odd = max(evidence.groups, key=lambda g: abs(math.log(max(g.rates[0], 1e-30) / max(best, 1e-30))))
        proof_of = passes(one, f"with {number(best)} for all groups; this one has {number(odd.rates[0])}")
        yield _group_cause(odd, best, "proven", proof_of)
        return
    live = [g for g in evidence.groups if any(g.rates)]
    for group in evidence.groups:
        if group.names and not any(group.rates) and live:
            yield _group_cause(
                group,
                max(live[0].rates),
                "shown",
                f"{group.tensors} tensors have a learning rate of 0, the other groups one of up to "
                f"{number(max(max(g.rates) for g in live))}",
                certain=True,
            )
            return
    wild = [m for m in evidence.updates if m.size > 0 and len(m.shape) > 1 and _wild(m)]
    rates_of = {name: max(g.rates) for g in evidence.groups for name in g.names}
    lowest = min((rate for rate in rates_of.values() if rate > 0), default=0.0)
    odd_ones = [m for m in wild if lowest and rates_of.get(m.name, 0) > 100 * lowest]
    if odd_ones:
        group = next(g for g in evidence.groups if odd_ones[0].name in g.names)
        ratio = max(odd_ones[0].ratios, default=odd_ones[0].grown)
        yield _group_cause(
            group,
            lowest,
            "shown",
            f"an update moves {odd_ones[0].name} by up to {ratio:.1f} times its own size, to "
            f"{odd_ones[0].grown:.1f} times of what it was (learning rate {number(max(group.rates))}, other groups "
            f"{number(lowest)})",
            certain=True,
        )


def left_behind(evidence: Evidence) -> Iterator[Cause]:
    """A step sets the rate of one group by hand, and another keeps the one that its optimizer was made with."""
    by_hand = [g for g in evidence.groups if g.rates and not g.scheduled]
    for one, other in itertools.permutations(by_hand, 2):
        if one.optimizer != other.optimizer or set(other.rates) != {other.default_rate} or len(set(one.rates)) < MOVING:
            continue
        yield Cause(
            "lr-group",
            f"{other.where}: {shorten(other.names)}",
            f"the learning rate of group {one.index} goes from {number(one.rates[0])} to {number(one.rates[-1])}, and "
            f"that of group {other.index} stays at {number(other.default_rate)}, with which the optimizer was made",
            'set group["lr"] of every entry of optimizer.param_groups, not of the first alone',
            evidence={"first": one.rates[0], "last": one.rates[-1], "stays": other.default_rate},
            certain=True,
            weight=0.93,
        )
        return


def _wild(update: ParameterUpdate) -> bool:
    """Whether updates are of its own size, again and again, or have made it many times what a random one is."""
    later, usual = update.ratios[2:], max(update.size, max(1, math.prod(update.shape[1:])) ** -0.5)
    return update.grown * update.size > 8 * usual or (len(later) >= 2 and statistics.median(later) > WHOLE_WEIGHT)


def _group_cause(group: Group, works: float, strength: str, observed: str, certain: bool = False) -> Cause:
    return Cause(
        "lr-group",
        f"{group.where}: {shorten(group.names)}",
        observed,
        f"set lr={number(works)} for this group, as for the others, or one within a factor of ten",
        strength,  # type: ignore[arg-type]
        {"lr": group.rates[0], "group": group.index},
        certain=certain,
        weight=0.94,
    )


FAMILY = Family(
    group="optimizer and update",
    order=80,
    rules=(rates, diverges, group_rates, left_behind, too_short),
    docs="""
### lr-high

Steps are too large.

```python
result = run_overfit(
    net,
    (features, values),
    F.mse_loss,
    max_steps=200,
    optimizer=lambda p: torch.optim.SGD(p, lr=3.0),  # fixed: optimizer=sgd,
)
```

- **Symptom**: the loss climbs, jumps about, or settles on a plateau.
- **Evidence**: proven: the run passes with a tenth, a hundredth or a thousandth of the rate.
- **Fix**: set the rate that the trial passed with.

### lr-low

Steps are too small, or zero.

```python
result = run_overfit(
    net,
    (features, classes),
    nn.CrossEntropyLoss(),
    max_steps=200,
    optimizer=lambda p: torch.optim.Adam(p, lr=1e-5),  # fixed: optimizer=adam,
)
```

- **Symptom**: the loss falls in a straight and nearly flat line.
- **Evidence**: proven: the run passes with ten, a hundred or a thousand times the rate. A rate of 0 is certain.
- **Fix**: set the rate that the trial passed with, or give the run more steps.

### few-steps

The run ends while every term that misses its limit still falls towards it.

```python
steps = 60  # fixed: steps = 330
result = run_overfit(
    net, (features, values), F.mse_loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.2), max_steps=steps
)
```

- **Symptom**: nothing is wrong but that it ends: the best step is the last one.
- **Evidence**: observed: a line through the last half of the curve, over the steps and over their logarithm, with two
  standard errors. A hint that comes after every other cause.
- **Fix**: the number of steps that is said; a schedule that is fitted to the run becomes longer with it.

### lr-group

One parameter group has a learning rate of its own that is wrong.

```python
def grouped(model):
    trunk = {"params": model[0].parameters(), "lr": 0.01}
    head = {"params": model[2].parameters(), "lr": 0.0}  # fixed: head = {"params": model[2].parameters(), "lr": 0.01}
    return torch.optim.Adam([trunk, head])


model = net()
result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=grouped(model), max_steps=200)
```

- **Symptom**: the model learns around one part of it, or that part blows up.
- **Evidence**: proven: the run passes with one rate for all groups. Shown, and certain, are a rate of 0, updates as
  large as the weights, and a rate that a step sets by hand in one group, `param_groups[0]["lr"] = lr`, while another
  group keeps the one that the optimizer was made with.
- **Fix**: give the group a rate within a factor of ten of the others.
""",
)
