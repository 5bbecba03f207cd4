"""The graph from the loss back to the parameters: where it is cut, what it never reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison, CutTerm, ThrownAway, with_fact
from pytest_overfit.diagnose.queries import line_of, never_stepped
from pytest_overfit.diagnose.step_trace import Cut
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.globs import as_list, exact_globs, is_teacher
from pytest_overfit.judge.globs import is_declared as matches
from pytest_overfit.judge.gradients import waiting_of

ALL, MOST = 0.02, 0.5  # of the objective: nothing is left beside what is cut; what holds it up


def detached(evidence: Evidence) -> Iterator[Cause]:
    """What is differentiated, or would be, has no way back to the model."""
    nothing = evidence.record.stop == "detached"
    first = evidence.steps[0] if evidence.steps else None
    cut = (
        first is not None
        and bool(first.differentiated)
        and not first.reached
        and not first.foreign
        and not first.foreign_in_optimizer
    )
    if not (nothing or cut) or first is None:
        return
    reads = any(compared.differentiable for _, compared in with_fact(first.ops, Comparison))
    if first.cuts:
        by_loss = next((cut for cut in first.cuts if cut.where.startswith(LOSS)), None)
        worst = by_loss or first.cuts[0]
        yield Cause(
            "loss-detached",
            worst.where,
            f"the objective has no gradient: {_named(worst)} cuts it from the model",
            f"keep the tensor itself in the loss, without {_named(worst)}",
            evidence={"cuts": len(first.cuts)},
            certain=True,
            weight=0.97,
        )
    yield Cause(
        "loss-ignores-output" if not first.cuts and not reads else "loss-detached",
        LOSS,
        "the objective has no gradient, and nothing that the model returned was cut on the way: it is computed "
        "from other tensors"
        if not first.cuts
        else "the objective has no gradient",
        "compare the model's own output with the target",
        certain=True,
        weight=0.9,
    )


def cut_from_sum(evidence: Evidence) -> Iterator[Cause]:
    """A summand of the objective of a failed run that is cut from the model: it stands still, whatever it is of."""
    limit = evidence.limit_of_objective() or 0.0
    found = [
        (op, fact)
        for op, fact in with_fact(evidence.probed.ops, CutTerm)
        if fact.part > max(limit, MOST * fact.whole, 0.0)
    ]
    if evidence.learned or evidence.record.stop == "detached" or not found:
        return
    op, fact = max(found, key=lambda each: each[1].part)
    whole = abs(fact.whole - fact.part) <= ALL * abs(fact.whole)
    part = "the objective" if whole else f"{number(fact.part)} of the objective of {number(fact.whole)}"
    yield Cause(
        "loss-detached",
        op.where,
        f"{part} has no gradient: {op.name} cuts it from the model",
        f"keep the tensor itself in the loss, without {op.name}",
        evidence={"part": fact.part, "objective": fact.whole},
        weight=0.972,
    )


def _named(cut: Cut) -> str:
    return {"torch.no_grad": "torch.no_grad()", "checkpoint": "reentrant checkpointing"}.get(cut.by, cut.by)


def cut_off(evidence: Evidence) -> Iterator[Cause]:
    """Parameters that take part and get no gradient, and parameters that take no part."""
    if evidence.record.stop in ("detached", "no_trainable_parameters") or not evidence.steps:
        return
    first = evidence.steps[0]
    trainable = [p for p in evidence.record.parameters if p.trainable and p.numel]
    if not first.reached or not first.differentiated:
        return
    # What another hand moves, as that of an average or of a codebook, needs no gradient.
    missing = [p.name for p in trainable if p.max_grad is None and (not p.moved or p.name in first.replaced)]
    meant = waiting_of(evidence.record)
    missing = [n for n in missing if not is_teacher(n) and not matches(n, evidence.frozen) and n not in meant]
    cut_by: dict[Cut, list[str]] = {}
    for name in _not_as_a_whole(missing, evidence):
        if (cut := next((cut for cut in first.cuts if name in cut.behind), None)) is not None:
            cut_by.setdefault(cut, []).append(name)
    behind = [name for names in cut_by.values() for name in names]
    declared = [name for name in missing if name not in behind and matches(name, evidence.unused)]
    if anew := [name for name in first.replaced if name not in first.reached]:
        yield _built_anew(evidence, anew, [name for name in missing if name not in (*anew, *first.unread)])
        return
    if cut_by:
        cut = max(cut_by, key=lambda cut: len(cut_by[cut]))
        yield _cut(cut, behind, evidence, len(trainable))
    idle = [name for name in missing if name not in (*behind, *declared)]
    idle = [name for name in idle if name not in never_stepped(evidence)]
    alone = {p.name for p in trainable if not p.in_optimizer}  # of which nobody has asked for a gradient
    idle = [name for name in idle if not (name in first.reached and name in alone)]
    stopped = [name for name in idle if name in first.reached]
    if stopped and any(p.max_grad for p in trainable):
        yield Cause(
            "no-gradient",
            shorten(stopped),
            f"{len(stopped)} of {len(trainable)} trainable tensors lie in the graph of the loss and no gradient "
            "arrives: a backward() on the way passes none on",
            "return a gradient for every input in the backward() of the custom autograd.Function",
            evidence={"tensors": len(stopped)},
            certain=True,
            weight=0.91,
        )
    idle = [name for name in idle if name not in stopped]
    if idle:
        unread = [name for name in idle if name in first.unread]
        seen = (
            "no call of the run reads them"
            if len(unread) == len(idle)
            else "what they make reaches no term of the loss"
            if not unread
            else f"no call of the run reads {len(unread)}, and what the others make reaches no term of the loss"
        )
        globs = exact_globs(idle, [p.name for p in evidence.record.parameters])
        yield Cause(
            "unused",
            shorten(idle),
            f"{len(idle)} of {len(trainable)} trainable tensors are not used: {seen}",
            f"use them, remove them, or declare them: unused={as_list(globs)}",
            evidence={"tensors": len(idle)},
            certain=True,
            weight=0.85 if not behind else 0.6,
        )


def _not_as_a_whole(missing: Sequence[str], evidence: Evidence) -> list[str]:
    """What gets no gradient, but for what a glob of ``unused`` names that covers nothing else: that is meant.

    A glob that covers something that is never read as well was written for that.
    """
    cut = set(missing) - {name for step in evidence.steps[:1] for name in step.unread}
    names = [p.name for p in evidence.record.parameters]
    of_globs = [{name for name in names if matches(name, (glob,))} for glob in evidence.unused]
    meant = {name for covered in of_globs if covered <= cut for name in covered}
    return [name for name in missing if name not in meant]


def _cut(cut: Cut, behind: Sequence[str], evidence: Evidence, trainable: int) -> Cause:
    """Parameters that take part, and what stands between them and the loss."""
    globs = as_list(exact_globs(behind, [p.name for p in evidence.record.parameters]))
    meant, leads = f"; where they are to stay as they are, declare frozen={globs}", False
    if cut.straight_through:
        how = f"only the straight-through estimator in {cut.where} reads them, and its gradient goes past them"
        change = (
            "leave .detach() there, and give the loss the vectors as they are before they are passed straight through"
        )
    elif cut.by == "checkpoint":
        how = f"they run inside of reentrant checkpointing ({cut.where}), and no input of it needs a gradient"
        change = "checkpoint(..., use_reentrant=False), or let the inputs need one: model.enable_input_require_grads()"
    elif cut.by == "torch.no_grad":
        how = f"torch.no_grad at {cut.where}"
        change = f"call them outside of torch.no_grad(){meant}"
    elif cut.by == "numpy":
        how = f"the numbers go through numpy in {cut.where}, which keeps no graph"
        change = f"compute that with torch, without detach() and numpy(){meant}"
    else:
        how, leads = f"{cut.by} cuts the graph in {cut.where}", True
        change = f"leave out {cut.by} in {cut.where}{meant}"
    wrongly = [name for name in behind if matches(name, evidence.unused)]
    told = f" ({len(wrongly)} of them declared unused)" if wrongly else ""
    lost = f"{len(behind)} of {trainable} tensors in the forward pass get no gradient{told}"
    return Cause(
        "no-gradient",
        shorten(behind),
        f"{how}: {lost}" if leads else f"{lost}: {how}",
        change,
        evidence={"tensors": len(behind)},
        certain=True,
        weight=0.92,
    )


def _built_anew(evidence: Evidence, anew: Sequence[str], lost: Sequence[str]) -> Cause:
    """A parameter that forward puts in place of the model's own: it is in no optimizer, and cut off what it is of."""
    line = line_of([event for _, event in evidence.events("new_parameter")])
    where = f"{shorten(anew)}, {line}" if line else shorten(anew)
    said = f"forward puts a new nn.Parameter in the place of {shorten(anew)}: it is in no optimizer"
    if lost:
        said += f", and what it is made of is cut from the graph; {', '.join(lost)} get no gradient"
    return Cause(
        "no-gradient" if lost else "optimizer-coverage",
        where,
        said,
        "pass the computed tensor on as it is, as an argument, or torch.func.functional_call; assign no nn.Parameter "
        "in forward"
        if lost
        else f"leave out the nn.Parameter{f' in {line}' if line else ''}: assign it in __init__, before the optimizer",
        evidence={"tensors": len(lost), "anew": len(anew)},
        certain=True,
        weight=0.98,
    )


def thrown_away(evidence: Evidence) -> Iterator[Cause]:
    """A call whose result would be another tensor, and that nobody assigns."""
    for op, fact in evidence.ops(ThrownAway):
        yield Cause(
            "unused",
            op.where,
            f"what {op.name}() gives differs by {number(fact.gap)} of its size from what it is given, and nothing "
            "takes it: the call is a statement of its own, and changes nothing in place",
            f"assign what it returns{f' in {op.line}' if op.line else ''}, or leave the call out",
            evidence={"gap": fact.gap},
            certain=True,
            weight=0.9,
        )
        return


FAMILY = Family(
    group="graph",
    order=40,
    rules=(detached, cut_from_sum, cut_off, thrown_away),
    docs="""
### no-gradient

Parameters take part in the forward pass and get no gradient: the graph is cut behind them.

```python
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(8, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.trunk(x).tanh().detach())  # fixed: return self.head(self.trunk(x).tanh())


result = run_overfit(Net, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls, since what comes behind the cut learns; with larger data it would stop early.
- **Evidence**: shown, certain: parameters of modules that ran, outside of the graph of the loss; the call that cuts it.
  Or an `argmax` in the model, behind whose probabilities no term that answers to a target has a gradient. Or a module
  along whose weights the outputs slope otherwise, by finite differences, than its gradient says: at the start and at
  the end, where no argmax, no straight-through estimator, no cut between the rounds of a refinement and no backward of
  one's own is in the model. Or a term that moves with the weights of a module, and whose gradient never gets there
  while that of others does: certain where the term has a limit of its own. Or an output whose
  values move the objective, and along which it has no gradient at all, in a run where a term of it is stuck.
- **Fix**: remove `detach()`, `.data`, `no_grad` or the detour through numpy; if it is meant, `frozen=["trunk.*"]`.

### loss-detached

The loss has no gradient: it is not connected to the model.

```python
def loss(model, batch):
    wrong = model(batch[0]).argmax(dim=1) != batch[1]
    return wrong.float().mean()  # fixed: return F.cross_entropy(model(batch[0]), batch[1])


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: `backward()` raises, or the loss is the same at every step.
- **Evidence**: shown, certain: the graph of the loss, and the calls that cut it. Of a sum some of whose terms are cut,
  in a run that fails: the objective goes along with what is cut, in proportion, and its gradient stays as it is.
- **Fix**: keep tensors in the loss: no `.item()`, `argmax`, `torch.tensor(loss)`; metrics are no losses.

### unused

Parameters are not used in the forward pass, or the result of a call is not.

```python
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.smooth, self.head = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        x = self.trunk(x).tanh()
        # fixed: x = self.smooth(x).tanh()
        return self.head(x)


result = run_overfit(Net, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: none; `DistributedDataParallel` complains about such parameters.
- **Evidence**: shown, certain: modules that did not run, and parameters without a gradient. Or a call that is a
  statement of its own, as `x.masked_fill(mask, 0)`: what it returns differs from what it is given, and nobody takes it.
- **Fix**: assign the result; call the layer, remove it, or declare it: `unused=["smooth.*"]`.
""",
)
