"""Schedules of the learning rate that do not fit the run."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import cut_short, odd_schedule, proof
from pytest_overfit.judge.finding import number

IDLE = 3  # steps at a rate of 0: one is that of a warm-up which counts from 0


def schedule(evidence: Evidence) -> Iterator[Cause]:
    """A schedule brings the rate far from what it is meant to be."""
    for group in evidence.groups:
        if not group.rates:
            continue
        held = evidence.proof("held rate")
        if not odd_schedule(group) or (evidence.learned and not held):
            continue
        hold = (held.trial.value if held else None) or group.initial_rate or max(group.rates)
        yield Cause(
            "lr-schedule",
            group.where,
            f"the schedule takes the learning rate from {number(group.rates[0])} to {number(group.rates[-1])}, set to "
            f"{number(group.initial_rate)}" + (proof(held, f"with it held at {number(hold)}") if held else ""),
            f"hold lr={number(hold)} for this test; step the schedule once per epoch, or fit its warm-up and decay to "
            "the steps of the run",
            "proven" if held else "shown",
            {"first": group.rates[0], "last": group.rates[-1], "set": group.initial_rate},
            weight=0.9,
        )
        return


def ends_early(evidence: Evidence) -> Iterator[Cause]:
    """The rate falls far below its own peak while the loss still comes down, and that is the end of it."""
    at, held = cut_short(evidence), evidence.proof("held rate")
    if at is None or evidence.learned:
        return
    rates, steps = evidence.record.learning_rate, evidence.record.planned_steps
    top = max([*rates, *(rate for group in evidence.groups for rate in group.rates)])
    yield Cause(
        "lr-schedule",
        evidence.groups[0].where if evidence.groups else "the schedule",
        f"the schedule ends at step {at + 1} of {steps}, its rate below 1 % of its peak {number(top)}; "
        f"the objective stays at {number(evidence.objective[at])}"
        + (proof(held, f"with it held at {number(top)}") if held else ""),
        f"hold lr={number(top)} for this test, or fit the decay to the {steps} steps of the run; a schedule that "
        "counts epochs is stepped once per epoch",
        "proven" if held else "shown",
        {"peak": top, "gone": at, "steps": steps},
        certain=True,
        weight=0.95,
    )


def stands_still(evidence: Evidence) -> Iterator[Cause]:
    """A schedule begins with steps whose rate is 0: they compute gradients, and change nothing.

    One such step is that of a warm-up that counts from 0, and where another group learns meanwhile it is meant.
    """
    rates = evidence.record.learning_rate
    first = next((step for step, rate in enumerate(rates) if rate > 0), 0)
    if first < IDLE or any(any(group.rates[1:2]) for group in evidence.groups):
        return
    yield Cause(
        "lr-schedule",
        evidence.groups[0].where if evidence.groups else "the schedule",
        f"the learning rate is exactly 0 in the first {first} steps, and {number(rates[first])} in the next one: so "
        "many steps change nothing",
        "let a warm-up rise in every step: (step + 1) / warm_up, with / in place of //, and no int() around it",
        evidence={"steps": first, "next": rates[first]},
        certain=True,
        weight=0.95,
    )


FAMILY = Family(
    group="optimizer and update",
    order=82,
    rules=(stands_still, ends_early, schedule),
    docs="""
### lr-schedule

A schedule brings the learning rate far from what it was set to.

```python
schedules = []


def step(model, batch, optimizer):
    if not schedules:
        schedules.append(torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5))  # meant for epochs
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedules[0].step()  # fixed: remove this line
    return loss


result = run_overfit(net, (features, classes), step=step, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls at first and then stays (decay), or does not move for a long time (warm-up).
- **Evidence**: proven, certain: the rate falls below 1 % of its peak while the loss still comes down, and ends that;
  the run passes with it held. Certain too: a rate of exactly 0 in the first steps, as by `//` in a warm-up. Shown: a
  rate that never gets near the one that was set, or grows beyond it.
- **Fix**: step the schedule once per epoch if it counts epochs, and fit warm-up and decay to the length of the run.
""",
)
