"""Chance in the forward pass, and what training and evaluation mode do otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import Drawn, with_fact
from pytest_overfit.diagnose.queries import proof, rebuilt
from pytest_overfit.diagnose.step_trace import ModeChange
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number


def noisy(evidence: Evidence) -> Iterator[Cause]:
    """The forward pass is too random."""
    built = rebuilt(evidence)
    if built is not None:
        yield Cause(
            "stochastic",
            built[0].line or "forward",
            f"{built[1].layer} is built anew in every forward pass, with other weights each time",
            "build it once, in __init__",
            evidence={"spread": evidence.probed.random_training},
            certain=True,
            weight=0.97,
        )
        return
    proven = evidence.proof("same random numbers")
    spread, still = evidence.probed.random_training, evidence.probed.random_evaluation
    drawn = (pair for pair in with_fact(evidence.probed.ops, Drawn) if pair[0].name == "random_in_evaluation")
    drop = next((pair for pair in drawn if pair[1].gates), None)
    if drop is not None and still > 0 and not evidence.stochastic:
        yield Cause(
            "stochastic",
            drop[0].where,
            f"{drop[1].random_by}{'' if math.isnan(drop[1].p) else f' (p={number(drop[1].p)})'} goes on in evaluation "
            "mode: two passes "
            f"differ by {number(still)} of the output's size"
            + proof(proven, "with the same random numbers at every step"),
            "pass training=self.training, or an nn.Dropout that __init__ builds",
            "proven" if proven else "shown",
            {"spread": still},
            certain=True,
            weight=0.93,
        )
        return
    if evidence.learned or spread <= 0.01 or evidence.stochastic:
        return
    where = next((op for op in evidence.probed.ops if op.name == "random"), None)
    yield Cause(
        "stochastic",
        where.where if where else "the forward pass",
        f"two forward passes of different seeds differ by {number(spread)} of the output's size"
        + (", in evaluation mode too" if still > 0.01 else "")
        + proof(proven, "with the same random numbers at every step"),
        "lower the dropout or the noise for this test; where chance is meant, declare stochastic",
        "proven" if proven else "shown" if spread > 0.3 else "observed",
        {"spread": spread},
        weight=0.85 if spread > 0.2 else 0.5,
    )


def modes_differ(evidence: Evidence) -> Iterator[Cause]:
    """What was learnt in training mode is not there in evaluation mode."""
    probed = evidence.probed
    curve = evidence.objective
    off = [fact for _, _, fact in evidence.calls(ModeChange) if fact.whole and not fact.train]
    trained_off = (
        bool(evidence.steps)
        and evidence.own_step
        and bool(off)
        and bool(probed.mode_modules)
        and not any(m.training for m in evidence.steps[0].modules if m.inside)
    )
    if trained_off:
        yield Cause(
            "mode-gap",
            shorten(probed.mode_modules),
            "the train step puts the model into evaluation mode and trains it there",
            "call model.train() before training",
            certain=True,
            weight=0.93,
        )
        return
    if (
        not evidence.learned
        or probed.evaluation is None
        or probed.evaluation_settled is None
        or probed.training is None
        or not curve
    ):
        return
    fall = curve[0] - probed.training
    if fall <= 0 or probed.evaluation_settled < probed.training + 0.3 * fall:
        yield from _lagging(evidence, fall)
        return
    yield Cause(
        "mode-gap",
        shorten(probed.mode_modules) or "what forward does with self.training",
        f"the objective is {number(probed.training)} in training mode and {number(probed.evaluation_settled)} in "
        f"evaluation mode (it started at {number(curve[0])}), running statistics settled",
        "look at momentum of batch norm, at self.training in forward, at dropout by hand",
        evidence={"training": probed.training, "evaluation": probed.evaluation_settled},
        certain=True,
        weight=0.9,
    )


def _lagging(evidence: Evidence, fall: float) -> Iterator[Cause]:
    """Running statistics that more steps would bring up to date, in a run that was to agree with its evaluation."""
    probed = evidence.probed
    missed = any(finding.name == "train_val" and not finding.passed for finding in evidence.findings)
    if not missed or not probed.mode_modules or probed.evaluation is None or probed.training is None:
        return
    if fall <= 0 or probed.evaluation < probed.training + 0.1 * fall:
        return
    yield Cause(
        "mode-gap",
        shorten(probed.mode_modules),
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
    rules=(noisy, modes_differ),
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
  numbers at every step. Certain are dropout that goes on in evaluation mode, as a function, in an attention or by hand,
  and a layer that is built in `forward`.
- **Fix**: less dropout or noise in this test; `training=self.training`; if chance is meant, `stochastic=True`.

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
  training mode.
- **Fix**: look at `self.training` in `forward`, at the momentum of batch norm, at `model.eval()` in the step.
""",
)
