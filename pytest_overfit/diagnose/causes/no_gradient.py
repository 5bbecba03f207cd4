"""Gradients that are there and are nothing, and parameters that may not learn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence, Term
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import Withheld
from pytest_overfit.diagnose.queries import is_declared, learning, proof
from pytest_overfit.diagnose.reached_modules import Influence
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.globs import is_teacher
from pytest_overfit.judge.gradients import shifts_nothing, waiting_of

ADAPTER = re.compile(r"(^|[._])(lora|adapters?|prefix|prompts?|ia3|vera|dora|oft|boft|loha|lokr|adalora)(_|\.|$)")
FLAT = ("round", "sign", "floor", "ceil", "trunc", "heaviside", "sgn", "bucketize")
STUCK = 0.5  # of the start of a term: what it still has when others have fallen
FURTHER = 2.0  # times as much of its start that a term has left beside one that has come down
NEARLY_NONE = 0.05  # of a slope that is measured: a gradient that has lost it
NEARLY_NOTHING = 1e-9  # of the largest gradient of the run


def nothing_arrives(evidence: Evidence) -> Iterator[Cause]:
    """Gradients that are there, and exactly or nearly zero throughout."""
    if not evidence.steps or evidence.record.stop in ("detached", "non_finite"):
        return
    waiting = waiting_of(evidence.record)
    seen = [p for p in learning(evidence) if p.trainable and p.name not in waiting]
    norms = {p.name: p.max_grad for p in seen if p.max_grad is not None and not shifts_nothing(p, seen)}
    largest = max(norms.values(), default=0.0)
    dead = [name for name, norm in norms.items() if norm <= NEARLY_NOTHING * largest]
    if not dead:
        return
    flat = next((op for op in evidence.steps[0].ops if op.name in FLAT), None)
    zeros = [m.name for m in evidence.updates if m.size == 0 and m.still and len(m.shape) > 1]
    proven = evidence.proof("fresh weights") if zeros else None
    why, change = "", "look for a factor of zero, a rounding or a saturated unit behind them"
    if flat is not None:
        why = f": {flat.name}() in {flat.where} has a gradient of zero"
        change = (
            f"leave {flat.name}() out in {flat.where}, or pass it straight through: x + (x.{flat.name}() - x).detach()"
        )
    elif zeros:
        why = f": {shorten(zeros)} start at zero{proof(proven, 'with fresh weights')}"
        change = "initialise them at random; at most one factor of a product may start at zero"
    yield Cause(
        "zero-gradient",
        shorten(dead),
        f"the gradient of {len(dead)} of {len(norms)} tensors never exceeds "
        f"{number(max(norms[name] or 0 for name in dead))} (the largest is {number(largest)}){why}",
        change,
        "proven" if proven else "shown",
        {"tensors": len(dead), "largest": largest},
        certain=all(norms[name] == 0 for name in dead),
        weight=0.95 if proven else 0.9 if flat is not None or zeros else 0.55,
    )


def not_followed(evidence: Evidence) -> Iterator[Cause]:
    """A part of the model whose gradient is not that of what it does to the outputs."""
    for slope in evidence.probed.blind:
        (by, line), part = evidence.probed.cut or ("", ""), slope.where or "the model"
        if not math.isfinite(slope.gradient) or not math.isfinite(slope.measured):
            continue
        steady = slope.ratio is not None and abs(slope.ratio) > NEARLY_NONE and not 0.8 < slope.ratio < 1.25
        turned = steady and (not by or (slope.ratio or 0.0) < 0)  # what is cut may leave as much of every direction
        where = f"module {slope.where}" if slope.where else part
        meant = 'where it is meant, allow=["{}"]'
        if turned:
            said = f"on its way back it is made {number(slope.ratio or 0.0)} times what it is"
            change = f"look at {f'{by} in {line}' if by else part}: leave out what multiplies the gradient"
        else:
            said = "a part of what they do is cut from the graph" + (f" by {by} in {line}" if by else "")
            change = f"leave {by} out in {line}" if by else f"look for .data, numpy or a cache in {part}"
        yield Cause(
            "wrong-backward" if turned else "no-gradient",
            f"{where}, {line}" if by else where,
            f"the outputs slope by {number(slope.measured)} along the weights of {part}, and by "
            f"{number(slope.gradient)} as their gradient says: {said}",
            f"{change}; {meant.format('wrong-backward' if turned else 'no-gradient')}",
            evidence={"gradient": slope.gradient, "measured": slope.measured},
            # By chance that is declared, as a router's, outputs jump: a difference is no slope there.
            certain=not slope.elsewhere
            and (not evidence.stochastic or abs(slope.gradient) < NEARLY_NONE * abs(slope.measured)),
            weight=0.6 if slope.elsewhere else 0.88,
        )
        return


def vanishes(evidence: Evidence) -> Iterator[Cause]:
    """Gradients shrink layer by layer, so that the first layers, and not one tensor alone, get next to nothing."""
    matrices = [(m.name, m.gradient) for m in evidence.updates if len(m.shape) > 1 and m.gradient is not None]
    if evidence.learned or len(matrices) < 4:
        return
    # One that is small on its own is read in a small place: on the way back all of the first ones are.
    first = max(matrices[: max(2, len(matrices) // 4)], key=lambda pair: pair[1] or 0.0)
    last = max(matrices[-2:], key=lambda pair: pair[1] or 0.0)
    if not (first[1] and last[1] and math.isfinite(first[1] + last[1])) or first[1] > 1e-5 * last[1] or last[1] > 1e3:
        return
    if any((gradient or 0.0) > 1e-4 * last[1] for _, gradient in matrices[: max(2, len(matrices) // 4)]):
        return
    yield Cause(
        "zero-gradient",
        first[0],
        f"the first gradient of {first[0]} is {number(first[1])}, that of {last[0]} {number(last[1])}: it vanishes "
        "on the way back",
        "use residual connections, normalisation, or activations that do not saturate (ReLU, GELU)",
        evidence={"first": first[1], "last": last[1]},
        weight=0.89,
    )


def cut_from_term(evidence: Evidence) -> Iterator[Cause]:
    """A term reads a module that learns, and has no gradient for it: that of other terms alone reaches it."""
    seen = evidence.fact(Influence)
    limited = {evidence.record.terms.get(name) for name in evidence.limits}
    reads = [each for each in seen.reaches if each.gradient is None and each.moved] if seen is not None else []
    for each in sorted(reads, key=lambda each: each.term not in limited):
        others = [one.term for one in seen.reaches if one.module == each.module and one.gradient] if seen else []
        if not others or is_declared(f"{each.module}.", evidence):
            continue
        yield Cause(
            "no-gradient",
            f"term {each.term}, module {each.module}",
            f"{each.term} moves by {each.moved:.1%} where the weights of {each.module} move by 1 %, and no gradient of "
            f"it gets there: {each.module} learns from {shorten(others)} alone",
            (f"leave out .detach() in {each.cut}" if each.cut else f"look between {each.module} and {each.term} for "
             ".detach(), no_grad() or numpy") + f'; where it is meant, allow=["no-gradient:*{each.term}*"]',
            evidence={"moved": each.moved or 0.0},
            certain=each.term in limited and not each.cut,  # a line that detaches is how a probe is written
            weight=0.93 if each.term in limited else 0.6,
        )  # fmt: skip
        return


def unfelt_outputs(evidence: Evidence) -> Iterator[Cause]:
    """An output that a stuck term answers to, and along which the objective has no gradient."""
    if evidence.learned or evidence.record.stop in ("detached", "non_finite"):
        return
    curves, limited = evidence.record.curves, [evidence.record.terms.get(name) for name in evidence.limits]
    for unfelt in evidence.probed.unfelt:
        terms = [name for name in unfelt.moves if name != "objective"]  # alone it may hold what is detached on purpose
        stuck = [name for name in terms if len(c := curves.get(name, ())) > 1 and c[-1] > STUCK * c[0] > 0]
        term = max(stuck, key=lambda name: name in limited, default=None)
        if term is None:
            continue
        weight = 0.91 if term in limited else 0.9
        seen = f"{term} went from {number(curves[term][0])} to {number(curves[term][-1])}"
        if "objective" in unfelt.moves:
            yield Cause(
                "no-gradient",
                f"output {unfelt.output}, {unfelt.cut}".rstrip(", "),
                f"the objective moves by {unfelt.moved:.1%} where {unfelt.output} moves by a tenth, and has no "
                f"gradient along it: the loss takes it out of the graph; {seen}",
                f"leave out .detach() in {unfelt.cut}"
                if unfelt.cut
                else f"look in the loss for .detach(), no_grad() or numpy on {unfelt.output}",
                evidence={"moved": unfelt.moved},
                weight=weight,
            )
        else:
            yield Cause(
                "term-missing",
                f"term {term}",
                f"{term} answers to {unfelt.output}, and the objective does not: neither its value nor its gradient; "
                f"{seen}",
                f"add {term}, or what it is made of, to the objective",
                evidence={"first": curves[term][0], "last": curves[term][-1]},
                weight=weight,
            )


def without_a_graph(evidence: Evidence) -> Iterator[Cause]:
    """An output that no gradient goes through, and without whose change the objective cannot come down."""
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    if found is None or limit is None or evidence.learned or not found.held or min(found.held.values()) < limit:
        return
    names, lowest, (by, line) = shorten(found.held), min(found.held.values()), evidence.probed.cut or ("", "")
    yield Cause(
        "no-gradient",
        f"output {names}, {line}".rstrip(", "),
        f"{names} has no graph, so that nothing learns by it: with it as it is the others get the objective to "
        f"{number(lowest)} at best, and with it to {number(found.reached)}",
        f"leave {by} out in {line}" if by else f"look for .detach(), no_grad() or numpy between the layers and {names}",
        evidence={"held": lowest, "free": found.reached},
        weight=0.94,
    )


def too_much_frozen(evidence: Evidence) -> Iterator[Cause]:
    """It learns once everything may."""
    frozen = [p for p in evidence.record.parameters if not p.trainable]
    attempt, proven = evidence.attempt("unfrozen"), evidence.proof("unfrozen")
    nothing = evidence.record.stop == "no_trainable_parameters"
    if not frozen or evidence.learned:
        return
    helped = nothing or (attempt is not None and evidence.helps(attempt))
    names = [p.name for p in frozen] if helped else _withheld(evidence)
    if not names:
        return
    if _is_adapted(evidence):
        trained = [p for p in evidence.record.parameters if p.trainable]
        if proven and all(p.max_grad for p in trained):
            yield Cause(
                "capacity",
                shorten(p.name for p in trained),
                f"the adapters, {sum(p.numel for p in trained)} numbers over a frozen base, do not reach it"
                + proof(proven, "with the base trained too"),
                "give them a higher rank, more layers, or a learning rate ten times that of the base",
                "proven",
                {"numbers": sum(p.numel for p in trained)},
                weight=0.8,
            )
        return
    home = "the model" if 2 * len(names) > len(evidence.record.parameters) else shorten(names)
    yield Cause(
        "frozen",
        shorten(names),
        _frozen(evidence, len(names))
        + ("" if helped else ", and the objective would have a gradient for them")
        + proof(proven, "with all of them trainable"),
        _thawed(evidence, home),
        "proven" if proven else "shown" if helped else "observed",
        {"frozen": len(names)},
        certain=nothing,
        weight=0.9 if helped else 0.5,
    )


def _withheld(evidence: Evidence) -> list[str]:
    """What no trial shows to hold it up, nor not to: time may have run out before one."""
    if evidence.refutes("unfrozen") or any(each.passed for each in evidence.attempts):
        return []
    withheld = evidence.fact(Withheld) or Withheld(())
    return [name for name in withheld.parameters if not is_declared(name, evidence) and not is_teacher(name)]


def frozen_terms(evidence: Evidence) -> Iterator[Cause]:
    """A term stays where it is, and frozen are parameters that no term reads which comes down further."""
    if evidence.learned or _is_adapted(evidence):
        return
    curves, terms = evidence.record.curves, evidence.probed.terms
    left = {t.name: curves[t.name][-1] / curves[t.name][0] for t in terms if _falls_from(curves, t)}
    for term in (t for t in terms if t.name in left):
        falls = [other for other in terms if left.get(other.name, math.inf) < left[term.name] / FURTHER]
        own = [name for name in term.frozen if not any(name in other.frozen for other in falls)]
        if own and falls and left[term.name] > STUCK:
            first, last = curves[term.name][0], curves[term.name][-1]
            yield Cause(
                "frozen",
                shorten(own),
                f"{_frozen(evidence, len(own))}; {term.name} reads them and went from {number(first)} to "
                f"{number(last)} in {len(curves[term.name])} steps, and no term that came down further reads them",
                _thawed(evidence, shorten(own, most=2)),
                evidence={"first": first, "last": last},
                weight=0.95,
            )
            return


def _frozen(evidence: Evidence, count: int) -> str:
    patterns = ", ".join(repr(each.pattern) for each in evidence.record.freeze_matches)
    told = f"{count} of {len(evidence.record.parameters)} parameter tensors are frozen"
    return f"{told} by {patterns}" if patterns else told


def _thawed(evidence: Evidence, home: str) -> str:
    patterns = ", ".join(repr(each.pattern) for each in evidence.record.freeze_matches)
    if patterns:
        return f"freeze less: narrow {patterns}"
    return f"call requires_grad_(True) on {home}, before the optimizer is built"


def _falls_from(curves: Mapping[str, tuple[float, ...]], term: Term) -> bool:
    curve = curves.get(term.name, ())
    return len(curve) > 1 and curve[0] > 0 and math.isfinite(curve[-1])


def _is_adapted(evidence: Evidence) -> bool:
    """Whether what learns are adapters, by their names: the base beneath them is frozen on purpose."""
    learning = [p.name for p in evidence.record.parameters if p.trainable]
    adapters = sum(ADAPTER.search(name) is not None for name in learning)
    return 2 * adapters > len(learning)


FAMILY = Family(
    group="graph",
    order=41,
    rules=(
        nothing_arrives,
        cut_from_term,
        unfelt_outputs,
        without_a_graph,
        not_followed,
        vanishes,
        frozen_terms,
        too_much_frozen,
    ),
    docs="""
### zero-gradient

Parameters get a gradient of exactly, or nearly, zero.

```python
class Coded(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 64), nn.Linear(64, 3)

    def forward(self, x):
        codes = self.encode(x)
        return self.decode(codes.round())  # fixed: return self.decode(codes + (codes.round() - codes).detach())


result = run_overfit(Coded, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: a part of the model does not move, without any error.
- **Evidence**: shown, certain: the largest gradient of a parameter over the run is exactly zero. Nearly zero is shown.
  Or that of whole parts of a layer that an attention is given, a head or a chunk of its output features, beside others
  that learn; or that of a row of a table that the batch looks up.
- **Fix**: a straight-through estimator for `round` and `sign`; no two factors of a product that start at zero;
  residuals or normalisation where gradients vanish layer by layer.

### frozen

Parameters are frozen that have to learn.

```python
model = net()
model.requires_grad_(False)
model[2].bias.requires_grad_(True)  # fixed: model[2].requires_grad_(True)
result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=600)
```

- **Symptom**: the loss falls a little and stays on a plateau.
- **Evidence**: proven: the run passes with all parameters trainable. All of them frozen is certain; observed is
  a gradient that would arrive, where no trial had the time.
- **Fix**: narrow the pattern that freezes, or set `requires_grad_(True)` for what has to learn.
""",
)
