"""The train step: what is called when, and what is lost between two steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import line_of, never_stepped
from pytest_overfit.diagnose.step_trace import Clip, Event, OptimizerStep
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

WHOLE = 0.9  # of what is reported: less is the part of a micro-batch


def one_of_several(evidence: Evidence) -> Iterator[Cause]:
    """Of several optimizers one takes no step, though backward passes go through what it holds."""
    if evidence.own_step and (names := never_stepped(evidence)):
        yield Cause(
            "no-step",
            shorten(names),
            f"{len(names)} parameter tensors lie in the graph of what is differentiated, and the optimizer that holds "
            f"them takes none of {evidence.counts.steps} steps: they stay as they are",
            "call its step() after its backward(): look at which optimizer each step() is of",
            evidence={"tensors": len(names), "optimizer_steps": evidence.counts.steps},
            certain=True,
            weight=0.98,
        )


def no_step(evidence: Evidence) -> Iterator[Cause]:
    """Nothing is differentiated, or gradients come and the optimizer does not step."""
    steps, rows = evidence.counts.steps, evidence.record.steps
    backwards = sum(len(step.differentiated) for step in evidence.steps)
    if not evidence.own_step or rows < 2 or evidence.record.stop == "non_finite":
        return
    learning = [p for p in evidence.record.parameters if p.trainable]
    if not backwards:
        called = all(step.heard and not any(e.kind == "grad" for e in step.events) for step in evidence.steps)
        if called and evidence.steps and learning and not any(p.max_grad or p.moved for p in learning):
            yield Cause(
                "no-gradient",
                "the train step",
                f"no backward pass in the first {len(evidence.steps)} of {rows} training steps, and {steps} optimizer "
                f"steps: none of {len(learning)} parameter tensors gets a gradient",
                "call loss.backward() before optimizer.step()",
                evidence={"backward_passes": 0, "optimizer_steps": steps},
                certain=True,
                weight=0.98,
            )
        return
    if not steps and any(p.moved for p in learning):
        return  # an update that is written out steps as well
    seldom = steps and steps * 8 < rows
    if steps and not seldom:
        return
    yield Cause(
        "no-step",
        "the train step",
        f"{steps} optimizer steps in {rows} training steps, with {backwards} backward passes in the first "
        f"{len(evidence.steps)}",
        "call optimizer.step() after backward()"
        if not steps
        else f"call {line_of([e for _, e in evidence.events('step')]) or 'optimizer.step()'} in every training step",
        evidence={"optimizer_steps": steps, "steps": rows},
        certain=not steps,
        weight=0.98 if not steps else 0.6,
    )


def out_of_order(evidence: Evidence) -> Iterator[Cause]:
    """Gradients are cleared between backward and step, stepped before backward, or clipped before they are there."""
    stepped = [(event, step) for _, event, step in evidence.calls(OptimizerStep) if not step.closure]
    alive = any(step.living for _, step in stepped)
    own = any(step.own for _, step in stepped)
    if stepped and own and not alive and any(step.differentiated for step in evidence.steps):
        kinds = [event.kind for event in evidence.steps[-1].events if event.kind in ("zero_grad", "backward", "step")]
        cleared = "zero_grad" in kinds[kinds.index("backward") :] if "backward" in kinds else False
        before = "step" in kinds and "backward" in kinds and kinds.index("step") < kinds.index("backward")
        if cleared or before:
            yield Cause(
                "step-order",
                line_of([event for event, _ in stepped]) or "the train step",
                f"the order is {' -> '.join(kinds)}: every gradient is zero or missing when the optimizer steps",
                "zero_grad(), then backward(), then step()",
                evidence={"steps_without_gradient": len(stepped)},
                certain=True,
                weight=0.98,
            )
    yield from _clipped_too_early(evidence)
    yield from _clipped_too_late(evidence)


def applied_again(evidence: Evidence) -> Iterator[Cause]:
    """An optimizer applies a gradient that has been applied already, by itself or by another one, and is untouched."""
    again, renewed = evidence.counts.again, evidence.counts.renewed
    lines = [event for _, event, step in evidence.calls(OptimizerStep) if step.living]
    if twice := [m for m in evidence.updates if m.twice >= 2]:
        yield Cause(
            "step-order",
            shorten(m.name for m in twice),
            f"{len(twice)} parameter tensors are in two optimizers, and both apply the same gradient to them, in "
            f"{max(m.twice for m in twice)} steps that were looked at",
            "give every parameter to one optimizer"
            + (f": look at what steps in {shorten(dict.fromkeys(e.line for e in lines if e.line))}" if lines else ""),
            evidence={"tensors": len(twice), "steps": max(m.twice for m in twice)},
            certain=True,
            weight=0.94,
        )
    if again < 2:
        return
    yield Cause(
        "step-order",
        line_of(lines) or "the train step",
        f"{again} of {again + renewed} optimizer steps apply the very gradient that the step before has applied: no "
        "backward() comes between them",
        "one step() for one backward()",
        evidence={"again": again, "renewed": renewed},
        certain=True,
        weight=0.955,
    )


def _clipped_too_early(evidence: Evidence) -> Iterator[Cause]:
    early: list[Event] = []
    for step in evidence.steps:
        kinds = [event.kind for event in step.events]
        if "clip" not in kinds or "backward" not in kinds:
            return
        clips = [(event, event.fact) for event in step.events if isinstance(event.fact, Clip)]
        if max(i for i, kind in enumerate(kinds) if kind == "clip") > kinds.index("backward"):
            return
        if any(clip.norm for _, clip in clips):
            return
        early += [event for event, _ in clips]
    if early:
        yield Cause(
            "step-order",
            line_of(early) or "the train step",
            "gradients are clipped before backward(), when there are none: clipping does nothing",
            "clip between backward() and step()",
            evidence={"clipped_gradients": 0},
            certain=True,
            weight=0.9,
        )


def _clipped_too_late(evidence: Evidence) -> Iterator[Cause]:
    """Gradients are clipped once they have been applied, and zeroed before there are others."""
    late = []
    for step in evidence.steps:
        kinds = [event.kind for event in step.events]
        if not {"clip", "step", "backward", "zero_grad"} <= set(kinds):
            return
        if kinds.index("clip") < len(kinds) - kinds[::-1].index("step"):
            return
        late += [event for event in step.events if isinstance(event.fact, Clip) and event.fact.norm > event.fact.most]
    if late and isinstance(clip := late[0].fact, Clip):
        yield Cause(
            "step-order",
            line_of(late) or "the train step",
            f"gradients of norm {number(clip.norm)} are clipped to {number(clip.most)} after the optimizer has applied "
            "them, and zeroed before the next ones: clipping does nothing",
            "clip between backward() and step()",
            evidence={"norm": clip.norm, "most": clip.most},
            certain=True,
            weight=0.9,
        )


def not_zeroed(evidence: Evidence) -> Iterator[Cause]:
    """A step applies gradients of an earlier step again."""
    stale = next((found for found in evidence.calls(OptimizerStep) if found[2].stale), None)
    if stale is not None:
        at, event, applied = stale
        yield Cause(
            "grad-accumulation",
            event.line or "the train step",
            f"{applied.stale} parameter tensors still held the gradient of the step before when step {at} added to it",
            "call optimizer.zero_grad() before every backward() that starts a step",
            evidence={"stale_tensors": float(applied.stale), "step": at},
            certain=True,
            weight=0.97,
        )
        return
    for step in evidence.steps:
        roots = [value for value in step.differentiated if math.isfinite(value)]
        kinds = [event.kind for event in step.events]
        between = kinds[kinds.index("backward") : -kinds[::-1].index("backward")] if "backward" in kinds else []
        if len(roots) < 3 or evidence.passed or not math.isfinite(step.reported) or step.reported == 0:
            continue
        if "zero_grad" in between:  # nothing is accumulated
            continue
        share = statistics.fmean(roots) / step.reported
        if 0.5 < share < 2 and sum(event.kind == "step" for event in step.events) <= 1:
            proven = evidence.proof("our step") or any(
                a.passed and a.trial.kind == "learning rate" and (a.trial.factor or 1) < 1 for a in evidence.attempts
            )
            yield Cause(
                "grad-accumulation",
                "the train step",
                f"{len(roots)} backward passes before one step, each of the whole loss (mean "
                f"{number(statistics.fmean(roots))}, reported {number(step.reported)})",
                f"divide the loss by the number of micro-batches: (loss / {len(roots)}).backward()",
                "proven" if proven else "shown",
                {"backward_passes": len(roots)},
                weight=0.96,
            )
        return


def thrown_away(evidence: Evidence) -> Iterator[Cause]:
    """Gradients are cleared before any optimizer has applied them."""
    steps, agreement = evidence.steps, evidence.probed.agreement
    parts = agreement.micro_batches if agreement is not None else 0
    if not evidence.own_step or evidence.record.stop == "non_finite":
        return
    for step in steps:
        kinds = [event.kind for event in step.events if event.kind in ("zero_grad", "backward", "step")]
        inner = [
            i
            for i, kind in enumerate(kinds)
            if kind == "zero_grad" and "backward" in kinds[:i] and "step" not in kinds[:i]
        ]
        if (
            inner
            and (kinds.count("backward") > 2 or parts)
            and kinds.count("step") == 1
            and kinds[kinds.index("step") - 1] == "backward"  # else they are written by hand
            and ((not evidence.learned and len(inner) > 1) or parts == kinds.count("backward"))
        ):
            yield Cause(
                "grad-accumulation",
                "the train step",
                f"gradients are zeroed {len(inner)} time{'s' if len(inner) > 1 else ''} between the "
                f"{kinds.count('backward')} backward passes of one step: only the last one counts",
                "zero gradients once, before the first micro-batch",
                evidence={"zeroed": len(inner)},
                certain=True,
                weight=0.95,
            )
            return
    idle = [step for step in steps if step.differentiated and not any(event.kind == "step" for event in step.events)]
    cleared = [step for step in steps if any(event.kind == "zero_grad" for event in step.events)]
    count, rows = evidence.counts.steps, evidence.record.steps
    if len(idle) >= 2 and len(cleared) == len(steps) and 0 < count < 0.6 * rows:
        yield Cause(
            "no-step",
            "the train step",
            f"gradients are zeroed in every training step, and the optimizer steps in {count} of {rows}: those in "
            "between are thrown away",
            "zero gradients only after optimizer.step()"
            if any(abs(step.differentiated[0]) < WHOLE * abs(step.reported) for step in idle)
            else "call optimizer.step() in every training step, as zero_grad() is",
            evidence={"optimizer_steps": count, "steps": rows},
            certain=True,
            weight=0.94,
        )


FAMILY = Family(
    group="optimizer and update",
    order=70,
    rules=(no_step, one_of_several, out_of_order, applied_again, not_zeroed, thrown_away),
    docs="""
### no-step

The optimizer is never stepped, or hardly ever.

```python
def step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    # fixed: optimizer.step()
    return loss


result = run_overfit(net, (features, classes), step=step, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is the same at every step, though gradients are there.
- **Evidence**: shown, certain: steps of optimizers are counted, of several each by what it holds. Too few, but not
  none, are not certain.
- **Fix**: call `optimizer.step()`; accumulate over fewer batches than the run has; look at what skips a step.

### grad-accumulation

Gradients are not zeroed before the next step, or are accumulated without a division.

```python
def step(model, batch, optimizer):
    # fixed: optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


result = run_overfit(net, (features, classes), step=step, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls, overshoots and swings ever wider; or it jumps as if the learning rate were too high.
- **Evidence**: shown, certain: gradients that a step has applied are added to before they are zeroed. Or the
  gradient of several micro-batches is as many times the slope of what the step reports, or as many times less. Several
  backward passes of the whole loss before one step are shown.
- **Fix**: `optimizer.zero_grad()` before the backward pass that starts a step; divide by the number of micro-batches.

### step-order

`zero_grad`, `backward`, clipping and `step` come in an order that leaves nothing to be applied, or the same twice.

```python
def step(model, batch, optimizer):
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.zero_grad()  # fixed: optimizer.step()
    optimizer.step()  # fixed: optimizer.zero_grad()
    return loss


result = run_overfit(net, (features, classes), step=step, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is the same at every step, though `backward` and `step` are called.
- **Evidence**: shown, certain: the order of the calls, and the gradients that are there when the optimizer steps, or
  that are clipped once it has; or the steps that apply the gradient of the step before, counted.
- **Fix**: `zero_grad()`, `backward()`, clip, `step()`.
""",
)
