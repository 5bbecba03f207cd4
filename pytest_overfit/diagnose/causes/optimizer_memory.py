"""What an optimizer remembers, and weights that are written to between its steps."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import passes
from pytest_overfit.errors.suggest import shorten


def state_lost(evidence: Evidence) -> Iterator[Cause]:
    """What an optimizer remembers is gone at its next step."""
    lost, looked = evidence.counts.states_lost, evidence.counts.states
    optimizers, steps = evidence.counts.optimizers, evidence.counts.steps
    anew = optimizers >= 5 and optimizers > 0.5 * steps
    if not anew and (lost < 3 or lost < 0.6 * looked):
        return
    line = next((event.line for _, event in evidence.events("new_optimizer", "load_optimizer") if event.line), "")
    seen = (
        f"{optimizers} optimizers made {steps} steps"
        if anew
        else f"the optimizer's state was gone or set back before {lost} of {looked} steps"
    )
    yield Cause(
        "optimizer-state",
        line or "the train step",
        f"{seen}: momentum and adaptive rates never build up",
        "build the optimizer once, before the loop" if anew else "do not clear or reload optimizer.state between steps",
        evidence={"optimizers": optimizers, "steps": steps, "lost": lost},
        certain=True,
        weight=0.96,
    )


def brought_along(evidence: Evidence) -> Iterator[Cause]:
    """What an optimizer remembers from before the run is of another size than the gradients here."""
    group = next((group for group in evidence.groups if group.steps_before), None)
    if group is None or (proven := evidence.proof("fresh state")) is None:
        return
    yield Cause(
        "optimizer-state",
        group.where,
        f"the optimizer begins with what it remembers of {group.steps_before} earlier steps; "
        + passes(proven, "with none of it"),
        "build a new optimizer, and load no state from a run whose loss or gradients were of another scale",
        "proven",
        {"steps_before": group.steps_before, "steps": float(proven.passed_at or 0)},
        weight=0.96,
    )


def overwritten(evidence: Evidence) -> Iterator[Cause]:
    """Weights change between two steps of their optimizer."""
    hit = [m for m in evidence.updates if m.overwritten >= 2 and m.overwritten * 60 > m.sampled]
    undone = [m for m in hit if m.undone >= 2 and any(m.ratios)]
    if evidence.learned:  # in spite of what is written: unless it takes all back that was learnt
        hit = undone
    if not hit:
        return
    most = max(hit, key=lambda m: m.overwritten)
    lines = dict.fromkeys(event.line for _, event in evidence.events("load", "init", "write") if event.line)
    back = sum(m.back for m in hit)
    yield Cause(
        "weights-reset",
        ", ".join((shorten(m.name for m in hit), *list(lines)[:1])),
        f"{len(hit)} parameter tensors were written to between optimizer steps, up to {most.overwritten} times in "
        f"{most.sampled}"
        + (f", {back} times back to their initial value" if back else "")
        + (f"; of {shorten(m.name for m in undone)} the update was undone each time" if undone and not back else ""),
        f"write to weights once, before the loop, and not in {shorten(lines)}"
        if lines
        else "load or initialise weights once, before the loop",
        "proven" if evidence.proof("our step") else "shown",
        {"tensors": len(hit), "times": most.overwritten, "steps": most.sampled},
        certain=bool(undone),
        weight=0.95,
    )


def loads_itself(evidence: Evidence) -> Iterator[Cause]:
    """Weights that are to be brought back are those that are there."""
    if not (times := sum(evidence.own_loads.values())):
        return
    lines = [line for line in evidence.own_loads if line]
    yield Cause(
        "weights-reset",
        shorten(lines) or "the train step",
        f"load_state_dict() got the module's own tensors, {times} time{'s' if times > 1 else ''}: it brings nothing "
        "back, and what was loaded in between stays",
        "keep copies: {name: t.clone() for name, t in model.state_dict().items()}; state_dict() hands out the tensors "
        "themselves",
        evidence={"times": times},
        certain=True,
        weight=0.96,
    )


FAMILY = Family(
    group="optimizer and update",
    order=71,
    rules=(state_lost, brought_along, overwritten, loads_itself),
    docs="""
### optimizer-state

What the optimizer remembers is lost between steps.

```python
def step(model, batch):
    optimizer = adam(model.parameters())  # fixed: optimizer = built
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


model = net()
built = adam(model.parameters())
result = run_overfit(model, (features, classes), step=step, max_steps=200)
```

- **Symptom**: often none: Adam without a memory moves every weight by the full rate, and the loss rattles at the end.
- **Evidence**: shown, certain: optimizers and steps are counted, and the state before each step is compared. Proven of
  what an optimizer remembers from before the run, as from a checkpoint: with none of it the run passes.
- **Fix**: build the optimizer once, before the loop; do not clear or reload its state, nor load that of a run
  with other gradients.

### weights-reset

Weights are overwritten between steps.

```python
model = net()
checkpoint = {name: value.clone() for name, value in model.state_dict().items()}


def step(model, batch, optimizer):
    model.load_state_dict(checkpoint)  # fixed: remove this line
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


result = run_overfit(model, (features, classes), step=step, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss stays, or jumps back at regular intervals.
- **Evidence**: shown, certain: parameters change between two steps of their optimizer, and are again what they were
  before the last one; proven where a plain step passes. Or `load_state_dict` gets the module's own tensors, which
  `state_dict()` hands out, and brings nothing back. What is written otherwise is not certain.
- **Fix**: load or initialise weights once, before the loop.
""",
)
