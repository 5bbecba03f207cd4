"""The run while it goes: its first steps under close watch, a few samples of its updates, and counters."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytest_overfit.diagnose.movement import Coasting
from pytest_overfit.diagnose.operation import Op
from pytest_overfit.diagnose.questions.alike import rows_alike
from pytest_overfit.diagnose.questions.applied_gradients import AppliedGradients
from pytest_overfit.diagnose.questions.coasting import measure_coasting
from pytest_overfit.diagnose.questions.idle_rows import FeatureGradients
from pytest_overfit.diagnose.questions.own_loads import own_loads_counted
from pytest_overfit.diagnose.questions.step_tracer import StepTracer
from pytest_overfit.diagnose.questions.tensors import is_real, size_of
from pytest_overfit.diagnose.questions.torch_functions import unheard
from pytest_overfit.diagnose.step_trace import Group, GroupSettings, ParameterUpdate, Step
from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import is_dense, is_wrapper
from pytest_overfit.run.update import Around, Detached, Row, Update, has_closure, optimizers_heard

CLOSE = 3  # steps of the user's own that are watched closely; of ours, one
SAMPLED = (1, 3, 7, 17, 41, 101, 251, 601)
LARGE = 2**18  # elements up to which a tensor is compared as a whole
STATES = 8  # steps between which the state of optimizers is compared


@dataclass
class _Written:
    """What was seen of a parameter so far."""

    ratios: list[float] = field(default_factory=list)
    overwritten: int = 0
    back: int = 0
    undone: int = 0
    last: Tensor | None = None  # what it was before the last step, once it was written to


@dataclass
class _Stepped:
    """What was seen of a parameter group so far."""

    optimizer: Optimizer
    group: Group
    rates: list[float] = field(default_factory=list)


class TracedUpdate(Around):
    """An update that is watched: the loop calls it in place of the one inside.

    Args:
        questions: keeps what breaks here, which must not break the step.
        thorough: measure every module, and look for the first number that is none; what only a failed run is worth.
    """

    def __init__(
        self, inner: Update, context: RunContext, samples: int | None, questions: Questions, *, thorough: bool = False
    ) -> None:
        super().__init__(inner)
        self.context, self.questions, self.thorough = context, questions, thorough
        self.tracer = StepTracer(context.task.model, context.task.batch, samples, questions)
        self.steps: list[Step] = []
        self.tally: Counter[str] = Counter()
        self.groups: dict[tuple[int, int], _Stepped] = {}
        self.named = [(name, p) for name, p in context.task.model.named_parameters() if is_real(p)]
        self.names = {id(p): name for name, p in self.named}
        self.written = {name: _Written() for name, _ in self.named}
        self.own = context.step is not None
        self.number, self.due = 0, True
        self.looked = -1  # the last step after which versions were taken
        self.before: dict[int, list[Tensor]] = {}
        self.sampled: list[tuple[list[Tensor], Any, Any]] = []
        self.held: dict[int, tuple[int, list[Tensor]]] = {}
        self.versions: dict[int, list[int]] = {}
        self.seen_states: dict[int, tuple[int, float]] = {}
        self.applied, self.features = AppliedGradients(), FeatureGradients(context.task.model)
        self.own_loads = Counter[str]()
        self.stepping: set[int] = set()  # a step that calls that of its superclass is one
        self.kept: list[Optimizer] = []  # so that the id of one that is gone is not given to another
        self.gradients: dict[str, float] = {}
        self.coasting: Coasting | None = None
        self.first_bad: Op | None = None
        self.huge: Op | None = None
        self.targets: list[Tensor] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self.inner.running(), self._heard(own=True), own_loads_counted(self.own_loads, self.questions):
            yield
        with self.questions.asking("what goes on without gradients"):
            self.coasting = measure_coasting(self.kept, self.names)

    def _heard(self, *, own: bool) -> contextlib.AbstractContextManager[None]:
        """Hears optimizers: a step of the user's own at any time, ours, whose optimizers are known, when it is due."""
        heard = own is self.own
        return optimizers_heard(self._before, self._after) if heard else contextlib.nullcontext()

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        self.number, self.due = step, self._is_due(step)
        if not self.due:
            if self.own:
                self.stepping.clear()
            else:
                self.tally["steps"] += len(self.inner.optimizers)
            return self.inner(step, look=look, observe=observe)
        self.stepping.clear()
        with self._heard(own=False):
            return self._looked(step, look, observe)

    def _looked(self, step: int, look: bool, observe: bool) -> Row:
        """A step that is looked at; of the first ones every call is."""
        if step >= (CLOSE if self.own else 1):
            return self.inner(step, look=look, observe=observe)
        try:
            with contextlib.ExitStack() as stack:
                with self.questions.asking("the first steps"):
                    watching = self.tracer.tracing(self.inner.optimizers, modules=self.thorough, checked=self.thorough)
                    stack.enter_context(watching)
                row = self.inner(step, look=look, observe=observe)
        except Detached:
            with self.questions.asking("the first steps"):
                self.steps.append(self.tracer.step(step + 1, math.nan, None))
            raise
        finally:
            self.context.task.heard.clear()
        with self.questions.asking("the first steps"):
            self._keep(step, row)
        return row

    def _keep(self, step: int, row: Row) -> None:
        """What was seen of a step that was watched closely."""
        self.first_bad = self.first_bad or self.tracer.bad
        self.huge = self.huge or self.tracer.huge
        self.targets = self.targets or self.tracer.targets
        source = getattr(self.inner, "source", None)
        value = row.values[0] if isinstance(row.values, list) else float(row.values[0])
        self.steps.append(self.tracer.step(step + 1, float(value), source))

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) in self.stepping:
            return
        self.stepping.add(id(optimizer))
        self.tally["steps"] += 1
        if not self.due and id(optimizer) in self.held:
            return
        with unheard(), self.questions.asking("what the optimizers do"):
            if (again := self.applied.again(optimizer, closure=has_closure(args, kwargs))) is not None:
                self.tally["again" if again else "renewed"] += 1
            if id(optimizer) not in self.held:
                self.kept.append(optimizer)
                self.tracer.graph.held |= {id(p) for group in optimizer.param_groups for p in group["params"]}
                self.tally["optimizers"] += bool(self._held_by(optimizer))  # those of copies come and go
            held = self._held_by(optimizer)
            if len(self.kept) > 1 and len(self.stepping) == 1:  # else one steps on behalf of the other
                self.applied.by_another(optimizer, held)
            self._groups(optimizer)
            self._overwritten(optimizer, held)
            if self.number < STATES:
                self._states(optimizer)
            if self.number == 0:
                for p in held:
                    name = self.names[id(p)]
                    if p.grad is not None and name not in self.gradients:
                        self.gradients[name] = size_of(p.grad)
            if self.number == 0 or self.number in SAMPLED:
                self.features.seen(held)
            if self.number in SAMPLED:
                self.before[id(optimizer)] = [_part(p).clone() for p in held]

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.stepping.discard(id(optimizer))
        if not self.due:
            return
        with unheard(), self.questions.asking("what the optimizers do"):
            held = self._held_by(optimizer)
            self.versions[id(optimizer)], self.looked = [p._version for p in held], self.number
            if self.number < STATES:
                self.seen_states[id(optimizer)] = _state(optimizer)
            if (old := self.before.pop(id(optimizer), None)) and len(old) == len(held):
                moved = torch._foreach_norm(torch._foreach_sub([_part(p) for p in held], old))
                self.sampled.append((held, moved, torch._foreach_norm(old)))  # read at the end: no sync here

    def _is_due(self, step: int) -> bool:
        """Whether this step is one of those that are looked at: the first ones, and pairs of later ones."""
        period = 50 if step < 100 else 100
        return step < (64 if self.own else STATES) or step in SAMPLED or step % period in (0, period - 1)

    def _held_by(self, optimizer: Optimizer) -> list[Tensor]:
        """The model's parameters that an optimizer holds, in its order."""
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        known = self.held.get(id(optimizer))
        if known is None or known[0] != count:
            held = [p for group in optimizer.param_groups for p in group["params"] if id(p) in self.names]
            self.held[id(optimizer)] = known = (count, held)
        return known[1]

    def _groups(self, optimizer: Optimizer) -> None:
        if self.number and self.number not in SAMPLED and self.number % 50:
            return
        for index, group in enumerate(optimizer.param_groups):
            key = id(optimizer), index
            if key not in self.groups:
                self.groups[key] = _Stepped(optimizer, self._group(optimizer, index))
            self.groups[key].rates.append(float(group.get("lr", 0.0)))

    def _overwritten(self, optimizer: Optimizer, held: list[Tensor]) -> None:
        """Whether parameters were written to since the last step of this optimizer."""
        kept = self.versions.pop(id(optimizer), None)
        if kept is None or len(kept) != len(held) or self.looked != self.number - 1:
            return
        self.tally["between"] += 1
        versions = [p._version for p in held]
        if versions == kept:
            return
        for p, version, old in zip(held, versions, kept, strict=True):
            if version != old:
                found = self.written[self.names[id(p)]]
                found.overwritten += 1
                found.undone += found.last is not None and torch.equal(found.last, _part(p))
                found.last = _part(p).clone()
                start = self.context.initial(p)
                if start is not None and start.shape == p.shape and torch.equal(start.to(p.device), p.detach()):
                    found.back += 1

    def _states(self, optimizer: Optimizer) -> None:
        if (kept := self.seen_states.get(id(optimizer))) is not None:
            tensors, step = _state(optimizer)
            self.tally["states"] += 1
            self.tally["states_lost"] += tensors < kept[0] or step < kept[1]

    def _group(self, optimizer: Optimizer, index: int) -> Group:
        """A group at its first step."""
        group = optimizer.param_groups[index]
        of_all = optimizer.defaults if len(optimizer.param_groups) == 1 else group
        own = "lr" in self.context.plan.schedules  # which sets the rate itself, whatever the optimizer was built with
        return Group(
            optimizer=0,
            kind=type(optimizer).__name__,
            index=index,
            tensors=len(group["params"]),
            names=tuple(self.names[id(p)] for p in group["params"] if id(p) in self.names),
            rates=(),
            initial_rate=0.0 if own else float(group.get("initial_lr", of_all.get("lr", 0.0))),
            settings=_settings(group),
            scheduled="initial_lr" in group or hasattr(optimizer.step, "_wrapped_by_lr_sched"),
            default_rate=float(optimizer.defaults.get("lr", 0.0)),
            steps_before=int(_state(optimizer)[1]),
        )

    def parameter_groups(self) -> tuple[Group, ...]:
        """The parameter groups of every optimizer that stepped, the first twenty."""
        order: dict[int, int] = {}
        found = []
        for seen in list(self.groups.values())[:20]:
            place = order.setdefault(id(seen.optimizer), len(order))
            groups, index = seen.optimizer.param_groups, seen.group.index
            last = groups[index].get("lr", 0.0) if index < len(groups) else 0.0
            found.append(replace(seen.group, optimizer=place, rates=(*seen.rates, float(last))))
        return tuple(found)

    def parameter_updates(self) -> tuple[ParameterUpdate, ...]:
        """The parameters, as they are now."""
        for held, moved, sizes in self.sampled:
            norms = torch.stack(
                [torch.stack([m.float(), n.float()]) for m, n in zip(moved, sizes, strict=True)]
            ).tolist()
            for p, (distance, size) in zip(held, norms, strict=True):
                ratio = distance / size if size > 0 else (math.inf if distance else 0.0)
                self.written[self.names[id(p)]].ratios.append(ratio)
        self.sampled.clear()
        starts = [p if (start := self.context.initial(p)) is None else start for _, p in self.named]
        before, after = _norms(starts), _norms([p for _, p in self.named])
        found = []
        for (name, p), start, old, new in zip(self.named, starts, before, after, strict=True):
            seen = self.written[name]
            found.append(
                ParameterUpdate(
                    name=name,
                    dtype=str(p.dtype).removeprefix("torch."),
                    shape=tuple(p.shape),
                    size=old / max(1, p.numel()) ** 0.5,
                    gradient=self.gradients.get(name),
                    ratios=tuple(seen.ratios),
                    sampled=self.tally["between"],
                    overwritten=seen.overwritten,
                    back=seen.back,
                    undone=seen.undone,
                    twice=self.applied.twice[id(p)],
                    rows_alike=rows_alike(start),
                    rows_alike_after=rows_alike(p),
                    still=start is not p and start.shape == p.shape and torch.equal(start.to(p.device), p.detach()),
                    grown=new / old if old > 0 else 1.0,
                )
            )
        return tuple(found)


def _settings(group: dict[str, Any]) -> GroupSettings:
    def setting(name: str, usual: float) -> float:
        value = group.get(name)
        return float(value) if isinstance(value, (int, float)) else usual

    usual, betas = GroupSettings(), group.get("betas")
    pair = betas if isinstance(betas, (tuple, list)) and len(betas) == 2 else (usual.beta1, usual.beta2)
    return GroupSettings(
        weight_decay=setting("weight_decay", usual.weight_decay),
        eps=setting("eps", usual.eps),
        momentum=setting("momentum", usual.momentum),
        dampening=setting("dampening", usual.dampening),
        maximize=bool(group.get("maximize", False)),
        beta1=float(pair[0]),
        beta2=float(pair[1]),
    )


def _state(optimizer: Optimizer) -> tuple[int, float]:
    """How many tensors an optimizer remembers, and its own count of steps."""
    tensors, steps = 0, 0.0
    for state in optimizer.state.values():
        tensors += sum(isinstance(value, Tensor) for value in state.values())
        step = state.get("step", 0.0)
        steps = max(steps, float(step) if isinstance(step, (int, float, Tensor)) else 0.0)
    return tensors, steps


def _part(parameter: Tensor) -> Tensor:
    """A large tensor, strided so that every row of a table has its part: no second copy of a model is needed."""
    plain, every = parameter.detach(), parameter.numel() // LARGE
    if every < 2 or is_wrapper(plain) or not is_dense(plain):
        return plain
    strided = next((d for d in reversed(range(plain.dim())) if plain.shape[d] >= every), 0)
    return plain.movedim(strided, 0)[::every]


def _norms(tensors: list[Tensor]) -> list[float]:
    """The norm of every tensor, read at once."""
    if not tensors:
        return []
    return [float(norm) for norm in torch.stack([t.detach().norm().float().cpu() for t in tensors]).tolist()]
