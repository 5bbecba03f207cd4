"""Held-out mistakes in what a model reads and in what a loss compares: rows, masks, order.

From trackers: chunks of inputs and of labels counted by two variables (JonasGeiping/invertinggradients#4), outputs that
stay sorted by length, boxes that are not flipped with their image (fizyr/keras-retinanet#150), a label 0 that is taken
for padding, a mask along the queries (hyunwoongko/transformer#40), a mask of 0 and 1 that is added
(pytorch/pytorch#21518), a triangle that begins at another diagonal (pbloem/former#10), a loss that wants
log-probabilities and gets something else (pytorch/pytorch#43348), boxes that are yxyx at one end and xyxy at the other
(rwightman/efficientdet-pytorch#231).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree

from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.losses import REGRESSION, first_call, paired_rows
from benchmarks.wild.operators.masks import exchange_hidden, on_mask
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_loss, on_output, override
from benchmarks.wild.operators.trace import Hiding, leaves


def beside(s: Setup, at: Site) -> list[Tensor]:
    """Tensors of the batch with a row for each sample that the model does not read: what it is to tell."""
    return [each for path, each in leaves(s.batch) if path not in at.trace.inputs and _per_sample(each, at)]


def _per_sample(value: Any, at: Site) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == at.trace.rows


def _divisible(s: Setup, at: Site) -> bool:
    """Whether some of the samples have a loss of their own: it compares none with others."""
    if at.trace.more is None or not at.trace.inputs or at.program.traits & {"contrastive", "graph", "process"}:
        return False
    return all(_per_sample(each, at) for _, each in leaves(s.batch))


def _chunk(batch: Any, inputs: list[str], read: slice, told: slice) -> Any:
    """Some samples of a batch, by their paths: of what the model reads, and of what it is to tell."""

    def cut(path: Any, value: Any) -> Any:
        return value[read if _pytree.keystr(path) in inputs else told] if isinstance(value, Tensor) else value

    return _pytree.tree_map_with_path(cut, batch)


@operator("rows", "unsupervised", "term-missing")
def last_chunk_cut(s: Setup, at: Site) -> str | None:
    """The loss is taken in chunks, of which there are len(x) // size: what is left over is in none."""
    rows, inner = at.trace.rows, s.loss
    size = next((size for size in (3, 4, 5, 2) if size < rows and rows % size), 0)
    if not size or not _divisible(s, at):
        return None

    def loss(model: nn.Module, batch: Any) -> Tensor:
        parts = [slice(size * number, size * (number + 1)) for number in range(rows // size)]
        values = [inner(model, _chunk(batch, at.trace.inputs, part, part)) for part in parts]
        return torch.stack(values).mean()

    s.loss = loss
    return f"the loss: chunks of {size}, rows {rows // size * size} and later are in none"


@operator("rows", "target-mismatch", "label-conflict", "unsupervised")
def labels_of_first_chunk(s: Setup, at: Site) -> str | None:
    """The loss is taken in two chunks, and both are compared with the labels of the first."""
    half, inner = at.trace.rows // 2, s.loss
    told = beside(s, at)
    if not half or not _divisible(s, at) or all(torch.equal(each[:half], each[-half:]) for each in told):
        return None

    def loss(model: nn.Module, batch: Any) -> Tensor:
        chunks = [slice(0, half), slice(len(told[0]) - half, len(told[0]))]
        values = [inner(model, _chunk(batch, at.trace.inputs, chunk, chunks[0])) for chunk in chunks]
        return torch.stack(values).mean()

    s.loss = loss
    return f"the loss: the second chunk is compared with labels[:{half}]"


@operator("rows", "target-mismatch", "label-conflict", "loss-floor")
def repeated_for_interleaved(s: Setup, at: Site) -> str | None:
    """Every output is told twice by repeat and every target by repeat_interleave: most meet another sample's."""
    if (found := paired_rows(at)) is None:
        return None
    number, count = found
    outputs, targets = torch.arange(count).repeat(2), torch.arange(count).repeat_interleave(2)
    target = at.trace.losses[number].target
    if torch.equal(target[outputs], target[targets]):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out[outputs], target[targets], **_weights(rest, func, targets))  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: out.repeat(2) against target.repeat_interleave(2)"


def _weights(rest: dict[str, Any], func: Any, index: Tensor) -> dict[str, Any]:
    """The weights of rows go with them, those of classes stay."""
    weight = rest.get("weight")
    is_rows = isinstance(weight, Tensor) and func is not F.cross_entropy and weight.dim() > 0
    return {**rest, "weight": weight[index]} if is_rows and weight is not None else rest


def _each(func: Any, out: Tensor, target: Tensor, rest: dict[str, Any]) -> Tensor:
    """A loss before its mean."""
    return func(out, target, **{**rest, "reduction": "none"})  # type: ignore[no-any-return]


@operator("rows", "unsupervised", "term-missing")
def easiest_rows_mined(s: Setup, at: Site) -> str | None:
    """Hard samples are to be mined, and topk takes the smallest losses: the hardest quarter teaches nothing."""
    found = paired_rows(at)
    if found is None or len(at.trace.losses) > 1 or ignores(at.trace.losses[found[0]].target):
        return None
    number, count = found

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        rows = _each(func, out, target, rest).reshape(count, -1).mean(1)
        return rows.topk(count - max(1, count // 4), largest=False).values.mean()

    exchange_loss(s, number, loss)
    return "the loss: topk(largest=False)"


def ignores(target: Tensor) -> bool:
    """Whether classes are among the targets that count in no loss."""
    return not target.is_floating_point() and bool((target < 0).any())


@operator("mask", "unsupervised", "vacuous", "term-missing")
def valid_where_positive(s: Setup, at: Site) -> str | None:
    """Of the targets those above 0 count as given: class 0, zeros and negative numbers are taken for padding."""
    if (number := first_call(at)) is None or at.trace.losses[number].function == "nll_loss":
        return None
    call = at.trace.losses[number]
    is_class = call.function == "cross_entropy"
    left_out = call.target == 0 if is_class else call.target <= 0
    if call.target.is_floating_point() == is_class or not left_out.any() or not (call.target > 0).any():
        return None
    if not is_class and tuple(call.target.shape) != call.output:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        valid = target > 0
        return (_each(func, out, target, rest) * valid).sum() / valid.sum().clamp(min=1)

    exchange_loss(s, number, loss)
    return "the loss: valid = target > 0"


def _hiding(
    s: Setup,
    at: Site,
    fits: Callable[[Hiding], bool],
    change: Callable[[Tensor], Tensor] = lambda hidden: hidden,
    *,
    as_numbers: bool = False,
) -> str | None:
    """An attention whose hidden scores (..., query, key) are others, or 0 in place of minus infinity."""
    places = sorted({each.module for each in at.trace.hidings if fits(each)})
    if not places:
        return None
    name = at.choose.choice(places)
    exchange_hidden(s.model.get_submodule(name), change, as_numbers=as_numbers)
    return name or "the model"


def _one_more_seen(hidden: Tensor) -> Tensor:
    """The first of the keys that are hidden to the end is seen."""
    return hidden & F.pad(hidden, (1, 0), value=True)[..., :-1]


@operator("mask", "leak", needs="causal")
def causal_mask_off_by_one(s: Setup, at: Site) -> str | None:
    """The triangle of what is to come begins one diagonal too late: every token sees the next one."""
    name = _hiding(s, at, lambda each: each.future, _one_more_seen)
    return name and f"{name}: triu(diagonal=2)"


@operator("mask", "input-ignored", "nonfinite-output", "nonfinite-loss", needs="padding")
def mask_over_queries(s: Setup, at: Site) -> str | None:
    """A mask of padding is broadcast along the keys: padding asks for nothing and is read by all."""

    def along_keys(hidden: Tensor) -> Tensor:
        return hidden.transpose(-1, -2) if hidden.shape[-1] == hidden.shape[-2] else torch.zeros_like(hidden)

    name = _hiding(s, at, lambda each: each.padding, along_keys)
    return name and f"{name}: mask[..., :, None] for mask[..., None, :]"


@operator("mask", "input-ignored", needs="padding")
def mask_added_as_numbers(s: Setup, at: Site) -> str | None:
    """A mask is added to the scores as 0 and 1, or filled in as 0, in place of minus infinity: padding is read."""
    name = _hiding(s, at, lambda each: each.padding, as_numbers=True)
    return name and f"{name}: 0 for -inf"


@operator("mask", "input-ignored", needs="padding")
def first_padding_seen(s: Setup, at: Site) -> str | None:
    """Lengths are compared by <= for <: the first token of the padding counts."""

    def longer(mask: Tensor, padding: bool) -> Tensor:
        hidden = mask.bool() if padding else ~mask.bool()
        seen = _one_more_seen(hidden)
        return (seen if padding else ~seen).to(mask.dtype)

    if (name := on_mask(s, at, longer)) is None:
        name = _hiding(s, at, lambda each: each.padding, _one_more_seen)
    return name and f"{name}: arange <= length"


@operator("order", "target-mismatch", "batch-mixing")
def rows_not_unsorted(s: Setup, at: Site) -> str | None:
    """The model sorts its samples, as for packing by length, and returns them as sorted."""
    read = [each for path, each in leaves(s.batch) if path in at.trace.inputs and _per_sample(each, at)]
    if not read or at.trace.more is None or read[0].is_complex() or "graph" in at.program.traits:
        return None
    sorted_ = read[0].reshape(at.trace.rows, -1).float().sum(1).argsort(descending=True, stable=True)
    if all(torch.equal(each, each[sorted_]) for each in beside(s, at)):
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        def sort(value: Any) -> Any:
            return value[sorted_] if _per_sample(value, at) and not value.requires_grad else value

        return inner(*_pytree.tree_map(sort, args), **_pytree.tree_map(sort, kwargs))

    override(s.model, forward)
    return "the model: its rows stay sorted"


@operator("order", "batch-changes", "target-mismatch", "stochastic")
def moved_without_target(s: Setup, at: Site) -> str | None:
    """An augmentation mirrors the input, an image or a series, in half of the steps, and leaves the target as it is."""
    told = [*beside(s, at), *(call.target for call in at.trace.losses if call.grad)]
    for path, given in float_inputs(s, at):
        axis = next((axis for axis in (_mirrored(given, each) for each in told) if axis), None)
        if axis is not None:
            _moved(s, given.shape, axis)
            return f"batch{path}: flip({axis}) in half of the steps"
    return None


def _mirrored(given: Tensor, told: Tensor) -> int | None:
    """The axis of space or time that an input has in common with a target which is not the same in a mirror."""
    if told.dim() < 3 or given.dim() < 3 or told.shape[0] != given.shape[0]:
        return None
    pairs = [(-1, -1)] if given.dim() > 3 else [(1, 1), (2, 2)]
    for axis, other in pairs:
        same = given.shape[axis] == told.shape[other] > 5 and (given.dim() == 3 or given.shape[-2] == told.shape[-2])
        if same and not torch.equal(told, told.flip(other)):
            return axis
    return None


def _moved(s: Setup, shape: torch.Size, axis: int) -> None:
    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        if model.training and float(torch.rand(())) < 0.5:
            args, kwargs = _mapped((args, kwargs), shape, lambda x: x.flip(axis))
        return inner(*args, **kwargs)

    override(s.model, forward)


def _mapped(nest: Any, shape: torch.Size, change: Callable[[Tensor], Tensor]) -> Any:
    """Arguments in which the inputs of a shape are changed."""

    def each(value: Any) -> Any:
        is_input = isinstance(value, Tensor) and value.shape == shape and value.is_floating_point()
        return change(value) if is_input and not value.requires_grad else value

    return _pytree.tree_map(each, nest)


@operator("order", "mode-gap")
def channels_reversed_in_training(s: Setup, at: Site) -> str | None:
    """Channels, or columns of a table, have another order in training than in evaluation, as of BGR and RGB."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() != 3 and each.dim() > 1]
    found = [(path, each) for path, each in found if each.shape[1] > 1]
    if not found:
        return None
    path, given = found[0]

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        if model.training:
            args, kwargs = _mapped((args, kwargs), given.shape, lambda x: x.flip(1))
        return inner(*args, **kwargs)

    override(s.model, forward)
    return f"batch{path}: flip(1) in training"


@operator("swapped", "loss-sign")
def nll_loss_on_logits(s: Setup, at: Site) -> str | None:
    """The logits go into nll_loss, which wants log-probabilities: the loss has no lower bound."""
    number = first_call(at, "cross_entropy")
    if number is None or at.trace.losses[number].target.is_floating_point():
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        rest.pop("label_smoothing", None)
        return F.nll_loss(out, target, **rest)

    exchange_loss(s, number, loss)
    return "the loss: nll_loss for cross_entropy"


@operator("swapped", "mode-gap")
def coordinates_swapped_in_evaluation(s: Setup, at: Site) -> str | None:
    """What is told comes back as (y, x) in evaluation, and as (x, y) in training, where the targets are so."""
    whole = next((call for call in at.trace.modules if not call.name), None)
    told = [call.output for call in at.trace.losses if call.grad and call.function in REGRESSION]
    if whole is None or whole.went not in told or len(whole.went) not in (2, 3) or whole.went[-1] < 2:
        return None
    on_output(s.model, lambda out: out if s.model.training else out.flip(-1))
    return "the model: flip(-1) in evaluation"
