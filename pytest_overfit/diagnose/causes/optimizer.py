"""The optimizer and the update: what it holds, and whether anything moves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import is_declared, learning
from pytest_overfit.diagnose.step_trace import Clip, Event, OptimizerStep, ParameterUpdate
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.globs import is_teacher

FAR_CLIPPED = 100.0  # norm of a gradient over what it is clipped to
SCALE_FREE = frozenset({"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "RMSprop", "Adafactor", "Lion"})
FLOAT32_EPSILON = 1.2e-7
OTHER_UNITS = 0.1  # of the norm that clipping leaves: what the optimizer takes is neither less nor this many times more
FAR_ABOVE_EPSILON = 1e-3  # a norm of gradients that the eps of an optimizer does not feel


def left_out(evidence: Evidence) -> Iterator[Cause]:
    """Trainable parameters are in no optimizer."""
    trainable = [p for p in learning(evidence) if p.trainable and not is_teacher(p.name)]
    missing = [p for p in trainable if not p.in_optimizer and not p.moved]  # a hand-written update moves them as well
    if not missing or (evidence.own_step and not evidence.groups):
        return
    foreign = any(step.foreign_in_optimizer for step in evidence.steps) or _holds_others(evidence)
    whole = len(missing) == len(trainable)
    yield Cause(
        "optimizer-coverage",
        shorten(p.name for p in missing),
        f"{len(missing)} of {len(trainable)} trainable parameter tensors are in no optimizer"
        + (", and the optimizer holds parameters that are not the model's" if foreign else ""),
        "build the optimizer from model.parameters() after the last change to the model",
        evidence={"missing": len(missing), "trainable": len(trainable)},
        certain=True,
        weight=0.93 if whole and evidence.own_step else 0.97,
    )


def left_out_beside(evidence: Evidence) -> Iterator[Cause]:
    """Parameters of a loss, or of another module beside the model, are in no optimizer."""
    # A network that somebody has put into evaluation mode is there to judge, not to learn.
    leaves = [leaf for leaf in evidence.leaves if not leaf.within and leaf.training]
    if not leaves or not any(step.reached for step in evidence.steps):
        return
    homes = dict.fromkeys(leaf.name.partition(".")[0] for leaf in leaves if leaf.name)
    what = ", ".join(homes) or "a tensor of shape " + ", ".join(leaf.shape for leaf in leaves[:4])
    yield Cause(
        "optimizer-coverage",
        shorten(leaf.name or f"a tensor of shape {leaf.shape}" for leaf in leaves),
        f"{len(leaves)} tensors of {what} take part in the loss, require a gradient, and are in no optimizer that "
        "steps",
        "give them to the optimizer too, [*model.parameters(), *criterion.parameters()]; what is to stay as it is gets "
        "requires_grad_(False)",
        evidence={"missing": len(leaves)},
        certain=True,
        weight=0.95,
    )


def _holds_others(evidence: Evidence) -> bool:
    return any(group.tensors > len(group.names) for group in evidence.groups)


def no_update(evidence: Evidence) -> Iterator[Cause]:
    """Parameters get gradients, are stepped, and stay bit for bit what they were."""
    if not evidence.counts.steps or evidence.record.stop == "non_finite":
        return
    rates_of = {name: max(g.rates) for g in evidence.groups for name in g.names if g.rates}
    alive = any(step.living for _, _, step in evidence.calls(OptimizerStep))
    middle = statistics.median([m.gradient for m in evidence.updates if m.gradient] or [0.0])
    still = [
        m
        for m in evidence.updates
        if m.still
        and m.gradient
        and m.gradient > 1e-6 * middle
        and rates_of.get(m.name, 0) > 0
        and not any(m.ratios)
        and not is_declared(m.name, evidence)
        and not _rounds_away(m, evidence)
    ]
    if not still or not alive:
        return
    half = all(m.dtype in ("bfloat16", "float16") for m in still)
    yield Cause(
        "precision" if half else "no-update",
        shorten(m.name for m in still),
        f"{len(still)} parameter tensors have gradients and a learning rate of up to "
        f"{number(max(rates_of[m.name] for m in still))}, and are bit for bit what they were after "
        f"{evidence.counts.steps} steps" + (f": the update is below the precision of {still[0].dtype}" if half else ""),
        "keep float32 weights, and use autocast for the forward pass"
        if half
        else "update parameters in place: p.data.add_(...), under torch.no_grad()",
        evidence={"tensors": len(still)},
        certain=True,
        weight=0.92,
    )


def _rounds_away(update: ParameterUpdate, evidence: Evidence) -> bool:
    """Whether a right optimizer would leave it as it is: in float32 a rate that small is too small, and no more."""
    group = next((each for each in evidence.groups if update.name in each.names), None)
    if group is None or update.dtype != "float32":
        return False
    step = 1.0 if group.kind in SCALE_FREE else update.gradient or 0.0
    return max(group.rates, default=0.0) * step < FLOAT32_EPSILON * update.size


def clipped_away(evidence: Evidence) -> Iterator[Cause]:
    """Clipping leaves a hundredth of the gradient or less."""
    clips = [
        (clip.norm / clip.most, event, clip) for _, event, clip in evidence.calls(Clip) if clip.most > 0 and clip.norm
    ]
    worst = max(clips, key=lambda found: found[0], default=None)
    if worst is None or worst[0] < FAR_CLIPPED or evidence.learned:
        return
    ratio, event, clip = worst
    proven = evidence.proof("our step", "no clipping")
    if not proven and clip.most >= FAR_ABOVE_EPSILON and _scale_free(evidence):
        return
    scales = (s.differentiated[0] / s.reported for s in evidence.steps if len(s.differentiated) == 1 and s.reported)
    scale = max((each for each in scales if math.isfinite(each)), default=1.0)
    yield Cause(
        "grad-clip",
        event.line or "the train step",
        f"gradients of {number(clip.norm)} are clipped to {number(clip.most)}: {ratio:.3g} "
        "times less" + ("; the run passes without clipping" if proven else ""),
        f"call scaler.unscale_(optimizer) before it: what is differentiated is the loss times {scale:.3g}"
        if scale > FAR_CLIPPED
        else f"clip at {number(10 ** math.ceil(math.log10(clip.norm)))}, above the usual norm, or not at all",
        "proven" if proven else "shown",
        {"norm": clip.norm, "most": clip.most},
        weight=0.95,
    )


def _scale_free(evidence: Evidence) -> bool:
    """Whether the steps are the same for gradients a hundred times smaller: divided by their own size."""
    kinds = {group.kind for group in evidence.groups}
    return bool(kinds) and kinds <= SCALE_FREE


def clipped_in_other_units(evidence: Evidence) -> Iterator[Cause]:
    """Gradients are clipped, and multiplied by a number after it: what is allowed is not what the optimizer takes."""
    found: list[tuple[Event, Clip, float, float]] = []
    for step in evidence.steps:
        clips = [(event, event.fact) for event in step.events if isinstance(event.fact, Clip)]
        taken = [event.fact.norm for event in step.events if isinstance(event.fact, OptimizerStep)]
        if len(clips) != 1 or len(taken) != 1 or not clips[0][1].whole or not taken[0]:
            return
        (event, clip), norm = clips[0], taken[0]
        left = min(clip.norm, clip.most)
        if not clip.norm > clip.most > 0 or OTHER_UNITS < norm / left < 1 / OTHER_UNITS:
            return
        found.append((event, clip, norm, left))
    for event, clip, norm, left in found[:1]:
        yield Cause(
            "grad-clip",
            event.line or "the train step",
            f"gradients of norm {number(clip.norm)} are clipped to {number(clip.most)}, and the optimizer takes some "
            f"of norm {number(norm)}: they are divided by {number(left / norm)} in between",
            "clip what the optimizer takes: scaler.unscale_(optimizer), then clip, then scaler.step(optimizer)",
            evidence={"norm": clip.norm, "most": clip.most, "taken": norm},
            certain=True,
            weight=0.93,
        )


FAMILY = Family(
    group="optimizer and update",
    order=60,
    rules=(left_out, left_out_beside, no_update, clipped_away, clipped_in_other_units),
    docs="""
### optimizer-coverage

Trainable parameters are in no optimizer, or the optimizer holds those of another copy of the model.

```python
model = net()
optimizer = adam(model.parameters())
model[2] = nn.Linear(64, 3)
# fixed: optimizer = adam(model.parameters())
result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=optimizer, max_steps=200)
```

- **Symptom**: the loss falls more slowly than it should; a part of the model stays as it was initialised.
- **Evidence**: shown, certain: the parameters of the model against those of every optimizer that steps.
- **Fix**: build the optimizer last, after heads are swapped and copies are made.

### no-update

Parameters get gradients and are stepped, and are bit for bit what they were.

```python
class Descent(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.5})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p = p - 0.5 * p.grad  # fixed: p -= 0.5 * p.grad


result = run_overfit(net, (features, classes), nn.CrossEntropyLoss(), optimizer=Descent, max_steps=300)
```

- **Symptom**: the loss is the same at every step.
- **Evidence**: shown, certain: values before the first step and after the last, beside gradients and learning rates.
- **Fix**: write into the parameter (`p.sub_(...)` under `torch.no_grad()`), not into a copy or a new tensor.

### grad-clip

Clipping leaves a hundredth of the gradient, or less.

```python
def step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-4)  # fixed: nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


result = run_overfit(net, (features, classes), step=step, optimizer=sgd, max_steps=300)
```

- **Symptom**: the loss falls in a straight and nearly flat line whatever the gradients are.
- **Evidence**: proven: the norm before clipping against the norm that is allowed, and a run that passes without. Adam
  and its kin divide gradients by their own size, so there only such a run counts. Shown, certain: the
  optimizer takes gradients of another size than clipping leaves, as where a scaler unscales them after it.
- **Fix**: clip above the usual norm, or not at all; `scaler.unscale_(optimizer)` before clipping.
""",
)
