"""Mistakes in the call of a loss function: its axes, rows, arguments, targets, masks and scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import exchange_loss, exchange_target, on_output
from benchmarks.wild.operators.targets import first_target, is_read
from benchmarks.wild.operators.trace import LossCall, leaf, leaves


def first_call(at: Site, *functions: str) -> int | None:
    """The number of the first call with a graph of one of these functions, by default of any."""
    for number, call in enumerate(at.trace.losses):
        if call.grad and (not functions or call.function in functions):
            return number
    return None


def paired_rows(at: Site, *functions: str) -> tuple[int, int] | None:
    """The first call whose output and target have the same number of rows, at least two, and that number."""
    number = first_call(at, *functions)
    if number is None:
        return None
    call = at.trace.losses[number]
    count = call.output[0] if call.output else 0
    return (number, count) if count >= 2 and call.target.dim() and call.target.shape[0] == count else None


def _classes(call: LossCall) -> bool:
    """Whether it is cross entropy over (N, C) with whole numbers as targets."""
    return call.function == "cross_entropy" and len(call.output) == 2 and not call.target.is_floating_point()


REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
BINARY = ("binary_cross_entropy_with_logits",)


@operator("doubled", "double-activation")
def softmax_doubled(s: Setup, at: Site) -> str | None:
    """Cross entropy gets what a softmax has already been applied to."""
    if (number := first_call(at, "cross_entropy")) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: func(out.softmax(1), target, **rest))
    return "the loss: softmax before cross_entropy"


@operator("doubled", "double-activation")
def sigmoid_doubled(s: Setup, at: Site) -> str | None:
    """The loss on logits gets what a sigmoid has already been applied to."""
    if (number := first_call(at, *BINARY)) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: func(out.sigmoid(), target, **rest))
    return "the loss: sigmoid before binary_cross_entropy_with_logits"


@operator("swapped", "loss-sign", "target-mismatch")
def binary_arguments_swapped(s: Setup, at: Site) -> str | None:
    """The target is given as logits, and the logits as target."""
    if (number := first_call(at, *BINARY)) is None:
        return None
    exchange_loss(s, number, lambda func, out, target, **rest: func(target, out, **rest))
    return "the loss: arguments of binary_cross_entropy_with_logits"


@operator("swapped", "target-mismatch", "unsupervised", "term-missing")
def target_is_another_input(s: Setup, at: Site) -> str | None:
    """The output is compared with another tensor of the batch that has the target's shape."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    wanted = at.trace.losses[number].target
    if (right := first_target(s.batch, wanted)) is None:
        return None
    others = [
        path
        for path, each in leaves(s.batch)
        if each.shape == wanted.shape and each.is_floating_point() and not torch.equal(each, wanted)
    ]
    if not others:
        return None
    exchange_target(s, number, lambda batch, target: leaf(batch, others[0]))
    if is_read(s, right):  # what is an input as well may be left out as a target: noise or signal, say
        return None
    return f"the loss: compared with batch{others[0]}"


@operator("axis", "batch-mixing", "target-mismatch")
def classes_over_batch(s: Setup, at: Site) -> str | None:
    """The loss normalises over the samples in place of the classes."""
    if (found := paired_rows(at, "cross_entropy")) is None or not _classes(at.trace.losses[found[0]]):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return F.nll_loss(F.log_softmax(out, dim=0), target, ignore_index=rest.get("ignore_index", -100))

    exchange_loss(s, found[0], loss)
    return "the loss: log_softmax over dim 0"


@operator("axis", "batch-mixing", "target-mismatch")
def viewed_for_permuted(s: Setup, at: Site) -> str | None:
    """The output (N, C) is reshaped to (C, N) where it should be permuted, on its way into the loss."""
    found = paired_rows(at)
    if found is None or len(at.trace.losses[found[0]].output) < 2 or at.trace.losses[found[0]].output[1] < 2:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        mixed = out.reshape(out.shape[1], out.shape[0], *out.shape[2:]).transpose(0, 1)
        return func(mixed, target, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, found[0], loss)
    return "the loss: reshape(C, N) for permute"


@operator("axis", "broadcast", "target-mismatch", "batch-mixing")
def broadcast_against_target(s: Setup, at: Site) -> str | None:
    """The output (N, 1, ...) is compared with the target (N, ...): every sample with every other."""
    if (found := paired_rows(at, *REGRESSION)) is None:
        return None
    exchange_loss(s, found[0], lambda func, out, target, **rest: (out.unsqueeze(1) - target).square().mean())
    return "the loss: (N, 1, ...) against (N, ...)"


@operator("rows", "target-mismatch", "batch-changes", "stochastic")
def targets_shuffled(s: Setup, at: Site) -> str | None:
    """The targets are shuffled in every step, the inputs are not."""
    if (found := paired_rows(at)) is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out, target[torch.randperm(len(target))], **rest)  # type: ignore[no-any-return]

    exchange_loss(s, found[0], loss)
    return "the loss: target[randperm(N)]"


@operator("rows", "target-mismatch", "unsupervised", "term-missing")
def first_target_for_all(s: Setup, at: Site) -> str | None:
    """Every sample is compared with the target of the first."""
    if (found := paired_rows(at)) is None:
        return None
    exchange_loss(s, found[0], lambda func, out, target, **rest: func(out, target[:1].expand_as(target), **rest))
    return "the loss: target[:1] for all rows"


@operator("rows", "unsupervised", "term-missing")
def second_half_ignored(s: Setup, at: Site) -> str | None:
    """The loss reads the first half of the rows."""
    if (found := paired_rows(at)) is None:
        return None
    half = found[1] // 2
    exchange_loss(s, found[0], lambda func, out, target, **rest: func(out[:half], target[:half], **_part(rest, half)))
    return f"the loss: rows {half} and later are not read"


@operator("rows", "unsupervised", "term-missing")
def last_row_ignored(s: Setup, at: Site) -> str | None:
    """The loss reads all rows but the last, as range(len(x) - 1) does."""
    if (found := paired_rows(at)) is None:
        return None
    end = found[1] - 1
    exchange_loss(s, found[0], lambda func, out, target, **rest: func(out[:end], target[:end], **_part(rest, end)))
    return f"the loss: row {end} is not read"


@operator("rows", "unsupervised", "term-missing", "wrong-backward")
def rows_detached(s: Setup, at: Site) -> str | None:
    """The second half of the rows counts in the loss and gives no gradient."""
    if (found := paired_rows(at)) is None:
        return None
    half = found[1] // 2

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(torch.cat([out[:half], out[half:].detach()]), target, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, found[0], loss)
    return f"the loss: rows {half} and later are detached"


def _part(rest: dict[str, Any], end: int) -> dict[str, Any]:
    """Weights of rows are cut with them."""
    weight = rest.get("weight")
    if not isinstance(weight, Tensor) or not weight.dim() or not weight.is_floating_point() or weight.shape[0] <= end:
        return rest
    return {**rest, "weight": weight[:end]}


@operator("rows", "unsupervised", "term-missing")
def class_ignored(s: Setup, at: Site) -> str | None:
    """One class of the targets has the weight 0."""
    number = first_call(at, "cross_entropy")
    if number is None or not _classes(call := at.trace.losses[number]):
        return None
    there = sorted({int(each) for each in call.target.flatten() if 0 <= int(each) < call.output[1]})
    if len(there) < 2:
        return None
    ignored = at.choose.choice(there)

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        weight = torch.ones(out.shape[1], dtype=out.dtype)
        weight[ignored] = 0.0
        return func(out, target, **{**rest, "weight": weight})  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return f"the loss: class {ignored} has the weight 0"


@operator("mask", "vacuous", "loss-clamped")
def loss_mask_empty(s: Setup, at: Site) -> str | None:
    """The mask of the loss selects nothing, and its sum is clamped to 1 before the division."""
    if len(at.trace.losses) != 1 or (number := first_call(at)) is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        value = func(out, target, **{**rest, "reduction": "none"})
        valid = torch.zeros_like(value)
        return (value * valid).sum() / valid.sum().clamp(min=1)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: an empty mask"


@operator("scale", "loss-scale")
def loss_divided(s: Setup, at: Site) -> str | None:
    """The mean is divided by the number of elements once more."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return at.program.loss(model, batch) / count

    count = max((tensor.numel() for _, tensor in leaves(s.batch)), default=1)
    s.loss = loss
    return f"the loss: divided by {count}"


@operator("scale", "target-scale", counts=BREAKING)
def targets_in_millimetres(s: Setup, at: Site) -> str | None:
    """The targets are a thousand times what they should be."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    wanted = at.trace.losses[number].target
    for path, tensor in leaves(s.batch):
        if path not in at.trace.inputs and tensor.shape == wanted.shape and torch.equal(tensor, wanted):
            tensor.mul_(1000)
            return f"batch{path}: x 1000"
    return None


@operator("place", "output-range", "saturation", "loss-floor")
def output_activated(s: Setup, at: Site) -> str | None:
    """A sigmoid follows the last layer of a regression whose targets are not between 0 and 1."""
    number = first_call(at, *REGRESSION)
    if (
        number is None
        or 0 <= float(at.trace.losses[number].target.min()) <= float(at.trace.losses[number].target.max()) <= 1
    ):
        return None
    places = at.trace.places(lambda call: call.graph and call.went == at.trace.losses[number].output and call.below > 0)
    if not places:
        return None
    on_output(s.model.get_submodule(places[-1].name), torch.sigmoid)
    return f"{places[-1].name}: a sigmoid behind it"


def _next_tokens(at: Site) -> tuple[int, str, int] | None:
    """The call of cross entropy whose targets are the next tokens, the tokens' path, and how many targets a row has."""
    number = first_call(at, "cross_entropy")
    if number is None:
        return None
    target = at.trace.losses[number].target.flatten()
    for path, ids in leaves(at.program.batch()):
        if ids.dim() != 2 or ids.is_floating_point():
            continue
        for shifted in (ids[:, 1:], F.pad(ids, (0, 1), value=-100)[:, 1:]):
            if target.numel() == shifted.numel() and torch.equal(target, shifted.flatten()):
                return number, path, shifted.shape[1]
    return None


@operator("forgotten", "leak", "target-mismatch", needs="causal ids")
def shift_forgotten(s: Setup, at: Site) -> str | None:
    """The targets are the tokens at the same place, not the next ones."""
    if (found := _next_tokens(at)) is None:
        return None
    number, path, length = found
    exchange_target(s, number, lambda batch, target: leaf(batch, path)[:, :length].reshape(target.shape))
    return f"the loss: batch{path} without a shift"


@operator("misplaced", "target-mismatch", "leak", needs="causal ids")
def shift_to_the_past(s: Setup, at: Site) -> str | None:
    """The targets are shifted the wrong way: every token predicts the one before it, which it has seen."""
    if (found := _next_tokens(at)) is None:
        return None
    number, path, length = found

    def past(batch: Any, target: Tensor) -> Tensor:
        return F.pad(leaf(batch, path), (1, 0), value=-100)[:, :length].reshape(target.shape)

    exchange_target(s, number, past)
    return f"the loss: batch{path} shifted the wrong way"
