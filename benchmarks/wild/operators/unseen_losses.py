"""Held-out mistakes in what a loss reads and compares, the second set.

From trackers and forums: ``model(x)[0]`` of a model that returns a tensor, a mean that is taken before the difference,
a loss that is overwritten in a loop, a softmax over one-hot targets, negative losses of ``nll_loss`` on probabilities,
predictions that are clamped for a picture before they are compared, targets that are divided in place in every call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.held_back import _chunk, _each, ignores
from benchmarks.wild.operators.losses import REGRESSION, first_call, paired_rows
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.optimizers import trainable
from benchmarks.wild.operators.rewrite import exchange_loss, on_output
from benchmarks.wild.operators.targets import first_target
from benchmarks.wild.operators.trace import leaves
from benchmarks.wild.operators.unseen_steps import chunks


@operator("rows", "unsupervised", "term-missing", "wrong-backward")
def loss_overwritten_in_loop(s: Setup, at: Site) -> str | None:
    """A loop over parts of the batch assigns the loss in place of adding to it: the last part alone counts."""
    parts, inner = chunks(s, at), s.loss
    if parts is None:
        return None

    def loss(model: nn.Module, batch: Any) -> Tensor:
        for part in parts:
            value = inner(model, _chunk(batch, at.trace.inputs, part, part))
        return value

    s.loss = loss
    return f"the loss: = for += in a loop over {len(parts)} parts"


@operator("rows", "broadcast", "unsupervised", "target-mismatch", "term-missing")
def first_output_for_all(s: Setup, at: Site) -> str | None:
    """The model's output is read as of a tuple, ``model(x)[0]``: the first sample's is compared with all targets."""
    found = paired_rows(at, *REGRESSION)
    if found is None or at.trace.losses[found[0]].output != tuple(at.trace.losses[found[0]].target.shape):
        return None
    exchange_loss(s, found[0], lambda func, out, target, **rest: func(out[0].expand_as(target), target, **rest))
    return "the loss: model(x)[0]"


@operator("rows", "unsupervised", "target-mismatch", "batch-mixing", "vacuous")
def means_compared(s: Setup, at: Site) -> str | None:
    """The mean over the samples is taken before the difference: the mean of the outputs is all that is told."""
    found = paired_rows(at, *REGRESSION)
    if found is None or at.trace.losses[found[0]].output != tuple(at.trace.losses[found[0]].target.shape):
        return None
    exchange_loss(s, found[0], lambda func, out, target, **rest: func(out.mean(0), target.mean(0)))
    return "the loss: of out.mean(0) and target.mean(0)"


@operator("order", "target-mismatch", "batch-mixing")
def sorted_before_compared(s: Setup, at: Site) -> str | None:
    """Outputs and targets are each sorted over the samples before they are compared: any of them may meet."""
    found = paired_rows(at, *REGRESSION)
    if found is None or at.trace.losses[found[0]].output != tuple(at.trace.losses[found[0]].target.shape):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out.sort(0).values, target.sort(0).values, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, found[0], loss)
    return "the loss: out.sort(0) against target.sort(0)"


@operator("doubled", "loss-floor", "double-activation", "target-mismatch", counts=BREAKING)
def softmax_on_targets(s: Setup, at: Site) -> str | None:
    """The targets, one-hot or a teacher's probabilities, go through a softmax: they are nearly even."""
    if (number := first_call(at, "cross_entropy")) is None or ignores(at.trace.losses[number].target):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        if not target.is_floating_point():
            target = F.one_hot(target, out.shape[1]).movedim(-1, 1).to(out.dtype)
        rest.pop("ignore_index", None)
        return F.cross_entropy(out, target.softmax(1), **rest)

    exchange_loss(s, number, loss)
    return "the loss: target.softmax(1)"


@operator("swapped", "loss-sign", "loss-scale", "double-activation")
def nll_loss_on_probabilities(s: Setup, at: Site) -> str | None:
    """Probabilities go into nll_loss, which wants their logarithms: the loss lies between -1 and 0."""
    number = first_call(at, "cross_entropy")
    if number is None or at.trace.losses[number].target.is_floating_point():
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        rest.pop("label_smoothing", None)
        return F.nll_loss(out.softmax(1), target, **rest)

    exchange_loss(s, number, loss)
    return "the loss: nll_loss(softmax) for log_softmax"


@operator("misplaced", "loss-clamped", "output-range", "loss-floor", "zero-gradient")
def prediction_clamped(s: Setup, at: Site) -> str | None:
    """The prediction is clamped to 0 and 1, as for a picture, before it is compared: beyond there is no gradient."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: func(out.clamp(0, 1), target, **rest))
    return "the loss: out.clamp(0, 1)"


@operator("dtype", "target-mismatch", "degenerate-batch", "target-scale")
def targets_truncated(s: Setup, at: Site) -> str | None:
    """The targets of a regression are made whole numbers, as by torch.LongTensor: most of them are zero."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: func(out, target.trunc(), **rest))
    return "the loss: target.long()"


@operator("mask", "unsupervised", "target-mismatch", "vacuous")
def loss_on_ignored_alone(s: Setup, at: Site) -> str | None:
    """The mask of the loss is the wrong way round: what is to be ignored counts, as class 0, and nothing else."""
    number = first_call(at, "cross_entropy")
    if number is None or not ignores(at.trace.losses[number].target):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        counts = target < 0
        value = _each(func, out, target.clamp(min=0), {**rest, "ignore_index": -100})
        return (value * counts).sum() / counts.sum().clamp(min=1)

    exchange_loss(s, number, loss)
    return "the loss: labels == -100 for labels != -100"


@operator("place", "batch-changes", "target-scale")
def targets_divided_in_place(s: Setup, at: Site) -> str | None:
    """The loss brings targets to the size of the image in place, ``boxes /= 2``: in every call once more."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    path, inner = first_target(s.batch, at.trace.losses[number].target), s.loss
    if path is None or path in at.trace.inputs:
        return None

    def loss(model: nn.Module, batch: Any) -> Tensor:
        dict(leaves(batch))[path].div_(2)
        return inner(model, batch)

    s.loss = loss
    return f"the loss: batch{path}.div_(2)"


@operator("place", "output-range", "dead-units", "loss-floor", "zero-gradient")
def relu_behind_last_layer(s: Setup, at: Site) -> str | None:
    """A ReLU follows the last layer: no output is below zero, and what is zero gets no gradient."""
    if (number := first_call(at)) is None:
        return None
    call = at.trace.losses[number]
    places = at.trace.places(lambda each: each.graph and each.went == call.output and each.below > 0)
    if not places or call.output == () or call.function in ("binary_cross_entropy", "nll_loss"):
        return None
    on_output(s.model.get_submodule(places[-1].name), torch.relu)
    return f"{places[-1].name}: a ReLU behind it"


@operator("scale", "weight-decay", "term-weight", "loss-floor", counts=BREAKING)
def penalty_of_all_weights(s: Setup, at: Site) -> str | None:
    """The squares of all weights are summed, not averaged, and added to the loss as they are."""
    inner = s.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        penalty = torch.stack([each.abs().square().sum() for each in trainable(model)]).sum()
        return inner(model, batch) + penalty

    s.loss = loss
    return "the loss: + sum of squared weights"
