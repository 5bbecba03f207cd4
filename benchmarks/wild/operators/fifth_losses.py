"""Held-out mistakes in losses and targets, the fifth set.

From trackers and forums: the end of a sentence that is ignored with the padding (huggingface/transformers#23530,
mlabonne/llm-course#33), padding whose label is a class (kaiyinzhou/BERT-NER#3), a masked mean over all there is
(d2l-ai/d2l-en#2076, huggingface/lerobot#3377), labels that are resized like pictures
(divamgupta/image-segmentation-keras#11, facebookresearch/Mask2Former#154), the modulating factor of a focal loss the
wrong way round, rows without a number that are skipped in silence (haofeixu/gmflow#27, BLAST-AI-ML/synapse#237), a
target that is not detached (pytorch/translate#391, noegroup/bgflow#14), a logarithm of a determinant that is lost on
its way (VincentStimper/normalizing-flows#27), labels that the model made up itself, a
tolerance in the unit of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.held_back import _each, ignores
from benchmarks.wild.operators.losses import BINARY, REGRESSION, first_call, paired_rows
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, exchange_loss, override
from benchmarks.wild.operators.targets import first_target
from benchmarks.wild.operators.trace import leaf, leaves

IGNORED = -100  # what cross entropy leaves out by default
TOLERANCE = 5.0  # in the unit of the data
TRIES = 6  # lines of a program that are looked at in turn
DETACH: tuple[Callable[..., Tensor], ...] = (Tensor.detach, torch.detach)


def _classified(at: Site) -> int | None:
    """The first cross entropy whose targets are numbers of classes."""
    number = first_call(at, "cross_entropy")
    return None if number is None or at.trace.losses[number].target.is_floating_point() else number


def _left_out(target: Tensor, rest: dict[str, Any]) -> Tensor:
    left_out: Tensor = target == rest.get("ignore_index", IGNORED)
    return left_out


@operator("swapped", "vacuous", "unsupervised", "target-mismatch")
def own_answer_for_half(s: Setup, at: Site) -> str | None:
    """Half of the samples, as if they had no label, are told what the model itself holds most likely."""
    number = _classified(at)
    if number is None or paired_rows(at, "cross_entropy") is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        told = torch.where(_left_out(target, rest), target, out.detach().argmax(1))
        told[: len(told) // 2] = target[: len(told) // 2]
        return func(out, told, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: out.argmax(1) for the labels of the second half"


@operator("swapped", "loss-sign", "vacuous", "unsupervised", "zero-gradient")
def focal_factor_inverted(s: Setup, at: Site) -> str | None:
    """A focal loss multiplies by ``p ** 2`` for ``(1 - p) ** 2``: who is certain of something wrong has no loss."""
    number = _classified(at)
    if number is None:
        number = first_call(at, *BINARY)
    if number is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        each = _each(func, out, target, rest)
        return (torch.exp(-each) ** 2 * each).mean()

    exchange_loss(s, number, loss)
    return "the loss: p ** 2 for (1 - p) ** 2"


@operator("scale", "vacuous", "units", "zero-gradient", "unsupervised", "loss-clamped", "no-update")
def tolerance_in_other_unit(s: Setup, at: Site) -> str | None:
    """Differences below 5, in the unit of the data, count as none, and the targets are normalised: all are below."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    call = at.trace.losses[number]
    if call.output != tuple(call.target.shape) or call.target.is_complex() or call.target.abs().max() > TOLERANCE:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        gap = out - target
        return func(target + gap.sign() * F.relu(gap.abs() - TOLERANCE), target, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return f"the loss: relu(|out - target| - {TOLERANCE:g})"


@operator("rows", "nonfinite-data", "unsupervised", "term-missing")
def rows_without_number_skipped(s: Setup, at: Site) -> str | None:
    """The target of one sample is NaN, and the loss leaves out what is NaN: nobody hears that it is not learnt."""
    if (number := first_call(at, *REGRESSION)) is None or len(at.trace.losses) > 1:
        return None
    call = at.trace.losses[number]
    path = first_target(s.batch, call.target)
    if path is None or path in at.trace.inputs or call.output != tuple(call.target.shape) or len(call.target) < 2:
        return None
    leaf(s.batch, path)[-1] = float("nan")

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out, torch.where(target.isnan(), out.detach(), target), **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return f"batch{path}[-1]: NaN, and the loss skips it"


def _length(s: Setup, at: Site, target: Tensor) -> int | None:
    """The number of tokens of a sample that targets are told for; None where they are no sequence."""
    rows = at.trace.rows
    if rows < 1 or target.dim() > 2 or target.numel() % rows:
        return None
    count = target.numel() // rows
    shapes = {tuple(each.shape) for _, each in leaves(s.batch) if not each.is_floating_point()}
    return count if count > 2 and shapes & {(rows, count), (rows, count + 1)} else None


@operator("mask", "unsupervised", "term-missing")
def end_of_sequence_ignored(s: Setup, at: Site) -> str | None:
    """The token of padding is that of the end: the last token of every sentence is ignored with the padding."""
    if (number := _classified(at)) is None:
        return None
    length = _length(s, at, at.trace.losses[number].target)
    if length is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        told = target.clone().view(-1, length)
        last = length - 1 - (~_left_out(told, rest)).flip(1).int().argmax(1)
        told[torch.arange(len(told)), last] = rest.get("ignore_index", IGNORED)
        return func(out, told.view_as(target), **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: the last token of each sequence is ignored"


@operator("mask", "target-mismatch", "input-ignored", "label-conflict")
def ignored_counted_as_first_class(s: Setup, at: Site) -> str | None:
    """What is to be ignored has the label 0 in place of -100: class 0 is told for all of the padding."""
    number = _classified(at)
    if number is None or not ignores(at.trace.losses[number].target):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out, target.masked_fill(_left_out(target, rest), 0), **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: 0 for -100"


@operator("count", "loss-scale")
def masked_sum_divided_by_all(s: Setup, at: Site) -> str | None:
    """The mean is taken over all tokens, those that are masked out among them: more padding is a smaller loss."""
    number = _classified(at)
    if number is None or not ignores(at.trace.losses[number].target):
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: _each(func, out, target, rest).mean())
    return "the loss: (loss * mask).mean()"


@operator("dtype", "target-mismatch", "unsupervised", "term-missing")
def labels_made_boolean(s: Setup, at: Site) -> str | None:
    """The labels are made boolean on their way, as a mask is: all classes but the first become the second."""
    number = _classified(at)
    if number is None or int(at.trace.losses[number].target.max()) < 2:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        told = torch.where(_left_out(target, rest), target, target.bool().to(target.dtype))
        return func(out, told, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: target.bool()"


def _resized(labels: Tensor) -> Tensor:
    """Labels (N, H, W) that went to half of their size and back, with bilinear interpolation."""
    half = F.interpolate(labels[:, None].float(), scale_factor=0.5, mode="bilinear")
    return F.interpolate(half, size=labels.shape[-2:], mode="bilinear")[:, 0].to(torch.long).to(labels.dtype)


@operator("dtype", "target-mismatch", "unsupervised")
def labels_resized_as_pictures(s: Setup, at: Site) -> str | None:
    """A map of labels is resized with bilinear interpolation: between class 1 and class 3 there is class 2."""
    for number, call in enumerate(at.trace.losses):
        target, is_binary = call.target, call.function in BINARY
        fits = call.grad and target.dim() == (4 if is_binary else 3) and min(target.shape[-2:]) > 3
        if not fits or not (is_binary or call.function == "cross_entropy"):
            continue

        def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
            left = _left_out(target, rest)
            labels = target.masked_fill(left, 0).flatten(0, -3)
            return func(out, torch.where(left, target, _resized(labels).view_as(target)), **rest)  # type: ignore[no-any-return]

        exchange_loss(s, number, loss)
        return "the loss: interpolate(labels, mode='bilinear')"
    return None


def _kept(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """In place of ``detach``."""
    return x if x.requires_grad else func(x, *args, **kwargs)


def _gradient(at: Site, number: int | None) -> Tensor | None:
    """The gradient of a program, where one of its calls of ``detach`` is left out."""
    torch.manual_seed(0)
    model, batch = at.program.model().train(), at.program.batch()
    try:
        with Exchanged(DETACH if number is not None else (), _kept, number):
            at.program.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    except Exception:  # what is detached for numpy cannot do without
        return None
    found = [each.grad for each in model.parameters() if each.requires_grad and each.grad is not None]
    return torch.cat([each.abs().flatten().double() for each in found]) if found else None


@operator("forgotten", "wrong-backward", "constant-output", "target-mismatch", "loss-floor")
def stop_gradient_forgotten(s: Setup, at: Site) -> str | None:
    """``detach()`` is left out, of a target that the model makes itself: it moves towards what it should teach."""
    healthy = _gradient(at, None)
    if healthy is None:
        return None
    left = {number: _gradient(at, number) for number in range(TRIES)}
    number = next((n for n, each in left.items() if each is not None and _far(each, healthy)), None)
    if number is None:
        return None
    inner = s.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with Exchanged(DETACH, _kept, number):
            return inner(model, batch)

    s.loss = loss
    return f"call {number} of detach() is missing"


def _far(gradient: Tensor, healthy: Tensor) -> bool:
    """Whether it reaches other parameters, or is another one."""
    return gradient.shape != healthy.shape or float((gradient - healthy).norm()) > 0.05 * float(healthy.norm())


def _side_outputs(at: Site) -> list[str]:
    """The parts that return features and one more number, for each sample or for all, that gradients flow from."""
    model, batch, found = at.program.model().train(), at.program.batch(), []

    def seen(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            pair: tuple[Any, ...] = output if isinstance(output, tuple) and len(output) == 2 else ()
            tensors = len(pair) == 2 and all(isinstance(each, Tensor) and each.requires_grad for each in pair)
            if tensors and pair[0].dim() > 1 and (pair[1].dim() == 0 or pair[1].shape == pair[0].shape[:1]):
                found.append(name)

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(seen(name))
    at.program.loss(model, batch)
    return sorted(set(found))


@operator("forgotten", "term-missing", "loss-sign", "unused", "no-gradient")
def side_output_forgotten(s: Setup, at: Site) -> str | None:
    """A part returns one more number, as a logarithm of a determinant or a loss of its own, and nobody adds it."""
    places = _side_outputs(at)
    if not places:
        return None
    name = at.choose.choice(places)

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        features, number = inner(*args, **kwargs)
        return features, torch.zeros_like(number)

    override(s.model.get_submodule(name), forward)
    return f"{name}: x, _ = f(x)"
