"""The settings of an optimizer: decay, momentum, betas, eps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import RATE, Coasting, Moves
from pytest_overfit.diagnose.queries import passes, proof, term_weights
from pytest_overfit.diagnose.step_trace import Group
from pytest_overfit.judge.finding import number

GROWS, FAR = 2.0, 0.1  # times larger that a step without a gradient gets, and of a weight's size all of them together


def decay(evidence: Evidence) -> Iterator[Cause]:
    """A pull towards zero holds the loss up."""
    if proven := evidence.proof("no weight decay"):
        yield Cause(
            "weight-decay",
            evidence.groups[0].where if evidence.groups else "the optimizer",
            passes(proven, f"without weight decay; it is {number(proven.trial.was or 0)}"),
            "set weight_decay=0 for this test, or a hundredth of it",
            "proven",
            {"weight_decay": proven.trial.was or 0.0, "works": 0.0},
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
            evidence={"penalty": found.reached},
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
                evidence={"share": share, "weight": weights.get(term.name, 1.0)},
                weight=0.92,
            )


def hyperparameters(evidence: Evidence) -> Iterator[Cause]:
    """Momentum, betas, eps or maximize are off."""
    proven = evidence.proof("default settings")
    for group in evidence.groups:
        odd, coasts = _odd(group), evidence.fact(Coasting)
        away = coasts is not None and coasts.parameter in group.names and coasts.grows > GROWS and coasts.moved > FAR
        if not odd or (evidence.learned and not away):
            continue
        seen = ""
        if coasts is not None and away:
            seen = (
                f": 50 steps without a gradient move {coasts.parameter} by {number(coasts.moved)} times its size, and "
            )
            seen += f"grow by {coasts.grows:.0f} times"
        yield Cause(
            "optimizer-hyperparameter",
            group.where,
            ", ".join(f"{key} is {number(value)}" for key, value, _ in odd) + seen + proof(proven, "with the defaults"),
            ", ".join(f"set {key}={usual}" for key, _, usual in odd),
            "proven" if proven else "shown",
            {key: value for key, value, _ in odd},
            certain=away,
            weight=0.93,
        )
        return


def _odd(group: Group) -> list[tuple[str, float, str]]:
    has = group.settings
    found: Sequence[tuple[str, float, str, bool]] = (
        ("maximize", float(has.maximize), "False", has.maximize),
        ("eps", has.eps, "1e-8", has.eps > 1e-3),
        ("momentum", has.momentum, "0.9", has.momentum > 0.99),
        ("beta1", has.beta1, "0.9", has.beta1 > 0.99),
        ("beta2", has.beta2, "0.999", has.beta2 > 0.99995 or has.beta2 < has.beta1),
        ("dampening", has.dampening, "0", has.dampening > 0.5),
    )
    return [(key, value, usual) for key, value, usual, is_odd in found if is_odd]


def unread(evidence: Evidence) -> Iterator[Cause]:
    """A setting that parameter groups differ in, and that neither the optimizer nor a schedule reads."""
    moves = evidence.fact(Moves)
    for setting in () if moves is None else moves.unread:
        values = ", ".join(map(number, setting.values[:4])) + (", ..." if len(setting.values) > 4 else "")
        of_rate = RATE.search(setting.key) is not None
        yield Cause(
            "lr-group" if of_rate else "optimizer-hyperparameter",
            f"({setting.optimizer}), {setting.key}",
            f"{len(setting.values)} parameter groups differ in {setting.key} ({values}), which nothing reads: a step "
            "is the same with another value there, and all groups have the same learning rate throughout",
            f'multiply it in where groups are built: {{"params": ..., "lr": lr * {setting.key}}}'
            if of_rate
            else f"write the name that {setting.optimizer} has in place of {setting.key}",
            evidence={"groups": len(setting.values)},
            certain=True,
            weight=0.93,
        )
        return


FAMILY = Family(
    group="optimizer and update",
    order=81,
    rules=(decay, hyperparameters, unread),
    docs="""
### weight-decay

Weight decay, or a penalty on the weights, holds the loss up.

```python
result = run_overfit(
    net,
    (features, classes),
    nn.CrossEntropyLoss(),
    max_steps=200,
    optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=20.0),  # fixed: optimizer=adam,
)
```

- **Symptom**: the loss falls to a plateau, and weights shrink.
- **Evidence**: proven: the run passes without weight decay. A penalty in the loss is shown by its share of the
  objective at the end.
- **Fix**: no weight decay in this test, or a hundredth of it.

### optimizer-hyperparameter

A setting of the optimizer other than learning rate and weight decay is off.

```python
result = run_overfit(
    net,
    (features, classes),
    nn.CrossEntropyLoss(),
    max_steps=200,
    optimizer=lambda p: torch.optim.Adam(p, lr=0.01, eps=1.0),  # fixed: optimizer=adam,
)
```

- **Symptom**: the loss climbs steadily (`maximize`), creeps (`eps`), or swings for hundreds of steps (momentum, betas).
- **Evidence**: proven: the run passes with the defaults of momentum, betas, eps and maximize. Certain are betas of Adam
  in the wrong order with which 50 steps without a gradient, at the end of the run, move a weight by a tenth of its size
  or more, and grow; and a number that parameter groups differ in alone, under a key that changes no step (`lr-group`
  where it is one of a rate).
- **Fix**: set the default that is named.
""",
)
