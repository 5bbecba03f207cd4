"""Agrees: the slope of the reported objective, by finite differences, against the gradient that reaches the optimizer.

A step of the user's is made as it stands, but that its optimizers get their gradients taken away at the moment in which
they would apply them, and so move nothing. What was accumulated, unscaled and clipped is in them, and what the step
reports is the objective at these very parameters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.diagnose.agreement import Agreement, Slope
from pytest_overfit.diagnose.questions.custom_functions import custom_functions, function_slopes
from pytest_overfit.diagnose.questions.step_calls import calls_told
from pytest_overfit.diagnose.questions.tensors import graph_nodes, is_real, tensors_in
from pytest_overfit.diagnose.step_trace import CallKind
from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.task import scalar_terms
from pytest_overfit.run.update import optimizers_heard

MOST_CALLS = 16  # of a step between two updates: micro-batches that are counted over calls
FALL = 1e-2  # of the objective: what a difference is to change it by
SEEN = 1e-4  # of the objective: a change far beyond the rounding of float32
ROUNDED = 1e-5  # the same, just beyond it
CURVED = 0.3  # of a difference: so much may the objective be curved within it
DIRECTIONS, MOST_MODULES, ASIDE = 3, 8, 0.01  # random ones of all, of modules; how far, of a parameter's size
TRIES = 5  # widths beside the one that fits a right gradient
SAME_DIRECTION = 0.999  # cosine of the gradients of one sample's outputs


@dataclass
class _Made:
    """What the calls of a step between two updates did: per optimizer its parameters and their gradients."""

    reported: float = math.nan
    gradients: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    roots: list[float] = field(default_factory=list)
    heads: list[Any] = field(default_factory=list)  # of the graphs of the roots
    again: bool = False  # a root is within the graph of a later one
    functions: set[type] = field(default_factory=set)
    rows: dict[int, list[Tensor]] = field(default_factory=dict)  # gradients of the outputs, by their place in the nest
    given: list[int] = field(default_factory=list)  # rows that the calls of a model got whose outputs have a graph
    clipped: bool = False
    scaled: float = 1.0  # by a GradScaler


class _Step:
    """The step of the user's, without its updates."""

    def __init__(self, context: RunContext) -> None:
        assert context.step is not None
        self.context, self.step, self.state = context, context.step, Snapshot()
        self.state.add(context.task.model)

    def made(self, batch: Any = None) -> _Made:
        """One call, or as many as there are between two updates.

        Raises:
            Unanswerable: no optimizer is handed a gradient.
        """
        self.begin()
        found = self._call(_Made(), batch)
        if not found.gradients:
            self._until_updated(_Made(), batch)  # the calls before it may be those of half an accumulation
            found = self._until_updated(_Made(), batch)
        if not any(found.gradients):
            raise Unanswerable("no optimizer is handed a gradient")
        return found

    def begin(self) -> None:
        self.state.restore()
        for p in self.context.task.model.parameters():
            p.grad = None

    def reported(self) -> float:
        return self._call(_Made(), None).reported

    def _until_updated(self, found: _Made, batch: Any) -> _Made:
        for _ in range(MOST_CALLS):
            if self._call(found, batch).gradients:
                return found
        raise Unanswerable(f"no optimizer steps in {MOST_CALLS} calls of the step")

    def _call(self, found: _Made, batch: Any) -> _Made:
        seed_everything(self.context.seed)

        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if any(callable(argument) for argument in (*args, *kwargs.values())):
                raise Unanswerable("an optimizer that calls a closure asks for its gradients itself")
            scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer unscales by itself
            held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            given = [(p, numbers) for p in held if (numbers := numbers_of(p.grad)) is not None and is_dense(p.grad)]
            found.gradients.append([(p, g.clone() if scale is None else g / float(scale)) for p, g in given])
            found.names.append(type(optimizer).__name__)
            for p in held:
                p.grad = None

        def told(kind: CallKind, frame: FrameType) -> None:
            if kind == "clip":
                found.clipped = True
            if kind == "scale":
                found.scaled = float(frame.f_locals["self"].get_scale())
            if kind == "backward":
                for root in list(tensors_in(frame.f_locals.get("tensors")))[:1]:
                    found.roots.append(float(root.detach().sum()))
                    found.again |= bool(found.heads) and any(node in found.heads for node in graph_nodes(root))
                    found.heads.append(root.grad_fn)
                    found.functions |= custom_functions(root)

        with optimizers_heard(before), calls_told(told), self._rows(found), torch.enable_grad(), users_code():
            terms = scalar_terms(self.step(self.context.task.batch if batch is None else batch))
        found.reported = float(terms["objective"].detach())
        return found

    @contextlib.contextmanager
    def _rows(self, found: _Made) -> Iterator[None]:
        def hear(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            made = [tensor for tensor in tensors_in(output) if is_real(tensor)]
            if any(tensor.requires_grad for tensor in made):
                found.given += [len(tensor) for tensor in tensors_in([args, kwargs]) if tensor.dim()][:1]
            for place, tensor in enumerate(made):
                if tensor.requires_grad and tensor.dim():
                    keep = partial(_keep, found.rows.setdefault(place, []))
                    tensor.register_hook(keep)  # type: ignore[no-untyped-call]

        named = listened_to(getattr(self.context.task, "given", self.context.task.model))
        handles = [module.register_forward_hook(hear, with_kwargs=True) for _, module in named]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _keep(rows: list[Tensor], gradient: Tensor) -> None:
    rows.append(gradient.detach().clone())


def measure_agreement(
    context: RunContext, samples: int | None, kinds: set[type] | None = None, *, thorough: bool = False
) -> Agreement:
    """The slopes of what a step reports, at the parameters that there are now; without a step those of functions alone.

    Args:
        samples: the length of the axis of samples.
        kinds: the autograd functions in the graph of a run without a step, where they are known already.
        thorough: ask random directions too, which only a failed run is worth.

    Raises:
        Unanswerable: no optimizer steps, or a closure makes the gradients.
        Refused: the step does not take it.
    """
    if context.step is None:
        kinds = custom_functions(context.forward()[1]["objective"]) if kinds is None else kinds
        return Agreement(functions=function_slopes(kinds, context.forward) if kinds else ())
    step = _Step(context)
    made = step.made()
    slopes = [
        slope
        for name, pairs in zip(made.names, made.gradients, strict=True)
        if pairs and (slope := _slope(step, name, pairs, made.reported)) is not None
    ]
    functions = function_slopes(made.functions, step.reported) if made.functions else ()
    several = samples is not None and len(made.roots) > 1 and len(made.gradients) == 1
    regrouped = _regrouped(step, made, samples) if several and samples is not None else None
    step.begin()
    return Agreement(
        reported=made.reported,
        slopes=tuple(slopes),
        elsewhere=_elsewhere(step, made) if thorough else None,
        functions=functions,
        differentiated=math.fsum(made.roots),
        backwards=len(made.roots),
        again=made.again,
        clipped=made.clipped,
        regrouped=regrouped,
        scaled=made.scaled,
        micro_batches=max(
            (
                len(rows)
                for rows in (*(list(map(len, rows)) for rows in made.rows.values()), made.given)
                if len(rows) > 1 and sum(rows) == samples
            ),
            default=0,
        ),
    )


def _slope(step: _Step, name: str, pairs: list[tuple[Tensor, Tensor]], reported: float) -> Slope | None:
    """The slope along the gradient's own direction; None where the objective is no smooth number there."""
    norm, size = _norm(g for _, g in pairs), _norm(p.detach() for p, _ in pairs)
    if not 0 < norm < math.inf or not math.isfinite(reported) or not reported:
        return None
    last, fits = None, min(FALL * abs(reported) / norm, 1e-2 * size)
    for width in (fits or FALL, *(1e-3 * (size or 1.0) * 0.25**k for k in range(TRIES))):
        up, down = (_moved(step, pairs, distance / norm) for distance in (width, -width))
        found = Slope(name, norm, (up - down) / (2 * width))
        if abs(up - down) < SEEN * abs(reported) or abs(up + down - 2 * reported) > CURVED * abs(up - down):
            last = None
        elif found.agrees or (last is not None and Slope(name, last, found.measured).agrees):
            return found
        else:
            last = found.measured
    return None


def _elsewhere(step: _Step, made: _Made) -> Slope | None:
    """The first random direction along which gradient and objective differ: over all that may learn, then by module."""
    given = {id(p): g for pairs in made.gradients for p, g in pairs}
    groups: dict[str, list[Tensor]] = {"": []}
    for name, p in step.context.task.model.named_parameters():
        if p.requires_grad and is_real(p) and p.numel():
            groups[""].append(p)
            groups.setdefault(name.partition(".")[0], []).append(p)
    generator = torch.Generator().manual_seed(0)  # a step is seeded: its own would give one direction again and again
    for name, held in (*[("", groups[""])] * DIRECTIONS, *list(groups.items())[1 : MOST_MODULES + 1]):
        draws = ((p, torch.randn(p.shape, generator=generator).to(p)) for p in held)
        along = [(p, draw * (p.detach().square().mean().sqrt() or ASIDE)) for p, draw in draws]
        slope = sum(float((given[id(p)] * d).double().sum()) for p, d in along if id(p) in given)
        up, down = (_moved(step, along, distance) for distance in (ASIDE, -ASIDE))
        found = Slope(name, slope, (up - down) / (2 * ASIDE))
        if not found.agrees and abs(found.measured - slope) * ASIDE > ROUNDED * abs(made.reported):
            return found
    return None


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _moved(step: _Step, pairs: Sequence[tuple[Tensor, Tensor]], distance: float) -> float:
    """What is reported with parameters moved along a direction, and moved back."""
    step.begin()
    kept = [p.detach().clone() for p, _ in pairs]
    with torch.no_grad():
        for p, along in pairs:
            p.add_(along.to(p.dtype), alpha=distance)
    try:
        return step.reported()
    finally:
        with torch.no_grad():
            for (p, _), old in zip(pairs, kept, strict=True):
                p.copy_(old)


def _regrouped(step: _Step, made: _Made, samples: int) -> float | None:
    """How unequally the weights of samples change where every other one comes first: see ``Agreement``."""
    order = [*range(0, samples, 2), *range(1, samples, 2)]

    def turned(tensor: Tensor) -> Tensor:
        return tensor[order] if is_dense(tensor) and tensor.dim() and tensor.shape[0] == samples else tensor

    other = step.made(map_tensors(turned, step.context.task.batch))
    place = next((at for at, rows in made.rows.items() if sum(map(len, rows)) == samples), None)
    if place is None or sum(map(len, other.rows.get(place, ()))) != samples:
        return None
    before = torch.cat([part.reshape(len(part), -1) for part in made.rows[place]]).double()[order]
    after = torch.cat([part.reshape(len(part), -1) for part in other.rows[place]]).double()
    if before.shape != after.shape:
        return None
    sizes, others = before.norm(dim=1), after.norm(dim=1)
    live = sizes > 0
    if int(live.sum()) < 2 or bool((live != (others > 0)).any()):
        return None
    cosines = (before * after).sum(1)[live] / (sizes * others)[live]
    factors = (others / sizes)[live]
    return float(factors.max() / factors.min()) if float(cosines.min()) > SAME_DIRECTION else None
