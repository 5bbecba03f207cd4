"""The graph from the loss back to the parameters: where it is cut, what it never reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison, FreshTensor, Op, with_fact
from pytest_overfit.diagnose.queries import learning
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.run.record import ParameterRecord

CUTTING = ("detach", "data", "item", "numpy", "tolist", "argmax", "fresh", "detach_", "multinomial", "one_hot", "gt",
           "lt", "ge", "le", "eq", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "long", "int")  # fmt: skip


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
    cuts = [op for op in first.ops if op.name in CUTTING and _made_by(op) in ("", "tensor", "as_tensor", "from_numpy")]
    reads = any(compared.differentiable for _, compared in with_fact(first.ops, Comparison))
    if cuts:
        op = min(cuts, key=lambda op: op.region != LOSS)
        yield Cause(
            "loss-detached",
            op.where,
            f"the objective has no gradient: {_called(op)} cuts it from the model",
            f"keep the tensor itself in the loss, without {_called(op)}",
            evidence={"cuts": len(cuts)},
            certain=True,
            weight=0.97,
        )
    yield Cause(
        "loss-ignores-output" if not cuts and not reads else "loss-detached",
        LOSS,
        "the objective has no gradient, and nothing that the model returned was cut on the way: it is computed "
        "from other tensors"
        if not cuts
        else "the objective has no gradient",
        "compare the model's own output with the target",
        certain=True,
        weight=0.9,
    )


def _made_by(op: Op) -> str:
    """The function that made a tensor anew; empty for what is none."""
    return op.fact.made_by if isinstance(op.fact, FreshTensor) else ""


def _called(op: Op) -> str:
    name = _made_by(op) or op.name
    return {"data": ".data", "item": ".item()", "detach": ".detach()", "numpy": ".numpy()", "tolist": ".tolist()"}.get(
        name, f"{name}()"
    )


def cut_off(evidence: Evidence) -> Iterator[Cause]:
    """Parameters that take part and get no gradient, and parameters that take no part."""
    if evidence.record.stop in ("detached", "no_trainable_parameters") or not evidence.steps:
        return
    first = evidence.steps[0]
    missing = [p for p in learning(evidence) if p.trainable and p.max_grad is None]
    trainable = [p for p in learning(evidence) if p.trainable]
    if not missing or (len(missing) == len(trainable) and not first.reached):
        return
    called = {module.name for module in first.modules}
    reached = set(first.reached)
    taking = [p for p in missing if _home(p) in called and p.name not in reached]
    idle = [p for p in missing if p not in taking and p.name not in reached]
    if taking:
        off = [module.name for module in first.modules if not module.grad_enabled]
        cuts = [op for op in first.ops if op.name in CUTTING and op.name != "item"]
        without = [p for p in taking if _home(p) in off]
        op = min(cuts, key=lambda op: op.region == LOSS, default=None)
        if without and len(without) == len(taking):
            how, place = (
                f"{shorten(dict.fromkeys(map(_home, without)))} ran without gradients",
                "call them outside of torch.no_grad()",
            )
        elif op is not None:
            how, place = (
                f"{_called(op)} cuts the graph in {op.where}",
                f"remove {_called(op)}, or declare it: unused=[...]",
            )
        else:
            how, place = (
                "the graph is cut behind them",
                "look for detach(), .data, .numpy(), no_grad or a new tensor behind these modules",
            )
        yield Cause(
            "no-gradient",
            shorten(p.name for p in taking),
            f"{len(taking)} of {len(trainable)} trainable tensors take part in the forward pass and get no "
            f"gradient: {how}",
            place,
            evidence={"tensors": len(taking)},
            certain=True,
            weight=0.92,
        )
    if idle:
        yield Cause(
            "unused",
            shorten(p.name for p in idle),
            f"{len(idle)} of {len(trainable)} trainable tensors are not used in the forward pass",
            f"call them, remove them, or declare them: unused=[{_pattern(idle)!r}]",
            evidence={"tensors": len(idle)},
            certain=True,
            weight=0.85 if not taking else 0.6,
        )


def _home(parameter: ParameterRecord) -> str:
    return parameter.name.rpartition(".")[0]


def _pattern(parameters: Sequence[ParameterRecord]) -> str:
    return f"{parameters[0].name.split('.')[0]}*"


FAMILY = Family(
    group="graph",
    order=40,
    rules=(detached, cut_off),
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
  Or an `argmax` in the model, behind whose probabilities no term that answers to a target has a gradient.
- **Fix**: remove `detach()`, `.data`, `no_grad` or the detour through numpy; if it is meant, `unused=["trunk.*"]`.

### loss-detached

The loss has no gradient: it is not connected to the model.

```python
def loss(model, batch):
    wrong = model(batch[0]).argmax(dim=1) != batch[1]
    return wrong.float().mean()  # fixed: return F.cross_entropy(model(batch[0]), batch[1])


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: `backward()` raises, or the loss is the same at every step.
- **Evidence**: shown, certain: the graph of the loss, and the calls that cut it.
- **Fix**: keep tensors in the loss: no `.item()`, `argmax`, `torch.tensor(loss)`; metrics are no losses.

### unused

Parameters are not used in the forward pass.

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
- **Evidence**: shown, certain: modules that did not run, and parameters without a gradient.
- **Fix**: call the layer, remove it, or declare it: `unused=["smooth.*"]`.
""",
)
