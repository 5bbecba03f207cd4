"""The train step: what is called when, and what is lost between two steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Event, Evidence
from pytest_overfit.diagnose.rules.seen import (
    line_of,
    passed_with,
)
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number


def never_stepped(evidence: Evidence) -> Iterator[Cause]:
    """Gradients come, and the optimizer does not step."""
    steps, rows = evidence.counts.get("steps", 0), evidence.record.steps
    backwards = sum(len(step.roots) for step in evidence.steps)
    if not evidence.own_step or not backwards or rows < 2 or evidence.record.stop == "non_finite":
        return
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
        else "step more often: accumulation is longer than the run",
        "shown",
        {"optimizer_steps": steps, "steps": rows},
        certain=not steps,
        weight=0.98 if not steps else 0.6,
    )


def out_of_order(evidence: Evidence) -> Iterator[Cause]:
    """Gradients are cleared between backward and step, stepped before backward, or clipped before they are there."""
    stepped = [event for _, event in evidence.events("step") if not event.numbers.get("closure")]
    alive = [event for event in stepped if event.numbers.get("living", 0)]
    if (
        stepped
        and not alive
        and any(step.roots for step in evidence.steps)
        and any(e.numbers.get("own", 1) for e in stepped)
    ):
        kinds = [event.kind for event in evidence.steps[-1].events if event.kind in ("zero_grad", "backward", "step")]
        cleared = "zero_grad" in kinds[kinds.index("backward") :] if "backward" in kinds else False
        before = "step" in kinds and "backward" in kinds and kinds.index("step") < kinds.index("backward")
        if cleared or before:
            yield Cause(
                "step-order",
                line_of(stepped) or "the train step",
                f"the order is {' -> '.join(kinds)}: every gradient is zero or missing when the optimizer steps",
                "zero_grad(), then backward(), then step()",
                "shown",
                {"steps_without_gradient": len(stepped)},
                certain=True,
                weight=0.98,
            )
    yield from _clipped_too_early(evidence)


def _clipped_too_early(evidence: Evidence) -> Iterator[Cause]:
    early: list[Event] = []
    for step in evidence.steps:
        kinds = [event.kind for event in step.events]
        if "clip" not in kinds or "backward" not in kinds:
            return
        clips = [event for event in step.events if event.kind == "clip"]
        if max(i for i, kind in enumerate(kinds) if kind == "clip") > kinds.index("backward"):
            return
        if any(event.numbers["norm"] for event in clips):
            return
        early += clips
    if early:
        yield Cause(
            "step-order",
            line_of(early) or "the train step",
            "gradients are clipped before backward(), when there are none: clipping does nothing",
            "clip between backward() and step()",
            "shown",
            {"clipped_gradients": 0},
            certain=True,
            weight=0.9,
        )


def not_zeroed(evidence: Evidence) -> Iterator[Cause]:
    """A step applies gradients of an earlier step again."""
    stale = [(number_, event) for number_, event in evidence.events("step") if event.numbers.get("stale", 0)]
    if stale:
        at, event = stale[0]
        yield Cause(
            "grad-accumulation",
            event.line or "the train step",
            f"{event.numbers['stale']:.0f} parameter tensors still held the gradient of the step before when step "
            f"{at} added to it",
            "call optimizer.zero_grad() before every backward() that starts a step",
            "shown",
            {"stale_tensors": event.numbers["stale"], "step": at},
            certain=True,
            weight=0.97,
        )
        return
    for step in evidence.steps:
        roots = [value for value in step.roots if math.isfinite(value)]
        if len(roots) < 3 or evidence.passed or not math.isfinite(step.reported) or step.reported == 0:
            continue
        share = statistics.fmean(roots) / step.reported
        if 0.5 < share < 2 and sum(event.kind == "step" for event in step.events) <= 1:
            proof = next(
                (
                    a
                    for a in evidence.attempts
                    if a.passed and (a.change == "our step" or a.change.startswith("learning rate x 0"))
                ),
                None,
            )
            yield Cause(
                "grad-accumulation",
                "the train step",
                f"{len(roots)} backward passes before one step, each of the whole loss (mean "
                f"{number(statistics.fmean(roots))}, reported {number(step.reported)})",
                f"divide the loss by the number of micro-batches: (loss / {len(roots)}).backward()",
                "proven" if proof else "shown",
                {"backward_passes": len(roots)},
                weight=0.96,
            )
        return


def thrown_away(evidence: Evidence) -> Iterator[Cause]:
    """Gradients are cleared before any optimizer has applied them."""
    steps = evidence.steps
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
            and kinds.count("backward") > 2
            and kinds.count("step") == 1
            and not evidence.learned
            and len(inner) > 1
        ):
            yield Cause(
                "grad-accumulation",
                "the train step",
                f"gradients are zeroed {len(inner)} times between the {kinds.count('backward')} backward passes of "
                "one step: only the last one counts",
                "zero gradients once, before the first micro-batch",
                "shown",
                {"zeroed": len(inner)},
                certain=True,
                weight=0.95,
            )
            return
    idle = [step for step in steps if step.roots and not any(event.kind == "step" for event in step.events)]
    cleared = [step for step in steps if any(event.kind == "zero_grad" for event in step.events)]
    count, rows = evidence.counts.get("steps", 0), evidence.record.steps
    if len(idle) >= 2 and len(cleared) == len(steps) and 0 < count < 0.6 * rows:
        yield Cause(
            "no-step",
            "the train step",
            f"gradients are zeroed in every training step, and the optimizer steps in {count} of {rows}: those in "
            "between are thrown away",
            "zero gradients only after optimizer.step()",
            "shown",
            {"optimizer_steps": count, "steps": rows},
            certain=True,
            weight=0.94,
        )


def state_lost(evidence: Evidence) -> Iterator[Cause]:
    """What an optimizer remembers is gone at its next step."""
    lost, looked = evidence.counts.get("states_lost", 0), evidence.counts.get("states", 0)
    optimizers, steps = evidence.counts.get("optimizers", 0), evidence.counts.get("steps", 0)
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
        "shown",
        {"optimizers": optimizers, "steps": steps, "lost": lost},
        certain=True,
        weight=0.96,
    )


def overwritten(evidence: Evidence) -> Iterator[Cause]:
    """Weights change between two steps of their optimizer."""
    hit = [m for m in evidence.moves if m.overwritten >= 2 and m.overwritten * 60 > m.sampled]
    if not hit or evidence.learned:
        return
    most = max(hit, key=lambda m: m.overwritten)
    lines = [event.line for _, event in evidence.events("load", "init") if event.line]
    back = sum(m.back for m in hit)
    yield Cause(
        "weights-reset",
        ", ".join(filter(None, (shorten(m.name for m in hit), lines[0] if lines else ""))),
        f"{len(hit)} parameter tensors were written to between optimizer steps, up to {most.overwritten} times in "
        f"{most.sampled}" + (f", {back} times back to their initial value" if back else ""),
        "load or initialise weights once, before the loop",
        "proven" if passed_with(evidence, "our step") else "shown",
        {"tensors": len(hit), "times": most.overwritten, "steps": most.sampled},
        weight=0.95,
    )


RULES = (never_stepped, out_of_order, not_zeroed, thrown_away, state_lost, overwritten)
