"""Held-out mistakes in what a loss compares and weighs, the third set.

From trackers and forums: an uncertainty that is learned without its logarithm in the loss, ``(out - target).mean()``,
one term that is added twice in place of another, a softmax that only the evaluation has, per-pixel losses of a crop,
a median for a mean, losses that are divided by themselves to balance them, predictions that are averaged into the
labels in place, weights that fall with the number of the row, logits that are brought to unit length without a
temperature, a teacher whose checkpoint was never loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.held_back import _each, ignores
from benchmarks.wild.operators.held_back_training import _class_axis
from benchmarks.wild.operators.losses import REGRESSION, first_call, paired_rows
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.optimizers import trainable
from benchmarks.wild.operators.rewrite import Forward, exchange_loss, on_output, override
from benchmarks.wild.operators.targets import first_target
from benchmarks.wild.operators.trace import ModuleCall


@operator("forgotten", "confidence-runaway", "term-missing", "loss-scale", "vacuous")
def log_of_uncertainty_forgotten(s: Setup, at: Site) -> str | None:
    """The loss is divided by a learned variance, and its logarithm is not added: to be sure of nothing is best."""
    if at.program.given.get("unbounded"):
        return None
    others, inner = trainable(s.model), s.loss
    s.model.register_parameter("log_variance", nn.Parameter(torch.zeros(())))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        log_variance: Any = model.log_variance
        return inner(model, batch) * torch.exp(-log_variance)

    s.loss = loss
    s.optimizer = at.optimizer([{"params": others}, {"params": [s.model.log_variance], "lr": 0.05}])
    return "the loss: * exp(-s) for * exp(-s) + s"


def _alike(at: Site) -> int | None:
    """The first call of a regression whose output and target have one shape."""
    number = first_call(at, *REGRESSION)
    if number is None or at.trace.losses[number].output != tuple(at.trace.losses[number].target.shape):
        return None
    return number


@operator("forgotten", "loss-sign", "unsupervised", "vacuous")
def absolute_value_forgotten(s: Setup, at: Site) -> str | None:
    """The mean of the differences is taken as it is: the further an output is below its target, the better."""
    if (number := _alike(at)) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: (out - target).mean())
    return "the loss: (out - target).mean()"


@operator("doubled", "term-missing", "unsupervised", "term-weight")
def term_of_another_repeated(s: Setup, at: Site) -> str | None:
    """A line was copied and not changed: one term of the loss is added twice, and another one never."""
    terms = [number for number, call in enumerate(at.trace.losses) if call.grad]
    if len(terms) < 2:
        return None
    first, second = (at.trace.losses[number] for number in terms[:2])
    if first.output == second.output and torch.equal(first.target.float(), second.target.float()):
        return None
    kept: list[Callable[[], Tensor]] = []

    def keep(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        kept[:] = [lambda: func(out, target, **rest)]
        return kept[0]()

    exchange_loss(s, terms[0], keep)
    exchange_loss(s, terms[1], lambda func, out, target, **rest: kept[0]())
    return f"the loss: term {terms[0]} in place of term {terms[1]}"


@operator("detached", "wrong-backward", "no-gradient")
def normaliser_detached(s: Setup, at: Site) -> str | None:
    """A log-softmax by hand subtracts a logarithm that is detached: logits only rise."""
    number = first_call(at, "cross_entropy")
    if number is None or at.trace.losses[number].target.is_floating_point():
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        rest.pop("label_smoothing", None)
        return F.nll_loss(out - out.logsumexp(1, keepdim=True).detach(), target, **rest)

    exchange_loss(s, number, loss)
    return "the loss: out - out.logsumexp(1).detach()"


@operator("rows", "unsupervised", "term-missing")
def border_not_compared(s: Setup, at: Site) -> str | None:
    """The loss reads a crop of a map, or of a series, without its first and last ones."""
    for number, call in enumerate(at.trace.losses):
        is_class = call.function == "cross_entropy" and not call.target.is_floating_point()
        shape = tuple(call.target.shape)
        if not call.grad or len(call.output) < 3 or (not is_class and call.output != shape):
            continue
        axis = 2 if is_class or len(shape) > 3 else 1
        if call.output[axis] < 4:
            continue

        def crop(x: Tensor, axis: int) -> Tensor:
            return x.narrow(axis, 1, x.shape[axis] - 2)

        def loss(
            func: Any, out: Tensor, target: Tensor, *, axis: int = axis, less: int = int(is_class), **rest: Any
        ) -> Tensor:
            return func(crop(out, axis), crop(target, axis - less), **rest)  # type: ignore[no-any-return]

        exchange_loss(s, number, loss)
        return f"the loss: [1:-1] of axis {axis}"
    return None


def _rows_alone(at: Site) -> tuple[int, int] | None:
    """The one loss of a program, of three rows at least none of which is ignored, and their number."""
    found = paired_rows(at)
    if found is None or len(at.trace.losses) > 1 or found[1] < 3 or ignores(at.trace.losses[found[0]].target):
        return None
    return found


@operator("rows", "unsupervised", "term-missing", "vacuous")
def median_for_mean(s: Setup, at: Site) -> str | None:
    """The median of the samples' losses is minimised: whatever is hard for the model teaches it nothing."""
    if (found := _rows_alone(at)) is None:
        return None
    number, count = found

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return _each(func, out, target, rest).reshape(count, -1).mean(1).median()

    exchange_loss(s, number, loss)
    return "the loss: .median() for .mean()"


@operator("scale", "unsupervised", "term-weight", "term-missing")
def weights_fall_with_row(s: Setup, at: Site) -> str | None:
    """A discount of 0.1 is raised to the number of the row: all but the first weigh next to nothing."""
    if (found := _rows_alone(at)) is None:
        return None
    number, count = found

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        rows = _each(func, out, target, rest).reshape(count, -1).mean(1)
        weights = (0.1 ** torch.arange(count)).to(rows)
        return (rows * weights).sum() / weights.sum()

    exchange_loss(s, number, loss)
    return "the loss: * 0.1 ** arange(len(rows))"


@operator("place", "loss-clamped", "unsupervised", "zero-gradient")
def large_losses_clamped(s: Setup, at: Site) -> str | None:
    """The samples' losses are clamped against outliers: what is above has no gradient, and stays there."""
    if (found := _rows_alone(at)) is None:
        return None
    number, count = found
    bound: list[float] = []

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        rows = _each(func, out, target, rest).reshape(count, -1).mean(1)
        bound.extend([] if bound else [float(rows.detach().quantile(0.4))])
        return rows.clamp(max=bound[0]).mean()

    exchange_loss(s, number, loss)
    return "the loss: rows.clamp(max=...)"


@operator("scale", "zero-gradient", "vacuous", "loss-floor", "no-update")
def loss_divided_by_itself(s: Setup, at: Site) -> str | None:
    """The loss is divided by its own size, as to balance terms, and that is not detached: it is 1 whatever happens."""
    inner = s.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = inner(model, batch)
        return value / value

    s.loss = loss
    return "the loss: / loss for / loss.detach()"


@operator("place", "batch-changes", "target-mismatch", "vacuous")
def outputs_averaged_into_targets(s: Setup, at: Site) -> str | None:
    """An ensemble over time averages the outputs into the targets in place: in the end they are what is told."""
    number = _alike(at)
    if number is None:
        return None
    path = first_target(s.batch, at.trace.losses[number].target)
    if path is None or path in at.trace.inputs:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        target.lerp_(out.detach(), 0.1)
        return func(out, target, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return f"batch{path}: .lerp_(out.detach(), 0.1)"


@operator("misplaced", "output-range", "loss-floor", "saturation", counts=BREAKING)
def logits_of_unit_length(s: Setup, at: Site) -> str | None:
    """The logits are brought to unit length, as features are, and have no temperature: no class can be certain."""
    if (number := first_call(at, "cross_entropy")) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: func(F.normalize(out, dim=1), target, **rest))
    return "the loss: F.normalize(logits, dim=1)"


def _whole(at: Site) -> ModuleCall | None:
    """The call of the model, where it returns a tensor with gradients."""
    return next((call for call in at.trace.modules if not call.name and call.went and call.graph), None)


def _classifier(at: Site) -> int | None:
    """The axis of classes of what the model returns, where that goes into cross entropy."""
    whole, number = _whole(at), first_call(at, "cross_entropy")
    if whole is None or number is None or len(at.trace.losses[number].output) < 2:
        return None
    return _class_axis(whole.went, at.trace.losses[number].output)


@operator("mode", "mode-gap", "double-activation")
def softmax_in_evaluation(s: Setup, at: Site) -> str | None:
    """The model ends in a softmax ``if not self.training``, and the loss of the evaluation applies another one."""
    if (axis := _classifier(at)) is None:
        return None
    on_output(s.model, lambda out: out if s.model.training else out.softmax(axis))
    return f"the model: softmax({axis}) in evaluation"


@operator("order", "mode-gap", "target-mismatch")
def classes_in_another_order_in_evaluation(s: Setup, at: Site) -> str | None:
    """The classes are numbered anew for the evaluation, as by a set or a sorted folder: each one is another's."""
    if (axis := _classifier(at)) is None:
        return None
    on_output(s.model, lambda out: out if s.model.training else out.roll(1, axis))
    return "the model: classes in another order in evaluation"


@operator("copy", "not-loaded", "loss-floor", "target-mismatch", "term-weight")
def teacher_never_loaded(s: Setup, at: Site) -> str | None:
    """The loss asks for the outputs of a teacher too, whose weights are new: what it says is noise."""
    if _whole(at) is None:
        return None
    teacher, inner = at.program.model().eval().requires_grad_(False), s.loss
    told: list[Tensor] = []

    def forward(call: Forward, *args: Any, **kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        with torch.no_grad():
            goal = teacher(*args, **kwargs)
        told.append(F.mse_loss(out, goal))
        return out

    def loss(model: nn.Module, batch: Any) -> Tensor:
        told.clear()
        value = inner(model, batch)
        return value + torch.stack(told).sum()

    override(s.model, forward)
    s.loss = loss
    return "the loss: + mse_loss(out, teacher(x)) of a new teacher"
