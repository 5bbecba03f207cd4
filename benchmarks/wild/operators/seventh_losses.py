"""Held-out mistakes in the call of a loss function and in its targets, the seventh set.

From trackers: labels that the collator shifts and the model shifts once more (huggingface/transformers#47394,
huggingface/transformers#32944, LLM360/amber-train#6), a cross entropy over one output (darioizzo/dcgp#86,
open-mmlab/mmpretrain#714), a mask of whole numbers that is taken for indices (QData/TextAttack#68,
confusius-tools/confusius#196), a logarithm of the wrong factor (HeyLynne/FocalLoss_for_multiclass#3) or around the mean
of probabilities, ``[:, labels]`` for ``[range(n), labels]``, an augmentation that reaches the targets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.wild.operators.fifth_losses import _classified, _left_out
from benchmarks.wild.operators.held_back import ignores
from benchmarks.wild.operators.losses import BINARY, REGRESSION, first_call
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import exchange_loss, exchange_target
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.trace import leaf

IGNORED = -100
NOISE = 0.5  # of the deviation of the targets


@operator("doubled", "target-mismatch", "unsupervised", needs="causal")
def labels_shifted_twice(s: Setup, at: Site) -> str | None:
    """The labels are the next tokens already, and the loss shifts them once more: the token after the next is told."""
    path = told_tokens(at)
    if path is None:
        return None
    rows, length = leaf(s.batch, path).shape
    for number, call in enumerate(at.trace.losses):
        each = call.target.numel() // rows
        fits = call.function == "cross_entropy" and call.grad and not call.target.is_floating_point()
        if not fits or call.target.numel() % rows or each not in (length, length - 1) or each < 3:
            continue

        def shifted(batch: Any, target: Tensor) -> Tensor:
            return F.pad(target.reshape(rows, -1)[:, 1:], (0, 1), value=IGNORED).view_as(target)

        exchange_target(s, number, shifted)
        return "the loss: labels[:, 1:] of labels that are shifted"
    return None


@operator("misplaced", "unsupervised", "term-missing", "batch-mixing", "loss-scale")
def log_outside_of_mean(s: Setup, at: Site) -> str | None:
    """``-p.mean().log()`` for ``-p.log().mean()``: where one sample is certain, the others are hardly told anything."""
    number = _classified(at)
    if number is None or at.trace.losses[number].target.numel() < 2:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        if rest.get("reduction", "mean") != "mean":
            return func(out, target, **rest)  # type: ignore[no-any-return]
        each: Tensor = func(out, target, **{**rest, "reduction": "none"})
        return -(-each[~_left_out(target, rest)]).exp().mean().log()

    exchange_loss(s, number, loss)
    return "the loss: -p.mean().log()"


@operator("swapped", "nonfinite-loss", "nonfinite-gradient", "target-mismatch", "loss-sign")
def log_of_target(s: Setup, at: Site) -> str | None:
    """A cross entropy that is written out is ``p * one_hot.log()``, not ``one_hot * p.log()``: log(0) is no number."""
    if (number := _classified(at)) is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        left_out = _left_out(target, rest)
        one_hot = F.one_hot(target.masked_fill(left_out, 0), out.shape[1]).movedim(-1, 1).to(out.dtype)
        each = (out.softmax(1) * one_hot.log()).sum(1)
        return -each[~left_out].mean()

    exchange_loss(s, number, loss)
    return "the loss: -(p * one_hot.log()).sum(1)"


@operator("swapped", "vacuous", "zero-gradient", "no-update", "unsupervised", "loss-floor")
def cross_entropy_over_one_output(s: Setup, at: Site) -> str | None:
    """A model of one output has a cross entropy for its loss: the softmax over one class is 1, and the loss 0."""
    for number, call in enumerate(at.trace.losses):
        shape = call.output
        fits = call.function in BINARY and call.grad and shape == tuple(call.target.shape)
        if fits and (len(shape) == 1 or shape[1] == 1):

            def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
                one = out.shape if out.dim() > 1 else (len(out), 1)
                return F.cross_entropy(out.view(one), target.to(out.dtype).view(one))

            exchange_loss(s, number, loss)
            return "the loss: cross_entropy over one output"
    return None


@operator("mask", "unsupervised", "term-missing", "target-mismatch")
def mask_indexes_as_numbers(s: Setup, at: Site) -> str | None:
    """``loss[mask]`` with a mask of whole numbers, not of booleans: it picks the first two tokens, again and again."""
    number = _classified(at)
    if number is None or not ignores(at.trace.losses[number].target) or at.trace.losses[number].target.numel() < 4:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        each = func(out, target, **{**rest, "reduction": "none"})
        mask = (~_left_out(target, rest)).long()
        return each.flatten()[mask.flatten()].mean()  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: loss[mask.long()]"


@operator("rows", "target-mismatch", "label-conflict", "loss-floor", "broadcast", "batch-mixing")
def labels_index_all_rows(s: Setup, at: Site) -> str | None:
    """``log_p[:, labels]`` for ``log_p[range(n), labels]``: every sample is told the labels of all."""
    number = _classified(at)
    if number is None or len(at.trace.losses[number].output) != 2:
        return None
    told = at.trace.losses[number].target
    if len(set(told[told >= 0].tolist())) < 2:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        kept = ~_left_out(target, rest)
        return -out[kept].log_softmax(1)[:, target[kept]].mean()

    exchange_loss(s, number, loss)
    return "the loss: log_p[:, labels]"


@operator("place", "batch-changes", "stochastic", "target-mismatch", "loss-floor")
def noise_on_targets_too(s: Setup, at: Site) -> str | None:
    """An augmentation adds noise to all that is in the batch: what is to be told is another number in every step."""
    number = first_call(at, *REGRESSION)
    if number is None or not at.trace.repeats or at.trace.losses[number].target.numel() < 2:
        return None

    def noisy(batch: Any, target: Tensor) -> Tensor:
        return target + NOISE * target.detach().std() * torch.randn_like(target)

    exchange_target(s, number, noisy)
    return "the batch: an augmentation adds noise to the targets too"
