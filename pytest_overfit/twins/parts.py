"""The batch in parts: gradients accumulated over micro-batches, and each sample alone."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.run.batch import map_tensors, named_tensors
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.differentiated import backward_is, differentiated
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.run.update import Detached, OwnUpdate, Update, own_step
from pytest_overfit.twins.course import NOISE, UNCHANGED, Exchange, last_bits
from pytest_overfit.twins.side import Outputs, Side, gap_of, modules_heard, stilled

IGNORED = -100  # the label that torch's losses leave out
MOST_ALONE, MOST_PARTS = 8, 16  # samples that are asked alone, micro-batches of one step
FITS = 1e-5  # relative: the parts of a loss add up to it
FAR = 0.01  # of a loss: how far the gradients of the whole and of its parts would move it apart
APART = "the losses of parts do not add up to that of the batch, which compares its samples: pass accumulate"


def accumulation(side: Side) -> Iterator[Callable[[], TwinResult]]:
    """The batch in 2 and in N micro-batches, their gradients added up before the optimizer steps."""
    task, length = side.context.task, samples_in(side.context.task.batch)
    if side.context.step is None and task.precision.scaler(task.device).is_enabled():
        raise Unanswerable("the loss is scaled in float16: its parts are not")
    for count in dict.fromkeys((2, min(length, MOST_PARTS))):
        yield partial(_accumulated, side, parts_of(task.batch, count))


def _accumulated(side: Side, parts: list[Any]) -> TwinResult:
    name, own = f"accumulation ({len(parts)} parts)", side.subject.twins.accumulate
    still = any(_mixes(module) for module in side.context.task.model.modules())
    if own is not None:
        exchange = Exchange(update=lambda context, watch: _through(own, context, watch, parts), redraws=True, cut=True)
        return side.against(name, exchange, f"{len(parts)} micro-batches through accumulate", still=still)
    added = _Added(side.context.task.batch, parts, side.tolerance.gradient or 0.0)
    exchange = Exchange(applied=added.applied, redraws=True, cut=True, passes=2, loss=lambda: added.loss)
    result = side.against(name, exchange, "", still=still)
    how = "both in evaluation mode, " if still or side.reference.drawn else ""
    return replace(result, exchanged=f"{len(parts)} micro-batches, {how}{added.how}")


def _through(own: Any, context: RunContext, watch: GradientWatch, parts: Sequence[Any]) -> Update:
    """The user's own step over micro-batches."""
    step = own_step(own, context.task.given, context.handed)

    def within(batch: Any) -> Any:
        with context.task.precision.autocast(context.task.device):
            return step(list(parts))

    return OwnUpdate(context.task, within, list(context.optimizers), watch, context.start.add, frozen=context.frozen)


class _Added:
    """In place of every backward pass those of the parts, weighted as they make up the loss of the whole."""

    def __init__(self, batch: Any, parts: Sequence[Any], apart: float) -> None:
        self.batch, self.parts, self.apart, self.how = batch, parts, apart, ""
        self.weights: Sequence[float] = ()
        self.loss = 0.0

    @contextlib.contextmanager
    def applied(self, context: RunContext) -> Iterator[None]:
        model = context.task.model

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            whole = tensors if isinstance(tensors, Tensor) else tensors[0]
            more = [each for each in (*args, *kwargs.values()) if each is not None and each is not False]
            if more or whole.dim():
                raise Unanswerable("the step differentiates more than one loss, or keeps its graph")
            held = [p for p in model.parameters() if p.grad is not None]
            if any(bool(p.grad.any()) for p in held if p.grad is not None):
                raise Unanswerable("the step goes backward more than once before its optimizer steps")
            of_whole: list[Tensor | None] = []
            fitting = [(self.weights, self.how)]
            if not self.weights:
                roots = [self._loss(context, part) for part in self.parts]
                fitting = weights_of(self.parts, roots, float(whole.detach()))
                original(whole)
                of_whole = [p.grad for p in model.parameters()]
            totals: list[dict[int, Tensor]] = [{} for _ in fitting]
            losses = [0.0] * len(self.parts)
            for index, part in enumerate(self.parts):
                for p in model.parameters():
                    p.grad = None
                root = self._root(context, part)
                losses[index] = float(root.detach())
                original(root)
                for (weights, _), total in zip(fitting, totals, strict=True):
                    for p in model.parameters():
                        if p.grad is not None:
                            total[id(p)] = total.get(id(p), 0.0) + p.grad * weights[index]
            if not self.weights:
                apart = [_apart(model, of_whole, total) for total in totals]
                nearest = apart.index(min(apart))
                (self.weights, self.how), totals = fitting[nearest], totals[nearest : nearest + 1]
                self._add_up(context, of_whole, totals[0], float(whole.detach()))
            self.loss = math.fsum(w * loss for w, loss in zip(self.weights, losses, strict=True))
            for p in model.parameters():
                p.grad = totals[0].get(id(p))

        with backward_is(backward) as original:
            yield

    def _add_up(
        self, context: RunContext, of_whole: Sequence[Tensor | None], total: Mapping[int, Tensor], loss: float
    ) -> None:
        """Whether the losses of parts add up elsewhere too: at the start of a training they may by chance.

        Where gradients do not, the weights go along the difference: the losses part there if the gradients are right,
        and stay together if the backward pass of the batch is another than that of its samples.

        Raises:
            Unanswerable: they part.
        """
        ways, least = [], 1e-3 * math.hypot(*(float(g.norm()) for g in of_whole if g is not None))
        for p, whole in zip(context.task.model.parameters(), of_whole, strict=True):
            if whole is not None or id(p) in total:
                here, there = (torch.zeros_like(p) if g is None else g for g in (whole, total.get(id(p))))
                if float((here - there).norm()) > self.apart * max(float(here.norm()), least):
                    ways.append((p, p.detach().clone(), here - there))
        size = math.hypot(*(float(way.norm()) for _, _, way in ways))
        try:
            for far in (FAR, -FAR) if size else ():
                with torch.no_grad():
                    for p, value, way in ways:
                        p.copy_(value + way * (far * abs(loss) / size**2))
                now = self._loss(context, self.batch)
                parts = [w * self._loss(context, part) for w, part in zip(self.weights, self.parts, strict=True)]
                if not abs(math.fsum(parts) - now) <= 10 * FITS * max(abs(now), abs(loss)):
                    raise Unanswerable(APART)
        finally:
            with torch.no_grad():
                for p, value, _ in ways:
                    p.copy_(value)

    def _loss(self, context: RunContext, batch: Any) -> float:
        return float(self._root(context, batch).detach())

    def _root(self, context: RunContext, part: Any) -> Tensor:
        """The loss of a part, with its graph."""
        if context.step is not None:
            root = differentiated(context.step, part, scaled=True)
        else:
            with users_code():
                root = context.task.forward(part)[1]["objective"]
            context.task.heard.clear()
        if root is None:
            raise Detached
        return root


def _apart(model: nn.Module, whole: Sequence[Tensor | None], total: Mapping[int, Tensor]) -> float:
    """The norm of the difference of two gradients."""
    pairs = [(g, total.get(id(p))) for p, g in zip(model.parameters(), whole, strict=True)]
    return math.hypot(
        *(float((one if other is None else other - one).norm()) for one, other in pairs if one is not None)
    )


def weights_of(parts: Sequence[Any], losses: Sequence[float], whole: float) -> list[tuple[Sequence[float], str]]:
    """The shares of the parts in the loss of the whole that fit: by samples, by what is labelled, or each in full.

    At the start of a training several may: there all parts may cost the same.

    Example:
        >>> weights_of([torch.zeros(1), torch.zeros(3)], [4.0, 2.0], 2.5)
        [([0.25, 0.75], 'weighted by samples')]

    Raises:
        Unanswerable: it is no sum of theirs.
    """
    samples = [samples_in(part, least=1) for part in parts]
    known = [("weighted by samples", samples), ("added up", [1] * len(parts))]
    counts = [_counts(part) for part in parts]
    for key in dict.fromkeys(key for found in counts for key in found):
        known.insert(1, (f"weighted by what {key} labels", [found.get(key, 0) for found in counts]))
    fitting: dict[tuple[float, ...], str] = {}
    for how, share in known:
        total = 1 if how == "added up" else sum(share)
        weights = [each / total for each in share] if total else [0.0] * len(share)
        if abs(sum(w * loss for w, loss in zip(weights, losses, strict=True)) - whole) <= FITS * max(abs(whole), 1e-12):
            fitting.setdefault(tuple(weights), how)
    if fitting:
        return [(list(weights), how) for weights, how in fitting.items()]
    raise Unanswerable(APART)


def _counts(part: Any) -> dict[str, int]:
    """How many elements of every tensor of whole numbers count: labels that are not ignored, ones of a mask."""
    found = {}
    for key, tensor in named_tensors(part):
        if tensor.dim() and not tensor.is_floating_point() and not tensor.is_complex():
            mask = tensor if tensor.dtype is torch.bool else tensor != IGNORED
            if tensor.dtype is not torch.bool and int(tensor.min()) == 0 and int(tensor.max()) <= 1:
                mask = tensor != 0
            found[key] = int(mask.sum())
            if tensor.dim() > 1:
                found[f"{key}[:, 1:]"] = int(mask[:, 1:].sum())
    return found


def batch(side: Side) -> Iterator[Callable[[], TwinResult]]:
    """Each sample alone against the batch, in evaluation and in training mode."""
    yield lambda: _alone(side, training=False)
    yield lambda: _alone(side, training=True)


def _alone(side: Side, *, training: bool) -> TwinResult:
    context, name = side.context, "batch (training mode)" if training else "batch (evaluation mode)"
    mixing = [m for m, module in context.task.model.named_modules() if _mixes(module)]
    if training and mixing:
        kind = type(context.task.model.get_submodule(mixing[0])).__name__
        raise Unanswerable(f"{mixing[0]} ({kind}) takes its statistics over the batch in training mode")
    whole = context.task.batch
    length = samples_in(whole)
    alone = parts_of(whole, length)[:MOST_ALONE]
    mode = UNCHANGED if training else stilled(UNCHANGED)
    bits = replace(mode, applied=_both(mode, partial(last_bits, None)))
    (heard, refused), (noise, also) = _heard(context, mode, whole), _heard(context, bits, whole)
    if refused or also:
        raise Unanswerable(f"the batch is refused in this mode: {refused or also}")
    told = TwinResult(name, "agreed", f"{len(alone)} of {length} samples alone", allowed=10 * side.tolerance.loss)
    compared, worst = False, 0.0
    for index, sample in enumerate(alone):
        what = f"sample {index} of {length}, alone,"
        apart, refused = _heard(context, mode, sample)
        if refused and (lacking := [module for module in heard if module not in apart]):
            if _heard(context, mode, rows_of(whole, [index, index]))[1]:  # not because it is alone
                raise Unanswerable(f"parts of the batch are refused: {refused}")
            how = f"{told.exchanged}: {lacking[0]} refuses it: {refused}"
            return replace(told, outcome="disagreed", exchanged=how, what=what, outputs=lacking[0], size=math.inf)
        for module, outputs in heard.items():
            for one, near, other in zip(outputs, noise.get(module, ()), apart.get(module, ()), strict=False):
                if not one.dim() or one.shape[0] != length or other.shape != (1, *one.shape[1:]):
                    continue
                size = gap_of(one[index : index + 1], other)
                allowed = max(told.allowed, NOISE * gap_of(one[index : index + 1], near[index : index + 1]))
                compared, worst = True, max(worst, size)
                if not size <= allowed:
                    if not _turns(context, mode, whole, module, heard, allowed):
                        raise Unanswerable(f"the order along the leading axis counts for {module}: it has no samples")
                    return replace(told, outcome="disagreed", what=what, outputs=module, size=size, allowed=allowed)
    if not compared:
        raise Unanswerable("no module gives one output per sample of the batch")
    return replace(told, size=worst)


def _turns(context: RunContext, mode: Exchange, whole: Any, module: str, heard: Outputs, allowed: float) -> bool:
    """Whether a module gives the same in another order for a batch in another order, as it does for samples, and not
    for points of time. The first, and the last of many, stay where they are: a fault may let all look at them.
    """
    count = samples_in(whole)
    order = [0, *range(count - 2, 0, -1), count - 1] if count > 3 else [0, *range(count - 1, 0, -1)]
    turned, refused = _heard(context, mode, rows_of(whole, order))
    pairs = zip(heard[module], turned.get(module, ()), strict=False)
    return not refused and all(gap_of(a[order], b) <= allowed for a, b in pairs if a.shape == b.shape and a.dim())


def _both(mode: Exchange, more: Any) -> Any:
    @contextlib.contextmanager
    def applied(context: RunContext) -> Iterator[None]:
        with mode.applied(context) if mode.applied else contextlib.nullcontext(), more(context):
            yield

    return applied


def _heard(context: RunContext, mode: Exchange, batch: Any) -> tuple[Outputs, str]:
    """What every module gives for a batch, at the start of the run, in the order of the calls; and what it refuses."""
    refused = ""
    with context.at_start(), mode.applied(context) if mode.applied else contextlib.nullcontext():
        seed_everything(context.seed)
        before = torch.get_rng_state()
        with modules_heard(context.task.model) as heard:
            try:
                with users_code():
                    if context.step is not None:
                        differentiated(context.step, batch)
                    else:
                        context.task.forward(batch)
            except Refused as error:
                refused = str(error)
        if not torch.equal(before, torch.get_rng_state()):
            raise Unanswerable("random numbers are drawn in this mode, for each sample others alone")
        return heard, refused


def _mixes(module: nn.Module) -> bool:
    """Whether a module takes statistics over the batch in training mode, and says so by what it is."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training


def samples_in(batch: Any, *, least: int = 2) -> int:
    """The length of the axis of samples: the leading one that most tensors share.

    Raises:
        Unanswerable: there is none, or fewer samples than ``least``.
    """
    leading = [t.shape[0] for _, t in named_tensors(batch) if t.dim() and t.layout is torch.strided]
    length = Counter(leading).most_common(1)[0][0] if leading else 0
    if length < least:
        raise Unanswerable("the batch has one sample" if length == 1 else "the batch has no axis of samples")
    return length


def parts_of(batch: Any, count: int) -> list[Any]:
    """A batch cut into so many parts along its axis of samples; what has no such axis is in every part."""
    length = samples_in(batch)
    bounds = [round(index * length / count) for index in range(count + 1)]
    return [rows_of(batch, range(start, stop)) for start, stop in itertools.pairwise(bounds)]


def rows_of(batch: Any, rows: Sequence[int]) -> Any:
    """Some samples of a batch."""
    length = samples_in(batch)

    def part(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != length:
            return tensor
        taken = tensor.detach()[list(rows)]
        return taken.requires_grad_() if tensor.requires_grad else taken

    return map_tensors(part, batch)
