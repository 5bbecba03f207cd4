"""Learning rates, schedules and the other settings of an optimizer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence, Group, Moves
from pytest_overfit.diagnose.rules.seen import passes, proof, term_weights
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

WHOLE_WEIGHT = 0.5  # of a weight's own norm in one update, again and again


def rates(evidence: Evidence) -> Iterator[Cause]:
    """The learning rate, as trials with others tell it."""
    zero = [g for g in evidence.groups if g.rates and not any(g.rates)]
    if zero and len(zero) == len(evidence.groups):
        works = evidence.attempt("learning rate")
        works = works if works and works.passed else None
        yield Cause(
            "lr-low",
            zero[0].where,
            "the learning rate is 0 in every group" + (proof(works, f"with {works.value:g}") if works else ""),
            f"set lr={works.value:g}" if works and works.value else "set a learning rate above 0",
            "proven" if works else "shown",
            {"lr": 0.0, **({"works": works.value} if works and works.value is not None else {})},
            certain=True,
            weight=0.95,
        )
        return
    for attempt in evidence.attempts:
        if (
            not attempt.change.startswith("learning rate x")
            or not attempt.passed
            or not attempt.was
            or not attempt.value
        ):
            continue
        high = attempt.value < attempt.was
        yield Cause(
            "lr-high" if high else "lr-low",
            evidence.groups[0].where if evidence.groups else "the optimizer",
            passes(
                attempt, f"with a learning rate of {attempt.value:.3g} instead of {attempt.was:.3g}; {_shape(evidence)}"
            ),
            f"set lr={attempt.value:.3g}",
            "proven",
            {"lr": attempt.was, "works": attempt.value, "steps": float(attempt.passed_at or 0)},
            weight=0.7,
        )


def diverges(evidence: Evidence) -> Iterator[Cause]:
    """The objective climbed for some steps, and then was no number any more."""
    curve = [value for value in evidence.objective if math.isfinite(value)]
    bad = evidence.record.non_finite
    proven = any(a.passed and a.change.startswith("learning rate") for a in evidence.attempts)
    if bad is None or bad.step < 3 or len(curve) < 2 or max(curve) < 30 * abs(curve[0]) or proven:
        return
    rate = max((max(g.rates) for g in evidence.groups if g.rates), default=0.0)
    yield Cause(
        "lr-high",
        evidence.groups[0].where if evidence.groups else "the optimizer",
        f"the objective climbs from {number(curve[0])} to {number(max(curve))} before step {bad.step}, with a "
        f"learning rate of {number(rate)}",
        f"set lr={number(rate / 100)}",
        "shown",
        {"lr": rate, "highest": max(curve)},
        weight=0.7,
    )


def _shape(evidence: Evidence) -> str:
    curve = evidence.objective
    if not curve:
        return "no step was made"
    return f"the objective went from {number(curve[0])} to {number(curve[-1])} in {len(curve)} steps"


def schedule(evidence: Evidence) -> Iterator[Cause]:
    """A schedule brings the rate far from what it is meant to be."""
    for group in evidence.groups:
        if not group.rates:
            continue
        held = evidence.attempt("held rate")
        proven = held is not None and held.passed
        if not odd_schedule(group) or (evidence.learned and not proven):
            continue
        middle = statistics.median(group.rates)
        yield Cause(
            "lr-schedule",
            group.where,
            f"the schedule takes the learning rate from {number(group.rates[0])} to {number(group.rates[-1])} "
            f"(median {number(middle)} of the sampled steps), set to {number(group.initial_rate)}"
            + (proof(held, f"with it held at {number(held.value or 0)}") if held else ""),
            "step the schedule once per epoch, or make its warm-up and decay fit the run: hold it for this test",
            "proven" if proven else "shown",
            {"first": group.rates[0], "last": group.rates[-1], "set": group.initial_rate},
            weight=0.9,
        )
        return


def odd_schedule(group: Group) -> bool:
    """Whether the rate never gets near what it was set to, grows beyond it, or is gone before the run is."""
    if len(group.rates) < 2 or max(group.initial_rate, *group.rates) <= 0:
        return False
    first, last, top = group.rates[0], group.rates[-1], max(group.initial_rate, *group.rates)
    grows = last > 20 * first and last > 5 * group.initial_rate > 0 and group.scheduled
    never = max(group.rates) < 0.05 * group.initial_rate
    decays = last < 1e-3 * top and len(group.rates) > 3 and statistics.median(group.rates) < 0.05 * top
    return grows or never or decays


def group_rates(evidence: Evidence) -> Iterator[Cause]:
    """One parameter group learns at a rate of its own that is wrong."""
    one = evidence.attempt("one rate")
    if one is not None and one.passed:
        odd = max(evidence.groups, key=lambda g: abs(math.log(max(g.rates[0], 1e-30) / max(one.value or 1e-3, 1e-30))))
        yield _group_cause(
            odd,
            "proven",
            passes(one, f"with {number(one.value or 0)} for all groups; this one has {number(odd.rates[0])}"),
        )
        return
    live = [g for g in evidence.groups if any(g.rates)]
    for group in evidence.groups:
        if group.names and not any(group.rates) and live:
            yield _group_cause(
                group,
                "shown",
                f"{group.tensors} tensors have a learning rate of 0, the other groups one of up to "
                f"{number(max(max(g.rates) for g in live))}",
                certain=True,
            )
            return
    wild = [m for m in evidence.moves if m.size > 0 and len(m.shape) > 1 and _wild(m)]
    rates_of = {name: max(g.rates) for g in evidence.groups for name in g.names}
    lowest = min((rate for rate in rates_of.values() if rate > 0), default=0.0)
    odd_ones = [m for m in wild if lowest and rates_of.get(m.name, 0) > 100 * lowest]
    if odd_ones:
        group = next(g for g in evidence.groups if odd_ones[0].name in g.names)
        ratio = max(odd_ones[0].ratios, default=odd_ones[0].grown)
        yield _group_cause(
            group,
            "shown",
            f"an update moves {odd_ones[0].name} by up to {ratio:.1f} times its own size, to "
            f"{odd_ones[0].grown:.1f} times of what it was (learning rate {number(max(group.rates))}, other groups "
            f"{number(lowest)})",
            certain=True,
        )


def _wild(moves: Moves) -> bool:
    """Whether updates are of the size of the weight itself, again and again, or have made it many times as large."""
    later = moves.ratios[2:]
    return moves.grown > 8 or (len(later) >= 2 and statistics.median(later) > WHOLE_WEIGHT)


def _group_cause(group: Group, strength: str, observed: str, certain: bool = False) -> Cause:
    return Cause(
        "lr-group",
        f"{group.where}: {shorten(group.names)}",
        observed,
        "give the group the learning rate of the others, or one within a factor of ten",
        strength,  # type: ignore[arg-type]
        {"lr": group.rates[0], "group": group.index},
        certain=certain,
        weight=0.94,
    )


def decay(evidence: Evidence) -> Iterator[Cause]:
    """A pull towards zero holds the loss up."""
    attempt = evidence.attempt("no weight decay")
    if attempt is not None and attempt.passed:
        yield Cause(
            "weight-decay",
            evidence.groups[0].where if evidence.groups else "the optimizer",
            passes(attempt, f"without weight decay; it is {number(attempt.was or 0)}"),
            "set weight_decay=0 for this test, or a hundredth of it",
            "proven",
            {"weight_decay": attempt.was or 0.0, "works": 0.0},
            weight=0.9,
        )
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    unnamed = not any(term.weights_only for term in evidence.probed.terms)
    if (
        found is not None
        and found.reads_weights
        and len(found.unread) < len(found.low)
        and unnamed
        and limit is not None
        and found.reached > limit
        and not evidence.learned
    ):
        yield Cause(
            "weight-decay",
            "the loss",
            f"the loss reads the weights themselves: over free predictions it stays at {number(found.reached)} of "
            f"{number(found.start)}",
            "lower the factor of the penalty by a hundred, or leave it out of this test",
            "shown",
            {"penalty": found.reached},
            weight=0.92,
        )
    weights = term_weights(evidence)
    for term in evidence.probed.terms:
        curve = evidence.record.curves.get(term.name, ())
        if not term.weights_only or not curve or evidence.learned or not evidence.objective:
            continue
        share = abs(weights.get(term.name, 1.0) * curve[-1]) / max(abs(evidence.objective[-1]), 1e-12)
        if share > 0.4:
            yield Cause(
                "weight-decay",
                f"term {term.name}",
                f"the penalty {term.name}, which reads weights alone, makes up {min(share, 1):.0%} of the objective "
                f"at the end ({number(evidence.objective[-1])})",
                f"lower the weight of {term.name} (now {number(weights.get(term.name, 1.0))}) by a hundred",
                "shown",
                {"share": share, "weight": weights.get(term.name, 1.0)},
                weight=0.92,
            )


def hyperparameters(evidence: Evidence) -> Iterator[Cause]:
    """Momentum, betas, eps or maximize are off."""
    attempt = evidence.attempt("default settings")
    for group in evidence.groups:
        odd = _odd(group)
        if not odd or evidence.learned:
            continue
        proven = attempt is not None and attempt.passed
        yield Cause(
            "optimizer-hyperparameter",
            group.where,
            ", ".join(f"{key} is {number(value)}" for key, value, _ in odd) + proof(attempt, "with the defaults"),
            ", ".join(f"set {key}={usual}" for key, _, usual in odd),
            "proven" if proven else "shown",
            {key: value for key, value, _ in odd},
            weight=0.93,
        )
        return


def _odd(group: Group) -> list[tuple[str, float, str]]:
    get = group.settings.get
    found: Sequence[tuple[str, float, str, bool]] = (
        ("maximize", get("maximize", 0.0), "False", bool(get("maximize", 0.0))),
        ("eps", get("eps", 1e-8), "1e-8", get("eps", 1e-8) > 1e-3),
        ("momentum", get("momentum", 0.0), "0.9", get("momentum", 0.0) > 0.99),
        ("beta1", get("beta1", 0.9), "0.9", get("beta1", 0.9) > 0.99),
        (
            "beta2",
            get("beta2", 0.999),
            "0.999",
            get("beta2", 0.999) > 0.99995 or get("beta2", 0.999) < get("beta1", 0.9),
        ),
        ("dampening", get("dampening", 0.0), "0", get("dampening", 0.0) > 0.5),
    )
    return [(key, value, usual) for key, value, usual, is_odd in found if is_odd]


RULES = (rates, diverges, schedule, group_rates, decay, hyperparameters)
