"""Which tensors of any batch does the loss answer to, and which of them reach it through the model?"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors.asking import Questions, Refused
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.elements import dressed, is_strided, numbers_of
from pytest_overfit.run.loss_call import Answer, LossCall, exchanged
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.untrusted.objects import contents, is_a

IGNORED = -100  # the label that torch's cross entropy leaves out
PAIR = 2  # an input and its target
MOST_TENSORS = 8  # of a batch: each costs one forward pass
TARGET_NAMES = frozenset(
    {"y", "label", "labels", "target", "targets", "tgt", "gt", "ground_truth", "truth", "answer", "answers"}
)


def probe_influence(call: LossCall, questions: Questions) -> Supervision:
    """Perturbs one tensor of the batch at a time and measures how each loss term answers.

    The user's loss is called once for the batch as it is and once per tensor, at most ``MOST_TENSORS`` of them; where
    there is no loss, the user's train step is, and everything is put back after each call.

    Raises:
        Exception: whatever the user's code raises of the batch as it is: the run would raise it too.
    """
    batch = call.task.batch
    named = list(named_tensors(batch))
    if not named:
        return Supervision({}, (), note="the batch holds no tensor")
    sound = call.as_the_run_does(batch)
    if not all(map(math.isfinite, sound[1].values())):
        return Supervision({}, (), note="the loss is not finite from the start", finite=False)
    answered = questions.ask(
        "what the loss answers to", lambda: _answers(call, named, sound, call.predicted), otherwise=None
    )
    padding = questions.ask(
        "whether the loss reads padding", lambda: _padding_read(batch, sound[1], call.answer), otherwise=0
    )
    found = answered or Supervision({}, (), targets=tuple(targets_of(batch)))
    return replace(found, padding=padding)


def _answers(call: LossCall, named: Sequence[tuple[str, Tensor]], sound: Answer, predicted: int | None) -> Supervision:
    """Of every tensor; ``predicted`` of the outputs stood before the first update."""
    batch, (outputs, base) = call.task.batch, sound
    answers: dict[str, dict[str, float]] = {}
    inputs, fed, unread, skipped = [], set(), [], []
    for key, tensor in named[:MOST_TENSORS]:
        changed = perturbed(tensor)
        if changed is None:
            skipped.append(key)
            continue
        other = exchanged(batch, {id(tensor): changed})
        try:
            moved, terms = call.answer(other)
        except Refused:  # what refuses another value has read it
            answers[key] = dict.fromkeys(base, math.inf)
            continue
        answers[key] = {name: _gap(value, terms[name]) for name, value in base.items() if name in terms}
        if still := not any(answers[key].values()):
            answers[key] |= call.turns(other)
        reaches_output = not _same_outputs(outputs, moved)
        # Where the loss calls parts of a model, or outputs are flat, only its layers tell.
        if reaches_output or ((not outputs or (still and any(answers[key].values()))) and call.feeds(other)):
            inputs.append(key)
            if not reaches_output or predicted is None or not _same_outputs(outputs[:predicted], moved[:predicted]):
                fed.add(key)
        elif not any(answers[key].values()):
            unread.append(key)
    left_out = [key for key, _ in named[MOST_TENSORS:]] + skipped
    note = f"not perturbed: {', '.join(left_out)}" if left_out else None
    targets = tuple(key for key in targets_of(batch) if key not in fed or is_called_target(key))
    return Supervision(answers, (), inputs=tuple(inputs), unread=tuple(unread), targets=targets, note=note)


def _padding_read(batch: Any, base: dict[str, float], other: Callable[[Any], Answer]) -> int:
    """How many labels stand under an ``attention_mask`` of 0 and are read by the loss all the same.

    They get the label of a token that counts; a loss that leaves them out does not notice.
    """
    mask, labels = (batch.get(key) if isinstance(batch, Mapping) else None for key in ("attention_mask", "labels"))
    if not (isinstance(mask, Tensor) and isinstance(labels, Tensor)) or mask.shape != labels.shape:
        return 0
    if labels.is_floating_point() or isinstance(batch.get("decoder_input_ids"), Tensor):
        return 0
    padded = (mask == 0) & (labels != IGNORED)
    real = labels[(mask != 0) & (labels != IGNORED)]
    others = real[real != labels[padded][0]] if padded.any() else real[:0]
    if not others.numel():
        return 0
    changed = torch.where(padded, others[0], labels)
    answer, name = other(exchanged(batch, {id(labels): changed}))[1], "objective"
    return int(padded.sum()) if _gap(base[name], answer.get(name, base[name])) > 1e-6 * abs(base[name]) else 0


def without(supervision: Supervision, keys: Collection[str]) -> Supervision:
    """The answers to the tensors of a batch but for some of them."""
    if not keys:
        return supervision
    kept = {key: answer for key, answer in supervision.answers.items() if key not in keys}
    inputs, unread, targets = (
        tuple(key for key in found if key not in keys)
        for found in (supervision.inputs, supervision.unread, supervision.targets)
    )
    return replace(supervision, answers=kept, inputs=inputs, unread=unread, targets=targets)


def perturbed(tensor: Tensor) -> Tensor | None:
    """Clearly another tensor whose elements are still allowed ones. None where there is none that is sure to be.

    Its own elements one place on, every third one the largest or the smallest: another order alone would leave a mean
    over balanced labels as it is. Of whole numbers it is the commonest or the second: the largest may be the label of
    what is left out. Where they are all alike, numbers are shrunk by a tenth, or raised where they are zero, and a
    third of a mask is flipped; whole numbers (labels, lengths) have no other value then.
    """
    plain = numbers_of(tensor) if is_strided(tensor) else None
    if plain is None or plain.numel() == 0:
        return None
    flat = plain.reshape(-1)
    changed = flat.roll(1)
    if plain.dtype is torch.bool:
        changed[::3] ^= True
    elif not torch.equal(changed, flat):
        if plain.is_floating_point():
            changed[::3] = torch.where(changed[::3] == flat.max(), flat.min(), flat.max())
        elif not plain.is_complex():
            one, other = _commonest(flat)
            changed[::3] = torch.where(flat[::3] == one, other, one)
            if torch.equal(changed.long().sum(), flat.long().sum()):
                changed[1] = other if changed[1] == one else one
        if torch.equal(changed, flat):  # by chance, as [0, 1, 1] may: then another order alone
            changed = flat.roll(1)
    elif plain.is_floating_point() or plain.is_complex():
        changed = torch.where(flat == 0, 0.1, flat * 0.9).to(flat.dtype)
    else:
        return None
    changed = dressed(changed.reshape(plain.shape).to(tensor.dtype), tensor)
    return changed.requires_grad_() if tensor.requires_grad else changed


def _commonest(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The two whole numbers that occur most often, of several the smaller ones; there are two."""
    values, counts = torch.unique(flat.long(), return_counts=True)
    values = values[counts.argsort(descending=True, stable=True)].to(flat.dtype)
    return values[0], values[1]


def targets_of(batch: Any) -> Iterator[str]:
    """The tensors of a batch that are targets by their place or name: the second of a pair, what is called one."""
    parts = contents(batch) if is_a(batch, tuple, list) else []
    if len(parts) == PAIR:
        if is_a(parts[1], Tensor):
            yield "1"
        return
    for key, _ in named_tensors(batch):
        if is_called_target(key):
            yield key


def is_called_target(key: str) -> bool:
    """Whether a tensor has a target's name, and not only its place; of a pair of two views both are inputs."""
    return key.rpartition(".")[2].lower() in TARGET_NAMES


def _same_outputs(a: Sequence[tuple[str, Tensor]], b: Sequence[tuple[str, Tensor]]) -> bool:
    """Whether what the models returned is the same; a loss that the model returns itself is no prediction."""
    first = [(name, tensor) for name, tensor in a if tensor.numel() > 1]
    second = [(name, tensor) for name, tensor in b if tensor.numel() > 1]
    return len(first) == len(second) and all(
        name == other and tensor.shape == twin.shape and bool(torch.equal(tensor, twin))
        for (name, tensor), (other, twin) in zip(first, second, strict=True)
    )


def _gap(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b) if math.isfinite(a - b) else math.inf
