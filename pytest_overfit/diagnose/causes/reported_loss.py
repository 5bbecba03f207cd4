"""The loop: is what is reported what is trained, and is what is trained the model?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.agreement import BackwardAgain
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import Declared
from pytest_overfit.diagnose.operation import Overwritten
from pytest_overfit.diagnose.queries import line_of
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

DRAWN = 1e-2  # of a gradient: what no rounding makes, whatever is summed up in whichever order
TURNED = (0.8, 1.25)  # times the slope: the same gradient, turned around


def another_model(evidence: Evidence) -> Iterator[Cause]:
    """The graph of what is differentiated holds parameters, and none of them is the model's."""
    if not evidence.own_step or not evidence.steps:
        return
    step = evidence.steps[0]
    others = step.foreign + step.foreign_in_optimizer
    followed = evidence.learned and _trains(evidence)  # from afar: the inner loop of a meta-learner trains a copy
    if step.differentiated and others and not step.reached and not followed:
        yield Cause(
            "wrong-model",
            "the train step",
            f"the loss that is differentiated reaches {others} parameter tensors, none of them of the model that "
            "was handed over",
            "train the model that the step is called with, not a copy",
            evidence={"others": others},
            certain=True,
            weight=0.98,
        )
        return
    unreported = step.connected is False or _constant(evidence)
    set_back = any(m.back for m in evidence.updates)
    if not evidence.learned and _trains(evidence) and _constant(evidence) and unreported and not set_back:
        yield Cause(
            "wrong-model",
            "the train step",
            f"parameters move and the reported objective stays at {number(evidence.objective[-1])} in all "
            f"{len(evidence.objective)} steps: it is another model's",
            "report the loss of the model that is trained",
            evidence={"objective": evidence.objective[-1]},
            weight=0.91,
        )


def _constant(evidence: Evidence) -> bool:
    curve = evidence.objective
    return len(curve) > 5 and max(curve) - min(curve) <= 1e-7 * max(1e-12, abs(curve[0]))


def _trains(evidence: Evidence) -> bool:
    return any(any(m.ratios) for m in evidence.updates)


def another_loss(evidence: Evidence) -> Iterator[Cause]:
    """What is reported is not what is differentiated."""
    if not evidence.own_step or evidence.learned or len(evidence.steps) < 2:
        return
    limit = evidence.limit_of_objective() or 0.0
    if (
        evidence.steps[0].differentiated
        and not any(any(step.differentiated) for step in evidence.steps)
        and evidence.steps[0].reported > limit
    ):
        yield Cause(
            "wrong-backward",
            "the train step",
            f"what is differentiated is exactly 0 in the first {len(evidence.steps)} steps, and "
            f"{number(evidence.steps[0].reported)} is reported",
            "call backward() on the loss that is reported",
            evidence={"reported": evidence.steps[0].reported, "differentiated": 0.0},
            weight=0.95,
        )
        return
    found = evidence.agreement
    rows = [(s.reported, (s.differentiated[0], sum(s.differentiated), s.differentiated[-1])) for s in evidence.steps
            if s.differentiated and s.reported]  # fmt: skip
    ratios = [[value / reported for value in values] for reported, values in rows]
    steady = any(max(r) - min(r) <= 2e-3 * max(map(abs, r)) for r in zip(*ratios, strict=True))
    if len(rows) < len(evidence.steps) or steady or not all(math.isfinite(reported) for reported, _ in rows):
        return
    if any(step.connected for step in evidence.steps) or _constant(evidence) or (found is not None and found.agrees):
        return
    last = evidence.steps[-1]
    yield Cause(
        "wrong-backward",
        "the train step",
        f"step {last.number} reports {number(last.reported)} and differentiates {number(last.differentiated[0])}, of "
        "which it is no part",
        "call backward() on the loss that is reported",
        evidence={"reported": last.reported, "differentiated": last.differentiated[0]},
        weight=0.955,
    )


def opposed(evidence: Evidence) -> Iterator[Cause]:
    """The gradient that reaches the optimizer leads up the objective that is reported."""
    found = evidence.agreement
    if found is None or evidence.learned or not found.opposes:
        return
    slope = found.slopes[0]
    whole = TURNED[0] < -slope.measured / slope.gradient < TURNED[1]
    last = [event for _, event in evidence.events("backward")]
    yield Cause(
        "wrong-backward",
        line_of(last) or "the train step",
        f"the gradient that the optimizer takes is {number(slope.gradient)}, and the slope of the reported objective "
        f"along it {number(slope.measured)}: every step leads up",
        "differentiate the loss that is reported: leave out the minus on the way to backward()"
        if whole
        else "call backward() on the loss that is reported",
        evidence={"gradient": slope.gradient, "slope": slope.measured},
        weight=0.97,
    )


def differentiated_again(evidence: Evidence) -> Iterator[Cause]:
    """The same loss is differentiated more than once, and its gradients add up."""
    found = evidence.probed.agreement
    factor = None if found is None or not found.again or found.agrees else found.factor
    if found is None or factor is None or factor < 1:
        return
    yield Cause(
        "wrong-backward",
        line_of([event for _, event in evidence.events("backward")]) or "the train step",
        f"{found.backwards} backward passes of one step go through the same loss: the gradient that the optimizer "
        f"takes is {number(factor)} times the slope of the reported objective",
        "call backward() once, on the sum of what is to be learnt, without retain_graph",
        evidence={"factor": factor, "backwards": float(found.backwards)},
        certain=True,
        weight=0.96,
    )


def wrong_functions(evidence: Evidence) -> Iterator[Cause]:
    """The backward of an autograd function is not that of its forward, and the whole gradient shows it."""
    found = evidence.agreement
    if found is None or evidence.learned or (evidence.own_step and found.agrees):
        return
    wrong = [f for f in found.functions if (f.blind and found.slopes) or not (f.agrees or f.is_flat)]
    if not wrong:
        return
    first, whole = wrong[0], next(iter(found.slopes), None)
    said = (
        f"the backward of {first.where} gives the same gradient whatever it is given, a derivative of 0 included"
        if first.blind
        else f"the backward of {first.where} gives {number(first.gradient)} where its forward slopes by "
        f"{number(first.measured)}"
    )
    yield Cause(
        "wrong-backward",
        first.where,
        said
        + (
            f"; the gradient that the optimizer takes is {number(whole.gradient)}, the slope of the reported objective "
            f"along it {number(whole.measured)}"
            if whole
            else ""
        ),
        "multiply by grad_output in backward()" if first.blind else "check backward() with torch.autograd.gradcheck",
        evidence={"gradient": first.gradient, "slope": first.measured},
        weight=0.955,
    )


def unequal_groups(evidence: Evidence) -> Iterator[Cause]:
    """Means of micro-batches are averaged although they count different numbers of elements."""
    start, end = evidence.probed.agreement_at_start, evidence.probed.agreement
    if start is None or end is None or not (start.depends_on_groups and end.depends_on_groups):
        return
    factor = min(start.regrouped or 1.0, end.regrouped or 1.0)
    yield Cause(
        "grad-accumulation",
        "the train step",
        f"{end.backwards} micro-batches are averaged that count different numbers of elements: with the same samples "
        f"in other micro-batches one weighs {number(factor)} times as much beside another as before",
        "sum over every micro-batch, and divide by the number of elements that count in all of them",
        evidence={"factor": factor, "micro_batches": float(end.backwards)},
        certain=True,
        weight=0.9,
    )


def not_repeated(evidence: Evidence) -> Iterator[Cause]:
    """One forward pass has another gradient with other random numbers, or with the hooks of one call alone."""
    found = evidence.fact(BackwardAgain)
    if found is None:
        return
    if found.drawn > DRAWN:
        part = f"module {found.recomputed}" if found.recomputed else shorten(found.tensors)
        yield Cause(
            "wrong-backward",
            part,
            f"the same forward pass has another gradient where other random numbers are drawn behind it: "
            f"{shorten(found.tensors)} differ, by {found.drawn:.1%} of the whole"
            + (f"; {found.recomputed} is computed anew on the way back" if found.recomputed else ""),
            "let the way back use the numbers of the forward pass: checkpoint(..., preserve_rng_state=True); where it "
            'is meant, allow=["wrong-backward"]',
            evidence={"drawn": found.drawn},
            certain=True,
            weight=0.94,
        )
    elif found.hooks:
        first, now = found.objective
        effect = (
            f"the objective {number(now)} in place of {number(first)}"
            if math.isnan(found.left) or not found.tensors
            else f"the gradient of {shorten(found.tensors)} {number(found.left)} of what it is with those of one call"
        )
        holder, _, kind = found.hooked.rpartition(".")
        yield Cause(
            "wrong-backward",
            holder or "the model",
            f"every call registers another hook on {holder or 'the model'}: {found.hooks} are in its {kind}, which "
            f"makes {effect}",
            "register the hook once, in __init__, or remove() its handle at the end of the call",
            evidence={"hooks": found.hooks},
            certain=True,
            weight=0.94,
        )


def never_called(evidence: Evidence) -> Iterator[Cause]:
    """A module has a method that is meant to make its gradient, and autograd makes the one of its forward pass."""
    declared = evidence.fact(Declared)
    if declared is None or not declared.backwards:
        return
    name = declared.backwards[0].rpartition("(")[2].rstrip(")")
    yield Cause(
        "wrong-backward",
        shorten(f"module {each}" for each in declared.backwards),
        f"{name}.backward() takes a gradient, and nothing calls it: {name} is an nn.Module, whose gradient is that of "
        "what its forward() does",
        f"make {name} a torch.autograd.Function, with static forward(ctx, ...) and backward(ctx, grad), and call apply",
        evidence={"modules": len(declared.backwards)},
        certain=True,
        weight=0.95,
    )


def overwrites(evidence: Evidence) -> Iterator[Cause]:
    """One call writes several values to one place: which one stays is undefined, and all of them get its gradient."""
    for op, found in evidence.ops(Overwritten):
        yield Cause(
            "wrong-backward",
            op.where,
            f"{op.name} writes {found.count} values, several to one place: {found.lost} of them are lost, and get the "
            "gradient of the one that stays",
            "add them up, out.index_add_(0, index, values), or scatter_reduce with amax or mean",
            evidence={"lost": found.lost, "values": found.count},
            certain=True,
            weight=0.95,
        )
        return


FAMILY = Family(
    group="loop",
    order=50,
    rules=(
        another_model,
        opposed,
        differentiated_again,
        another_loss,
        wrong_functions,
        unequal_groups,
        not_repeated,
        never_called,
        overwrites,
    ),
    docs="""
### wrong-backward

Another loss is differentiated than the one that is reported.

```python
def step(model, batch, optimizer):
    output = model(batch[0])
    first = (output[:, 0] - batch[1][:, 0]).square().mean()
    rest = (output[:, 1:] - batch[1][:, 1:]).square().mean()
    optimizer.zero_grad()
    first.backward()  # fixed: (first + rest).backward()
    optimizer.step()
    return first + rest


result = run_overfit(net, (features, values), step=step, optimizer=adam, max_steps=300)
```

- **Symptom**: the reported loss stays on a plateau, or climbs.
- **Evidence**: shown: the values that are differentiated beside those that are reported, of which they are no part, and
  the slope of the reported objective along the gradient that reaches the optimizer. Certain is a part of the model that
  gets the same multiple of its slope in every direction, and the line that makes it so, and a multiple of that slope
  where backward passes of one step go through the same loss. Of an autograd function of your own the slope of its
  `forward` beside what its `backward` gives, and whether that heeds what it is given. Certain, too, is one forward pass
  that has another gradient where other random numbers are drawn behind it, and hooks that every call adds to those of
  the calls before, with what all of them make of the gradient beside those of one call; and a method `backward` of an
  `nn.Module` that takes a gradient, which autograd never calls; and values that one call writes to places where it
  writes others too: `out[index] = values`. Straight-through estimators and
  gradients that are turned around, scaled or clipped on purpose are none.
- **Fix**: call `backward()` on the loss that is reported; check a function with `torch.autograd.gradcheck`.

### wrong-model

Another model is trained than the one that is reported.

```python
teacher = net()


def step(model, batch, optimizer):
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return F.cross_entropy(teacher(batch[0]), batch[1])  # fixed: return loss


result = run_overfit(net, (features, classes), step=step, optimizer=adam, max_steps=200)
```

- **Symptom**: parameters move and the loss is the same at every step; or it falls and the model is as before.
- **Evidence**: shown: parameters move, and the reported loss does not. Certain is a graph of what is differentiated
  that holds parameters, and none of the model that was handed over.
- **Fix**: train, and report, the model that the step is called with.
""",
)
