"""The terms of a loss: those that nothing follows, and those that stay where they are."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence, Term
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Summand, with_fact
from pytest_overfit.diagnose.queries import term_weights
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.forecast import forecast
from pytest_overfit.run.record import CUT_SHORT

STUCK = 0.5  # of a term's start: what it still has when others are through
NOTHING = 1e-4  # of a term's own gradient: what the objective follows of it


def constant_terms(evidence: Evidence) -> Iterator[Cause]:
    """A term of the objective that nothing the model does can change."""
    if evidence.learned or evidence.record.stop in ("detached", "non_finite"):
        return
    limit = evidence.limit_of_objective() or 0.0
    for term in evidence.probed.terms:
        curve = evidence.record.curves.get(term.name, ())
        if (
            term.depends
            or term.frozen
            or len(curve) < 10
            or max(curve) - min(curve) > 1e-6 * abs(curve[0])
            or curve[0] <= limit
        ):
            continue
        weight = term_weights(evidence).get(term.name, 0.0)
        if weight * curve[0] > limit:
            yield Cause(
                "loss-ignores-output",
                f"term {term.name}",
                f"{term.name} is {number(curve[0])} in all {len(curve)} steps and has no gradient: it makes up "
                f"{number(weight * curve[0])} of the objective",
                f"compute {term.name} from what the model returns",
                evidence={"value": curve[0]},
                certain=True,
                weight=0.6 if any(not p.trainable for p in evidence.record.parameters) else 0.94,
            )
            return


def missing_terms(evidence: Evidence) -> Iterator[Cause]:
    """A term is reported and not minimised."""
    for term in sorted(evidence.probed.terms, key=lambda term: not _limited(evidence, term)):
        if term.weight == 0 and term.depends and evidence.passed and term.name in evidence.record.curves:
            yield Cause(
                "term-weight",
                f"term {term.name}",
                f"{term.name} is multiplied by exactly 0 in the objective; it is at "
                f"{number(evidence.record.curves[term.name][-1])}",
                f"give {term.name} a weight, or leave it out",
                evidence={"weight": 0.0},
                certain=True,
                weight=0.9,
            )
            return
        if not term.depends or term.weights_only or not _has_target(evidence, term):
            continue
        values = evidence.record.curves.get(term.name, ())
        stuck = len(values) > 1 and values[0] > 0 and values[-1] > STUCK * values[0]
        if not term.in_objective and term.share == 0 and stuck:
            yield Cause(
                "term-missing",
                f"term {term.name}",
                f"{term.name} is reported and does not enter the objective: no gradient of "
                f"{', '.join(term.outputs) or 'its output'} comes from it; it went from {number(values[0])} to "
                f"{number(values[-1])}",
                f"add {term.name} to the objective",
                evidence={"first": values[0], "last": values[-1]},
                certain=True,
                weight=0.95,
            )
        elif term.in_objective and term.share is not None and term.share < NOTHING and stuck:
            yield Cause(
                "term-weight",
                f"term {term.name}",
                f"{term.name} weighs {number(term.share)} in the objective: it went from {number(values[0])} to "
                f"{number(values[-1])} while the objective went from {number(evidence.objective[0])} to "
                f"{number(evidence.objective[-1])}",
                f"weigh {term.name} so that its gradient is of the size of the others",
                evidence={"weight": term.share},
                certain=True,
                weight=0.95,
            )


def unfollowed(evidence: Evidence) -> Iterator[Cause]:
    """A summand of a step's loss whose gradient is thrown away as a whole."""
    for lost in evidence.probed.unfollowed:
        yield Cause(
            "term-missing",
            f"term {lost.term}",
            f"{lost.term} is a part of what is differentiated before {shorten(lost.stepped)} are stepped, and reaches "
            f"none of them: its gradient goes to {shorten(lost.reaches)}, and is zeroed before these are stepped",
            f"look for a .detach() or no_grad() between {shorten(lost.stepped)} and {lost.term}",
            evidence={"reaches": len(lost.reaches), "stepped": len(lost.stepped)},
            certain=True,
            weight=0.95,
        )
        return


def without_gradient(evidence: Evidence) -> Iterator[Cause]:
    """A summand of the loss that is computed anew in every step, and has no gradient in any."""
    for op, fact in with_fact(evidence.probed.ops, Summand):
        by, line = fact.by, op.line
        if by != "grad()" and (len(evidence.groups) != 1 or not all(p.trainable for p in evidence.record.parameters)):
            continue  # of several that learn in turn, or of what is frozen, a term may stand still
        yield Cause(
            "term-missing",
            line or LOSS,
            f"what {by} gives is added to the loss in {line or 'a step'}, and has no gradient: it moves nothing",
            "pass create_graph=True to torch.autograd.grad"
            if by == "grad()"
            else f"give {by} the output of the model that is trained, in the graph; else leave the term out",
            evidence={"first": fact.first, "last": fact.last},
            # What the weights move and what does not move them, or a comparison of two that are the same.
            certain=fact.last != fact.first or fact.first == 0,
            weight=0.94,
        )
        return


def gated(evidence: Evidence) -> Iterator[Cause]:
    """Weights whose only way to the targets leads through an argmax: a regulariser alone trains them."""
    chosen = next(
        (op for op in evidence.noted if op.name == "argmax" and op.final == "Softmax" and op.region != LOSS), None
    )
    seen = evidence.record.supervision
    if chosen is None or seen is None or not any(_has_target(evidence, term) for term in evidence.probed.terms):
        return
    for term in evidence.probed.terms:
        if term.alone and term.in_objective and not term.weights_only and not _has_target(evidence, term):
            yield Cause(
                "no-gradient",
                chosen.where,
                f"{shorten(term.alone)} get a gradient from {term.name} alone, which answers to no target: argmax() "
                "takes the choice out of the graph",
                "weigh what is chosen by its probability, or pass the gradient straight through",
                evidence={"tensors": len(term.alone)},
                certain=True,
                weight=0.92,
            )
            return


def _limited(evidence: Evidence, term: Term) -> bool:
    return any(evidence.record.terms.get(name) == term.name for name in evidence.limits)


def _has_target(evidence: Evidence, term: Term) -> bool:
    """Whether a term answers to something of the batch that is no input."""
    seen = evidence.record.supervision
    if seen is None or not seen.answers:
        return True
    return any(answers.get(term.name) for key, answers in seen.answers.items() if key not in seen.inputs)


def stuck(evidence: Evidence) -> Iterator[Cause]:
    """One term has stopped where it is, while another one of its kind has fallen: neither ever goes below zero."""
    if evidence.learned or evidence.record.stop in CUT_SHORT:
        return
    ratios = {}
    for name, curve in evidence.record.curves.items():
        reported = next((t for t in evidence.probed.terms if t.name == name), None)
        if (
            name != "objective"
            and len(curve) > 5
            and curve[0] > 0
            and min(curve) >= 0  # written so that NaN is none
            and (reported is None or reported.in_objective or not reported.depends)
        ):
            ratios[name] = curve[-1] / curve[0]
    if len(ratios) < 2:
        return
    worst, best = max(ratios, key=lambda n: ratios[n]), min(ratios, key=lambda n: ratios[n])
    curve = evidence.record.curves[worst]
    if any(term.name == worst and term.frozen for term in evidence.probed.terms) or forecast(curve, 0.0) is not None:
        return  # told as frozen, or it falls
    if 0.15 < ratios[worst] <= 1.5 and ratios[best] < 0.1 * ratios[worst]:
        yield Cause(
            "term-stuck",
            f"term {worst}",
            f"{worst} went from {number(curve[0])} to {number(curve[-1])} and has stopped, while {best} fell to "
            f"{ratios[best]:.1%} of its start",
            f"look at what {worst} compares, at the output it reads, and at its weight",
            "observed",
            {"ratio": ratios[worst], "other": ratios[best]},
            weight=0.72,
        )


FAMILY = Family(
    group="loss",
    order=131,
    rules=(
        constant_terms,
        missing_terms,
        unfollowed,
        without_gradient,
        gated,
        stuck,
    ),
    docs="""
### term-missing

A term of the loss, or an output, or a sample, has no influence on the objective.

```python
def loss(model, batch):
    output = model(batch[0])
    first = (output[:, 0] - batch[1][:, 0]).square().mean()
    rest = (output[:, 1:] - batch[1][:, 1:]).square().mean()
    total = first  # fixed: total = first + rest
    return {"objective": total, "first": first, "rest": rest}


result = run_overfit(net, (features, values), loss, optimizer=adam, max_steps=300)
```

- **Symptom**: the objective falls, and a term that is only reported does not.
- **Evidence**: shown, certain: the objective's gradient where the term has one; samples that can be exchanged at
  will; of a step with several optimizers, a summand whose gradient is zeroed before anything is stepped by it. Or a
  loss of numbers without a gradient, or a derivative without a graph, is added to the objective, and is another number
  once the model is trained, or exactly 0.
- **Fix**: add the term; `+=` in place of `=` over samples.

### term-stuck

One named term does not improve while others do.

```python
class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.kind = net()
        self.size = nn.Linear(8, 3)  # fixed: self.size = net()

    def forward(self, x):
        return self.kind(x), self.size(x)


def loss(model, batch):
    kind, size = model(batch[0])
    kind, size = F.cross_entropy(kind, batch[1]), (size - batch[2]).square().mean()
    return {"objective": kind + size, "kind": kind, "size": size}


result = run_overfit(TwoHeads, (features, classes, values), loss, optimizer=adam, max_steps=600)
```

- **Symptom**: the sum falls to a plateau that is the value of one term.
- **Evidence**: observed: the term's own curve, which has stopped, beside one that is never negative either. A hint
  where to look, which comes after every cause that explains it.
- **Fix**: look at what the term compares, at the output that it reads, and at that head.
""",
)
