"""What moves though nothing asked for it, and what does not follow though it should."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import Declared, Moves
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.globs import is_declared

DRIFTED = 0.1  # of a deviation: what the statistics of a frozen module have moved by


def not_frozen(evidence: Evidence) -> Iterator[Cause]:
    """Parameters that are declared frozen, by a glob, a flag or requires_grad, and move."""
    declared = evidence.fact(Declared)
    freezers = () if declared is None else declared.freezers
    parameters = evidence.record.parameters
    by_glob = [p.name for p in parameters if p.moved and is_declared(p.name, evidence.frozen)]
    stepped = {m.name for m in evidence.updates if any(m.ratios)}  # what an average moves no step of an optimizer does
    in_vain = [p.name for p in parameters if p.moved and not p.trainable and (p.name in stepped or p.frozen_by)]
    flagged = next((f for f in freezers if f.asked_by and not is_declared(f.parameters[0], evidence.unused)), None)
    names, why, change = by_glob, "declared frozen", "set requires_grad_(False) on them before the optimizer is built"
    if not names and in_vain:
        names, why = in_vain, "frozen"
        change = "take them out of the optimizer, or freeze them before it is built"
    if not names and flagged is not None:
        names, why = list(flagged.parameters), f"to be frozen by {flagged.asked_by}"
    if not names:
        return
    calls = [f.method for f in freezers if f.method.endswith("()") and set(f.parameters) & set(names)]
    if calls:
        change = f"call model.{calls[0]} before the optimizer is built: nobody has"
    moved = {p.name: p.moved for p in parameters}
    yield Cause(
        "not-frozen",
        shorten(names),
        f"{len(names)} parameter tensors are {why}, and moved by up to {number(max(moved[name] for name in names))}",
        change,
        evidence={"tensors": len(names)},
        certain=True,
        weight=0.95,
    )


def taught_copy(evidence: Evidence) -> Iterator[Cause]:
    """A target or a teacher, which follows what it is a copy of, is moved by a gradient of its own."""
    moves = evidence.fact(Moves)
    for copy in () if moves is None else moves.taught:
        if is_declared(f"{copy.name}.", evidence.unused):
            continue
        yield Cause(
            "not-frozen",
            copy.name,
            f"{copy.name} begins as a copy of {copy.of}, bit for bit, and an optimizer moves {copy.tensors} of its "
            "tensors by a gradient of their own: target and prediction come to meet each other",
            f"call {copy.name} within torch.no_grad(), after {copy.name}.requires_grad_(False), and keep it out of the "
            "optimizer",
            evidence={"tensors": copy.tensors},
            certain=True,
            weight=0.95,
        )
        return


def statistics_drift(evidence: Evidence) -> Iterator[Cause]:
    """Running statistics of a module that is frozen go on moving."""
    moves = evidence.fact(Moves)
    drifted = [] if moves is None else [each for each in moves.drifted if each.moved > DRIFTED]
    if drifted:
        worst = max(drifted, key=lambda each: each.moved)
        yield Cause(
            "drift",
            shorten(name for each in drifted for name in each.buffers),
            f"all parameters of {worst.module} are frozen, and its running statistics moved by up to "
            f"{number(worst.moved)} deviations: it runs in training mode",
            f"model.{worst.module}.eval() after every model.train()",
            evidence={"moved": worst.moved},
            certain=True,
            weight=0.8,
        )


def evaluation_writes(evidence: Evidence) -> Iterator[Cause]:
    """A pass in evaluation mode leaves other weights than it found."""
    written = evidence.probed.written
    if written is not None:
        yield Cause(
            "drift",
            written.parameter,
            f"every pass in evaluation mode moves {written.parameter} by {number(written.moved)} of its size: what is "
            "evaluated, saved or trained on is another model after each",
            f"compute with a new tensor in forward, and leave {written.parameter} as it is: no += or merge there "
            "that is not taken back",
            evidence={"moved": written.moved},
            certain=True,
            weight=0.94,
        )


def not_loaded(evidence: Evidence) -> Iterator[Cause]:
    """A checkpoint went into the model, and its weights found no place."""
    declared = evidence.fact(Declared)
    for load in () if declared is None else declared.loads:
        nothing = len(load.unexpected) == load.given
        if not nothing and len(load.renamed) < 2:
            continue  # another head, or one that is built later, is meant to be missing
        names = dict.fromkeys(name for name, _ in load.renamed) or load.missing
        change = "compare its keys with model.state_dict(), and load with strict=True"
        if load.renamed:
            name, key = load.renamed[0]
            prefix = (key.removesuffix(name), "") if len(key) > len(name) else ("", name.removesuffix(key))
            change = f"its keys begin with {prefix[0]!r} where the model's begin with {prefix[1]!r}: rename them, and "
            change += "load with strict=True"
        yield Cause(
            "not-loaded",
            shorten(names),
            f"{len(load.unexpected)} of {load.given} keys of a checkpoint fit nothing in {load.into}, and "
            f"{len(load.missing)} of its own are as initialised",
            change,
            evidence={"given": load.given, "unexpected": len(load.unexpected), "missing": len(load.missing)},
            certain=True,
            weight=0.94,
        )
        return


def average_stays(evidence: Evidence) -> Iterator[Cause]:
    """An average of the weights does not follow them."""
    moves = evidence.fact(Moves)
    for average in () if moves is None else moves.averages:
        yield Cause(
            "ema",
            average.name,
            f"{average.stayed} of {average.tensors} tensors of {average.name} are bit for bit the initial weights "
            f"after {evidence.record.steps} steps, and the weights have moved: the average does not follow them",
            "look at the names by which the update finds its weights (torch.compile and DDP put a prefix before them), "
            "whether it is called, and whether it copies the buffers: parameters() has no running statistics",
            evidence={"stayed": average.stayed, "tensors": average.tensors},
            certain=True,
            weight=0.94,
        )
        return


FAMILY = Family(
    group="optimizer and update",
    order=72,
    rules=(not_frozen, taught_copy, statistics_drift, evaluation_writes, average_stays, not_loaded),
    docs="""
### not-frozen

What is declared frozen moves.

```python
class Staged(nn.Module):
    def __init__(self, frozen_stages):
        super().__init__()
        self.frozen_stages = frozen_stages
        self.stages = nn.ModuleList([nn.Linear(8, 64), nn.Linear(64, 64)])
        self.head = nn.Linear(64, 3)
        # fixed: self.freeze_stages()

    def freeze_stages(self):
        self.stages[: self.frozen_stages].requires_grad_(False)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x).tanh()
        return self.head(x)


model = Staged(frozen_stages=1)
result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=300)
```

- **Symptom**: none: what was to be kept is trained.
- **Evidence**: shown, certain: parameters that `frozen=[...]`, a flag of the model (`frozen_stages=1`) or
  `requires_grad` says are frozen, and how far they moved; the method that would freeze them and was not called; an
  attribute such as `module.requires_grad = False`, which torch does not read.
- **Fix**: freeze them before the optimizer is built.

### drift

What has no gradient moves: the running statistics of a frozen module, or weights in evaluation mode.

```python
class Tuned(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.Tanh()).requires_grad_(False)
        self.head = nn.Linear(64, 3)

    def train(self, mode=True):
        super().train(mode)
        # fixed: self.trunk.eval()
        return self

    def forward(self, x):
        return self.head(self.trunk(x))


result = run_overfit(Tuned, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=1000)
```

- **Symptom**: none in training; the frozen part of a checkpoint is another than the one that was loaded.
- **Evidence**: shown, certain: all parameters of the module are frozen and stand still, its running mean has moved,
  and in evaluation what is trained gives something else by it than by the one of the start. A teacher's, which only the
  loss reads, may move. Or every pass in evaluation mode writes into a weight, as an adapter that is merged again.
- **Fix**: keep it in evaluation mode.

### ema

An average of the weights does not follow them.

```python
model = net()
shadow = {name: value.detach().clone() for name, value in model.named_parameters()}


def step(model, batch, optimizer):
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for name, value in model.named_parameters():
        if f"module.{name}" in shadow:  # fixed: if name in shadow:
            shadow[name].lerp_(value.detach(), 0.1)
    return loss


result = run_overfit(model, (features, classes), step=step, optimizer=adam, max_steps=300)
```

- **Symptom**: none in training; what is evaluated and saved is the model of the start.
- **Evidence**: shown, certain: copies under the name of an average are bit for bit the initial weights, or running
  means, at the end.
- **Fix**: find the weights by the names that they have; call the update after every step.

### not-loaded

Weights that a checkpoint should have filled are as initialised.

```python
trained = {f"module.{name}": value for name, value in net().state_dict().items()}


def build():
    model = net()
    model.load_state_dict(trained, strict=False)
    # fixed: model.load_state_dict({name.removeprefix("module."): value for name, value in trained.items()})
    return model


result = run_overfit(build, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: none: the model learns from where it was initialised.
- **Evidence**: shown, certain: what `load_state_dict` returned within the factory: no key fits, or names that are the
  same but for their prefix do not. A model that was built before the run is not seen.
- **Fix**: rename the keys; load with `strict=True`.
""",
)
