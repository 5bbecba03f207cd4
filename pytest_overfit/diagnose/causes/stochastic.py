"""Chance in the forward pass, and what training and evaluation mode do otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence, Unlike
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import Carried
from pytest_overfit.diagnose.operation import Drawn, Op, with_fact
from pytest_overfit.diagnose.queries import proof
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

MOVED = 1e-2  # of the outputs' size: less is no effect of noise or of a mode
DROPPED = 1e-3  # the same of dropout, and of statistics that stand still, which nobody means to be there
TURNED = 1e-4  # the same of an order that is drawn in evaluation mode: more than rounding
IN_EVALUATION = "random_in_evaluation"
DROPS = "pass training=self.training, or an nn.Dropout that __init__ builds"


def noisy(evidence: Evidence) -> Iterator[Cause]:
    """The forward pass is too random."""
    still = next((each for each in evidence.probed.unlike if each.chance), None)
    if still is not None and (goes_on := _goes_on(evidence, still)) is not None:
        yield goes_on
        return
    proven = evidence.proof("same random numbers")
    spread = evidence.probed.random_training
    if evidence.learned or spread <= 0.01 or evidence.stochastic:
        return
    where = next((op for op in evidence.probed.ops if op.name == "random"), None)
    dropped = where is not None and isinstance(where.fact, Drawn) and where.fact.random_by == "dropout"
    floor = "dropout is the floor of the loss: " if dropped and proven else ""
    yield Cause(
        "stochastic",
        where.where if where else "the forward pass",
        f"{floor}two forward passes of different seeds differ by {number(spread)} of the output's size"
        + (", in evaluation mode too" if evidence.probed.random_evaluation > 0.01 else "")
        + proof(proven, "with the same random numbers at every step"),
        "build the model of this test without dropout" if dropped else _without(where),
        "proven" if proven else "shown" if spread > 0.3 else "observed",
        {"spread": spread},
        weight=0.85 if spread > 0.2 else 0.5,
    )


def carries(evidence: Evidence) -> Iterator[Cause]:
    """The same batch gives something else in the next call, by no chance: the model keeps what is no buffer of it."""
    carried = evidence.fact(Carried)
    if carried is None or carried.moved <= MOVED:
        return
    yield Cause(
        "stochastic",
        f"module {carried.module} ({carried.kind})",
        f"the same batch, evaluated again under the same seed after another one, gives outputs that differ by "
        f"{number(carried.moved)} of their size: {carried.module} keeps something that is no buffer from call to call",
        f"begin every call of {carried.module} anew: reset what it keeps where a batch begins, or keep nothing",
        evidence={"moved": carried.moved},
        certain=not evidence.stochastic,
        weight=0.93,
    )


def _without(op: Op | None) -> str:
    """How to take the chance of an operation away."""
    if op is None or not isinstance(op.fact, Drawn):
        return "draw what is random once, before the first step"
    if math.isnan(op.fact.p):
        return f"draw {op.fact.random_by}() in {op.where} once, before the first step"
    return f"set p=0 for the {op.fact.random_by} in {op.where} in this test; it is {number(op.fact.p)}"


def _goes_on(evidence: Evidence, still: Unlike) -> Cause | None:
    """Chance in evaluation mode that no model means: layers with new weights, dropout, noise that nothing learns.

    ``stochastic`` declares that training is random. Dropout of torch's in evaluation mode is not declared by it.
    """
    proven = evidence.proof("same random numbers")
    drawn = [pair for pair in with_fact(evidence.probed.ops, Drawn) if pair[0].name in ("built", IN_EVALUATION)]
    declared = evidence.stochastic
    for op, fact in drawn:
        drops = fact.gates and not (declared and math.isnan(fact.p))
        noise = fact.added and not declared and still.moved > MOVED
        if still.moved < DROPPED or not (drops or noise or op.name == "built"):
            continue
        seen, advice = f"{fact.random_by}{'' if math.isnan(fact.p) else f' (p={number(fact.p)})'} goes on", DROPS
        if op.name == "built":
            seen = f"{fact.random_by} is built anew in every forward pass, with other weights each time,"
            advice = "build it once, in __init__"
        elif fact.added:
            seen, advice = f"noise is added in {still.module}", "add it only if self.training"
        return Cause(
            "stochastic",
            op.line or "forward" if op.name == "built" else op.where,
            f"{seen} in evaluation mode: two passes differ by {number(still.moved)} of the output's size"
            + proof(proven, "with the same random numbers at every step"),
            advice,
            "proven" if proven else "shown",
            {"spread": still.moved},
            certain=True,
            weight=0.97 if op.name == "built" else 0.95,
        )
    if still.turns and not declared and still.moved > TURNED:
        return Cause(
            "stochastic",
            f"module {still.module} ({still.kind})",
            f"the numbers that {still.module} makes come in another order in every call, in evaluation mode too: two "
            f"passes differ by {number(still.moved)} of the output's size"
            + proof(proven, "with the same random numbers at every step"),
            f"look for randperm or a shuffle in {still.module}; draw the order once, or only if self.training",
            "proven" if proven else "shown",
            {"spread": still.moved},
            certain=True,
            weight=0.95,
        )
    return None


def modes_differ(evidence: Evidence) -> Iterator[Cause]:
    """What was learnt in training mode is not there in evaluation mode."""
    probed = evidence.probed
    curve = evidence.objective
    if probed.moded and _trained_off(evidence):
        yield Cause(
            "mode-gap",
            shorten(probed.moded),
            "the train step puts the model into evaluation mode and trains it there",
            "call model.train() before training",
            certain=True,
            weight=0.93,
        )
        return
    unlike = next(
        (each for each in probed.unlike if not each.chance and each.moved > (DROPPED if each.kept else MOVED)),
        None,
    )
    fall = curve[0] - probed.training if curve and probed.training is not None else 0.0
    if unlike is not None and probed.training is not None and probed.evaluation is not None:
        kept = " and ".join(unlike.kept)
        why = f"by no chance, and {kept} stand still" if kept else "by no chance and no statistics"
        yield Cause(
            "mode-gap",
            f"module {unlike.module} ({unlike.kind})",
            f"with the same inputs {unlike.module} makes in training mode what differs by {number(unlike.gap)} of its "
            f"size from evaluation mode, {why}: the outputs move by {number(unlike.moved)} with it, the objective "
            f"from {number(probed.training)} to {number(probed.evaluation)}",
            (f"let {kept} follow, with a momentum above 0; or " if kept else "")
            + f"look at what {unlike.module} does if self.training",
            evidence={"gap": unlike.gap, "moved": unlike.moved, "evaluation": probed.evaluation},
            certain=not unlike.meant,
            weight=0.97 if unlike.turns else 0.92,  # rows and places of an evaluation are in that order too
        )
        return
    if (
        not evidence.learned
        or probed.evaluation is None
        or probed.evaluation_settled is None
        or probed.training is None
        or not curve
        or next(carries(evidence), None) is not None
    ):
        return
    if fall <= 0 or probed.evaluation_settled < probed.training + 0.3 * fall:
        yield from _of_other_data(evidence, fall)
        yield from _set_back(evidence, fall)
        yield from _lagging(evidence, fall)
        return
    yield Cause(
        "mode-gap",
        shorten(probed.moded) or "what forward does with self.training",
        f"the objective is {number(probed.training)} in training mode and {number(probed.evaluation_settled)} in "
        f"evaluation mode (it started at {number(curve[0])}), running statistics settled",
        "look at momentum of batch norm, at self.training in forward, at dropout by hand",
        evidence={"training": probed.training, "evaluation": probed.evaluation_settled},
        # Chance that is declared may teach what is not there without it, but not undo all there was.
        certain=not evidence.stochastic or probed.evaluation_settled > curve[0],
        weight=0.9,
    )


def _trained_off(evidence: Evidence) -> bool:
    """Whether the last steps that were watched differentiated the model in evaluation mode."""
    seen = [on for step in evidence.steps for on in step.in_training]
    return evidence.own_step and bool(seen) and not seen[-1]


def _of_other_data(evidence: Evidence, fall: float) -> Iterator[Cause]:
    """Running statistics of what a step only looks at, and by which what it learns is lost."""
    probed = evidence.probed
    stepped, graphs = probed.evaluation_by_steps
    if probed.training is None or stepped is None or graphs is None or graphs >= probed.training + 0.1 * fall:
        return
    if stepped < probed.training + 0.3 * fall:
        return
    yield Cause(
        "mode-gap",
        shorten(probed.moded) or "running statistics",
        f"the objective is {number(probed.training)} in training mode, and in evaluation mode {number(stepped)} by the "
        f"running statistics that whole steps make, {number(graphs)} by those of their passes that have a graph: what "
        "the step looks at under no_grad, in training mode, moves them",
        "call model.eval() before what is only looked at, and model.train() after it",
        evidence={"steps": stepped, "graphs": graphs},
        certain=True,
        weight=0.93,
    )


def _set_back(evidence: Evidence, fall: float) -> Iterator[Cause]:
    """Running statistics that come no nearer to those of the batch, however many steps there are."""
    probed = evidence.probed
    if probed.distance_left is None or probed.evaluation is None or probed.training is None:
        return
    left, expected = probed.distance_left
    if left < (1 + expected) / 2 or probed.evaluation < probed.training + 0.3 * fall:
        return
    yield Cause(
        "mode-gap",
        shorten(probed.moded) or "running statistics",
        f"the objective is {number(probed.training)} in training mode and {number(probed.evaluation)} in evaluation "
        f"mode: in steps in which the weights stand still running statistics keep {number(left)} of their distance to "
        f"those of the batch, and their momentum leaves {number(expected)} of it",
        "look for what sets them back in the step: reset_running_stats(), buffers that are loaded or copied",
        evidence={"left": left, "expected": expected},
        certain=True,
        weight=0.93,
    )


def _lagging(evidence: Evidence, fall: float) -> Iterator[Cause]:
    """Running statistics that more steps would bring up to date, in a run that was to agree with its evaluation."""
    probed = evidence.probed
    missed = any(finding.name == "train_val" and not finding.passed for finding in evidence.findings)
    if not missed or not probed.moded or probed.evaluation is None or probed.training is None:
        return
    if fall <= 0 or probed.evaluation < probed.training + 0.1 * fall:
        return
    yield Cause(
        "mode-gap",
        shorten(probed.moded),
        f"on the same sample the objective is {number(probed.training)} in training mode and "
        f"{number(probed.evaluation)} in evaluation mode: running statistics lag behind the weights",
        "raise the momentum of batch norm, or use a norm without running statistics for small batches",
        "observed",
        {"training": probed.training, "evaluation": probed.evaluation},
        weight=0.8,
    )


FAMILY = Family(
    group="architecture",
    order=181,
    rules=(noisy, carries, modes_differ),
    docs="""
### stochastic

The forward pass is too random.

```python
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(8, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(F.dropout(self.trunk(x).tanh(), 0.6))  # fixed: return self.head(self.trunk(x).tanh())


result = run_overfit(Net, (features, values), F.mse_loss, optimizer=adam, max_steps=300)
```

- **Symptom**: the loss falls and then jumps about on a plateau.
- **Evidence**: proven, certain: two passes under different seeds differ, and the run passes with the same random
  numbers at every step. Certain is what goes on in evaluation mode and moves the outputs there: dropout as a function,
  in an attention or by hand, noise in a size that nothing learns, a layer that is built in `forward`.
  Or what a model keeps from call to call beside its buffers, as a hidden state or a cache: a batch gives other outputs
  once another one was evaluated, under the same seed.
- **Fix**: less dropout or noise in this test; `training=self.training`; if chance is meant, `stochastic=True`. That
  declares the training, and noise; torch's dropout in evaluation mode is declared with `allow=["stochastic"]`.

### mode-gap

Training mode and evaluation mode behave differently.

```python
class Standardised(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        if self.training:  # fixed: if True:
            x = (x - 5) / 3
        return self.net(x)


result = run_overfit(Standardised, (5 + 3 * features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: none while training; the model is useless afterwards.
- **Evidence**: shown, certain: the loss in evaluation mode, after running statistics have settled, against that in
  training mode. Or the first module that, given the same inputs in both modes, makes what differs, though it draws
  nothing and keeps no statistics; with it alone in training mode the outputs in evaluation mode move. Or the loss in
  evaluation mode by running statistics that whole steps make of the trained weights, against those of the passes that
  have a graph alone: a validation without `model.eval()` at the end of a step. Or running statistics that come no
  nearer to those of the batch with more steps, because something sets them back.
- **Fix**: look at `self.training` in `forward`, at the momentum of batch norm, at `model.eval()` in the step.
""",
)
