"""Would it have passed all the same? What is asked of a run that has met its limits, before its record stands.

Does every limited term fall by the weights: with the initial ones back, and all else as the run has left it, it has to
be back at its start. Does the loss agree with the user's step beside it. One forward pass more for most runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors.asking import Questions, Unanswerable, users_code
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.call_task import heard_in, listened_to
from pytest_overfit.run.columns import columns_of, count_held
from pytest_overfit.run.constant import Constant, Writes
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import dressed, numbers_of
from pytest_overfit.run.influence import perturbed, targets_of
from pytest_overfit.run.isolation import restored_process, seed_everything
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.loss_call import Answer, exchanged, plain_outputs
from pytest_overfit.run.make_record import Parts
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.supervision_record import Agreement, Fall, Supervision
from pytest_overfit.run.task import Heard, scalar_terms
from pytest_overfit.run.update import into_training

BACK = 0.5  # of its fall: a term that keeps less of it with the initial weights is back at its start
AGAIN, ELSEWHERE = 4, 3  # further calls of a term that is not back: under the run's seed, under others
DEAF = 0.7  # of its fall: a term that keeps more of it for other targets may not answer to them any more
CLOSE, TIMES = 0.999, 9.0  # of its fall, of its end value: one that leaves both behind still answers
DECIDED = 0.5  # of a gradient at the start: a target that changes more of it is what the term is about
MOST_GROUPS = 4  # of parameters that may be the loss's own: each costs one forward pass
FEW_NUMBERS = 16  # of a parameter that may weigh terms, where no output tells which do


def verify(
    context: RunContext, curves: Curves, parts: Parts, constant: Constant, questions: Questions, *, sharded: bool
) -> None:
    """Adds to the parts of a run what is asked once it has passed; the state is left as it was.

    Args:
        context: the run, its model as it was trained.
        constant: what was seen of the batch.
        questions: those about the supervision.
        sharded: the weights are spread over ranks, and cannot be put back here.
    """
    parts.changed_at = constant.changed_at
    if parts.supervision is None:
        return
    limits, hold = context.plan.limits, context.plan.hold_steps
    held = limits and count_held(curves.steps, limits, hold) == hold
    if not held or curves.stop not in ("passed", "max_steps"):
        parts.supervision = replace(parts.supervision, not_asked=questions.not_asked)
        return
    found = parts.supervision
    falls = questions.ask(
        "whether the loss falls by the weights", lambda: _falls(context, curves, found, sharded), otherwise={}
    )
    agreement = None
    if context.step is not None and context.task.repeatable:
        agreement = questions.ask(
            "whether the loss agrees with the step", lambda: _agreement(context, curves, sharded), otherwise=None
        )
    if constant.written and constant.changed_at is None:
        question = "whether what writes into the batch changes it"
        parts.written = questions.ask(question, lambda: _written(context, constant, sharded), otherwise=None)
    parts.supervision = replace(parts.supervision, falls=falls, agreement=agreement, not_asked=questions.not_asked)


class _Trained:
    """The trained model, to be asked with other weights and batches; everything comes back in the end."""

    def __init__(self, context: RunContext, sharded: bool) -> None:
        if sharded:
            raise Unanswerable("the weights are spread over ranks")
        self.context = context
        self.end = Snapshot()
        self.end.add(context.task.model)
        self.end.add_reachable(*context.callables)
        for optimizer in context.optimizers if context.step is not None else ():  # a loss updates nothing
            self.end.add(optimizer)
        initial = [(p, context.initial(p)) for p in context.task.model.parameters()]
        known = {id(p): (p, value) for p, value in (*context.start.parameters(), *initial) if value is not None}
        if any(id(p) not in known for p, _ in initial):
            raise Unanswerable("a lazy module had no weights before the step that trained them")
        self.initial: list[tuple[Tensor, Tensor]] = [known[i] for i in known if not known[i][1].is_meta]

    def __enter__(self) -> _Trained:
        self.process = restored_process()
        self.process.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.context.task.heard.clear()
            self.end.restore()
        finally:
            self.process.__exit__(*error)

    def back(self, but: Sequence[Tensor] = ()) -> None:
        """The initial weights, but for some that are as they were trained."""
        kept = {id(parameter) for parameter in but}
        with torch.no_grad():
            for parameter, value in self.initial:
                trained = self.end.value(parameter) if id(parameter) in kept else None
                parameter.copy_(value if trained is None else trained)

    def ask(self, batch: Any = None, *, seed: int | None = None, loss: bool = False) -> Answer:
        """One call of the step, or of the loss where there is none or it is asked for."""
        context, task = self.context, self.context.task
        batch = task.batch if batch is None else batch
        task.heard.clear()
        seed_everything(context.seed if seed is None else seed)
        into_training(task.model)
        context.frozen.hold()
        with users_code(), task.listening(), torch.enable_grad():
            if context.step is not None and not loss:
                terms, outputs = scalar_terms(context.step(batch)), Heard(task.heard)
            else:
                predictions, terms = task.forward(batch)
                outputs = heard_in(predictions)
        heard = Heard((name, tensor) for name, tensor in plain_outputs(outputs) if tensor.numel() > 1)
        task.heard.clear()
        return heard, {name: float(value.detach()) for name, value in terms.items()}

    def is_decided(self, term: str, other: Any) -> bool:
        """Whether another batch turns the gradient of a term at the initial weights: it is about what differs."""
        if not self.context.task.repeatable:
            return False
        self.back()
        here, there = (self._gradient(term, batch) for batch in (self.context.task.batch, other))
        if here is None or there is None:
            return False
        return float((here - there).norm()) > DECIDED * float(here.norm())

    def feeds(self, other: Any) -> bool:
        """Whether another batch moves what the trained model makes."""
        made = []
        for batch in (self.context.task.batch, other):
            self.end.restore()
            made.append(self.ask(batch)[0])
        return not _same(*made)

    def _gradient(self, term: str, batch: Any) -> Tensor | None:
        parameters = [p for p in self.context.task.model.parameters() if p.requires_grad]
        seed_everything(self.context.seed)
        with users_code(), self.context.task.listening(), torch.enable_grad():
            value = self.context.task.forward(batch)[1].get(term)
            if value is None or not value.requires_grad:
                return None
            slopes = torch.autograd.grad(value, parameters, allow_unused=True)
        flat = [slope.detach().to_dense().reshape(-1).double() for slope in slopes if slope is not None]
        return torch.cat(flat) if flat else None

    def own_of_the_loss(self) -> Iterator[list[Tensor]]:
        """Trained parameters that may be the loss's own: those beside the model, and each that a model holds itself."""
        models = [module for _, module in listened_to(getattr(self.context.task, "given", self.context.task.model))]
        inside = {id(p) for module in models for p in module.parameters()}
        moved = [p for p, value in self.initial if p.requires_grad and not torch.equal(p.detach(), value.to(p.device))]
        if beside := [p for p in moved if id(p) not in inside]:
            yield beside
        held = {id(p) for m in models if not type(m).__module__.startswith("torch.") for p in m._parameters.values()}
        own = sorted((p for p in moved if id(p) in held), key=lambda p: p.numel())
        yield from ([p] for p in own[:MOST_GROUPS])


def _falls(context: RunContext, curves: Curves, supervision: Supervision, sharded: bool) -> dict[str, Fall]:
    columns = columns_of(curves.steps)
    named = [(name, columns[name]) for criterion in context.plan.limits if (name := resolve_term(criterion, columns))]
    falls = {name: Fall(curve[0], curve[-1], curve[0]) for name, curve in named if curve[0] != curve[-1]}
    with _Trained(context, sharded) as trained:
        groups = list(trained.own_of_the_loss())
        trained.back()
        outputs, terms = trained.ask()
        for _ in range(AGAIN if falls.keys() - terms.keys() else 0):  # a step may give a term now and then
            trained.back()
            terms = {**trained.ask()[1], **terms}
        falls = {name: replace(fall, returned=terms.get(name, fall.start)) for name, fall in falls.items()}
        if suspected := [name for name, fall in falls.items() if is_kept(fall, fall.returned)]:
            return {**falls, **_asked_again(trained, {name: falls[name] for name in suspected})}
        for group in groups:
            trained.back(but=group)
            moved, terms = trained.ask()
            if not _same(outputs, moved) or (not outputs and sum(p.numel() for p in group) > FEW_NUMBERS):
                continue
            suspected = [name for name, fall in falls.items() if is_kept(fall, terms.get(name, fall.start))]
            if suspected:
                found = {name: replace(falls[name], alone=terms[name]) for name in suspected}
                return {**falls, **_without_them(trained, context, found, group)}
        return {**falls, **_for_other_targets(trained, falls, supervision)}


def is_kept(fall: Fall, value: float, most: float = BACK) -> bool:
    """Whether a term at this value has kept so much of its fall that it is not back at its start."""
    return math.isfinite(value) and fall.kept(value) > most


def _is_deaf(fall: Fall, value: float) -> bool:
    """Whether a term stays where it is for another target.

    A loss of relations (of pairs, of triplets) is low for many targets, and yet far above its end for another one.
    """
    stays = is_kept(fall, value, CLOSE) or abs(value - fall.end) <= TIMES * abs(fall.end)
    return is_kept(fall, value, DEAF) and stays


def _asked_again(trained: _Trained, falls: Mapping[str, Fall]) -> dict[str, Fall]:
    """The values nearest to the start of several calls with the initial weights.

    A step may take turns between two losses, noise of its own may be large; and a mean over the steps so far, which
    comes back call by call, only lags behind.
    """
    seed = trained.context.seed
    values: dict[str, list[float]] = {name: [fall.returned] for name, fall in falls.items()}
    for other in (*[seed] * AGAIN, *range(seed + 1, seed + 1 + ELSEWHERE)):
        trained.back()
        _, terms = trained.ask(seed=other % 2**32)
        for name in values.keys() & terms.keys():
            values[name].append(terms[name])
    found = {}
    for name, fall in falls.items():
        kept = [fall.kept(value) for value in values[name] if math.isfinite(value)] or [0.0]
        lags = all(later < earlier for earlier, later in itertools.pairwise(kept[: 1 + AGAIN]))
        nearest = min(values[name], key=lambda value: fall.kept(value) if math.isfinite(value) else -math.inf)
        found[name] = replace(fall, returned=fall.start if lags and len(kept) > AGAIN else nearest)
    return found


def _without_them(
    trained: _Trained, context: RunContext, falls: Mapping[str, Fall], group: Sequence[Tensor]
) -> dict[str, Fall]:
    """What the trained model's terms are for other targets: of a loss that is switched off they stay low."""
    trained.end.restore()
    _, terms = trained.ask(_with_other_targets(context))
    names = {id(p): name for name, p in context.task.model.named_parameters()}
    parameters = tuple(names.get(id(p), "a parameter beside the model") for p in group)
    return {
        name: replace(fall, exchanged=terms.get(name, math.inf), parameters=parameters) for name, fall in falls.items()
    }


def _for_other_targets(trained: _Trained, falls: Mapping[str, Fall], supervision: Supervision) -> dict[str, Fall]:
    """The terms that the target decides at the start, and that stay where they are for another one at the end."""
    batch = trained.context.task.batch
    targets = set(supervision.targets) & set(supervision.answers)
    asked = {n: f for n, f in falls.items() if any(supervision.answers[target].get(n) for target in targets)}
    values: dict[str, list[float]] = {name: [] for name in asked}
    others = _with_others(batch, targets)
    for other in (others, _with_far_ones(batch, targets)):
        if not asked or other is None:
            continue
        trained.end.restore()
        _, terms = trained.ask(other)
        asked = {name: fall for name, fall in asked.items() if _is_deaf(fall, terms.get(name, math.inf))}
        for name in asked:
            values[name].append(terms[name])
    found = {n: f for n, f in asked.items() if values[n] and trained.is_decided(n, others)}
    if found and trained.feeds(others):  # a model that is told of another target follows it
        return {}
    return {n: replace(f, exchanged=max(values[n], key=lambda v: -f.kept(v))) for n, f in found.items()}


def _with_other_targets(context: RunContext) -> Any:
    """The batch with its targets exchanged, or with everything exchanged where none is a target for certain."""
    batch = context.task.batch
    other = _with_others(batch, set(targets_of(batch)) or None)
    return batch if other is None else other


def _with_others(batch: Any, keys: Collection[str] | None) -> Any:
    """The batch with these tensors exchanged, all for None; None where none of them has another value."""
    changed = {
        id(tensor): other
        for key, tensor in named_tensors(batch)
        if (keys is None or key in keys) and (other := perturbed(tensor)) is not None
    }
    return exchanged(batch, changed) if changed else None


def _with_far_ones(batch: Any, keys: Collection[str]) -> Any:
    """The batch with targets that are numbers far from what they are; None where none is."""
    far = {
        id(tensor): dressed((plain + 1.0 + plain.abs().max()).to(tensor.dtype), tensor)
        for key, tensor in named_tensors(batch)
        if key in keys and perturbed(tensor) is not None and tensor.is_floating_point()
        if (plain := numbers_of(tensor)) is not None
    }
    return exchanged(batch, far) if far else None


def _agreement(context: RunContext, curves: Curves, sharded: bool) -> Agreement:
    """The step's objective and the loss, at the end and with the initial weights."""
    name = "objective"
    reported = max(row[name] for row in curves.steps[-context.plan.hold_steps :])
    with _Trained(context, sharded) as trained:
        loss = trained.ask(loss=True)[1][name]
        trained.back()
        start_loss = trained.ask(loss=True)[1][name]
    return Agreement(reported, loss, curves.steps[0][name], start_loss)


def _written(context: RunContext, constant: Constant, sharded: bool) -> str | None:
    """The tensor of the batch that one more call gives other elements, though they are put back before its end."""
    with _Trained(context, sharded) as trained, Writes(constant.tensors) as writes:
        trained.ask()
    changed: str | None = writes.changed
    return changed


def _same(first: Heard, second: Heard) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and bool(torch.equal(a, b)) for (_, a), (_, b) in zip(first, second, strict=True)
    )
