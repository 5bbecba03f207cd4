"""Where a tensor comes from: is it a tensor of the batch, or one that was turned or shifted on the way?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.questions.tensors import dense_tensors

MOST = 200_000
LEAST_LABELS, LEAST_STAYING, BY_CHANCE = 3, 2, 16  # fewer are alike by chance, of so many cases one
MOST_NAMED = 4  # labels
SMALL = (torch.uint8, torch.int8, torch.int16)


def origin_of(batch: Any, tensor: Tensor) -> tuple[str, str]:
    """The key of the batch whose values these are, and what was done to them; empty where there is none, or nothing.

    Example:
        >>> origin_of({"y": torch.tensor([[0.1, 0.2], [0.3, 0.4]])}, torch.tensor([[0.2, 0.1], [0.4, 0.3]]))
        ('y', 'with its last axis in reverse order')
    """
    if tensor.numel() < 3 or tensor.numel() > MOST:
        return "", ""
    alike = [(key, held) for key, held in dense_tensors(batch) if held.is_complex() == tensor.is_complex()]
    for key, held in alike:
        if held is tensor or (held.numel() == tensor.numel() and _same(held.reshape(-1), tensor.reshape(-1))):
            return key, ""
    for key, held in alike if not tensor.is_complex() else ():
        if held.numel() == tensor.numel() and held.dim() and (turned := _turned(held, tensor) or _cast(held, tensor)):
            return key, turned
    return "", ""


def relabelled(batch: Any, target: Tensor, scores: Tensor, ignored: int) -> tuple[str, str]:
    """The key of the batch whose labels a loss takes for others, and which; empty where it takes them as they are.

    Either several labels are one to it, though its scores have a place for each, or it takes for a label what the
    scores themselves say.

    Args:
        target: class ids (N, ...), which no tensor of the batch has as they are.
        scores: what they are held against (N, C, ...).

    Example:
        >>> labels = torch.tensor([0, 1, 2, 3])
        >>> relabelled({"y": labels}, labels.clamp(max=1), torch.zeros(4, 4), -100)
        ('y', 'with labels 1, 2, 3 taken for 1')
    """
    if scores.dim() < 2 or target.numel() < LEAST_LABELS or target.numel() > MOST:
        return "", ""
    flat, classes = target.reshape(-1).long(), scores.shape[1]
    answers = scores.argmax(1).reshape(-1)
    counts = flat != ignored
    for key, held in dense_tensors(batch):
        if held.is_floating_point() or held.is_complex() or held.numel() != flat.numel() or held.device != flat.device:
            continue
        labels = held.reshape(-1).long()
        if not bool((counts & (labels != flat)).any()) or not bool(((labels >= 0) & (labels < classes))[counts].all()):
            continue
        asked = labels[counts], flat[counts]
        if how := _merged(*asked) or _answered(*asked, answers[counts], classes):
            return key, how
    return "", ""


def _merged(labels: Tensor, taken: Tensor) -> str:
    """Which labels are taken for one that stays: the others stay too, and are two at least with it."""
    pairs = torch.unique(torch.stack((labels, taken)), dim=1)
    before, after = pairs.tolist()
    stay = {a for a, b in zip(before, after, strict=True) if a == b}
    if len(set(before)) < len(before) or len(stay) < LEAST_STAYING or set(after) != stay:
        return ""
    one = next(b for a, b in zip(before, after, strict=True) if a != b)
    merged = [str(a) for a, b in zip(before, after, strict=True) if b == one]
    return f"with labels {', '.join(merged[:MOST_NAMED])}{', ...' if len(merged) > MOST_NAMED else ''} taken for {one}"


def _answered(labels: Tensor, taken: Tensor, answers: Tensor, classes: int) -> str:
    """At how many places the answer of a model that has not learnt the others yet stands for the label."""
    other = labels != taken
    count = int(other.sum())
    unlikely = classes**count >= BY_CHANCE
    if (
        count < 2
        or not unlikely
        or not bool((taken == answers)[other].all())
        or bool((labels == answers)[~other].all())
    ):
        return ""
    return f"with {count} of {len(labels)} labels replaced by the model's own answers"


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and bool(torch.equal(a.to(b.dtype), b))


def _cast(held: Tensor, tensor: Tensor) -> str:
    """Whether another type has taken the fractions away, beyond a yes or no, or what is too large for it."""
    flat, other = held.detach().reshape(-1), tensor.detach().reshape(-1)
    if held.is_floating_point() and tensor.is_floating_point():
        cut = any(_same(change(flat), other) for change in (torch.trunc, torch.floor, torch.round))
        return "cut to whole numbers" if cut and float(other.abs().max()) > 1 else ""
    if held.is_floating_point() or tensor.is_floating_point() or torch.bool in (held.dtype, tensor.dtype):
        return ""
    small = next((dtype for dtype in SMALL if _same(flat.to(dtype).long(), other)), None)
    return "" if small is None else f"cast to {str(small).removeprefix('torch.')}, which is too small for it"


def _turned(held: Tensor, tensor: Tensor) -> str:
    if held.dim() >= 2 and held.shape == tensor.shape:
        if 2 <= held.shape[-1] <= 4 and _same(held.flip(-1), tensor):
            return "with its last axis in reverse order"
        if held.shape[-1] == held.shape[-2] > 2 and held.dim() >= 3 and _same(held.transpose(-1, -2), tensor):
            return "with its last two axes exchanged"
    if not held.is_floating_point() and not tensor.is_floating_point():
        flat, other = held.reshape(-1).long(), tensor.reshape(-1).long()
        differences = torch.unique(other - flat)
        classes = int(flat.max()) + 1
        wraps = len(differences) == 2 and int(differences[1] - differences[0]) >= 2 and bool((flat >= 0).all())
        if wraps and int(differences[1] - differences[0]) == max(classes, int(other.max()) + 1):
            step = int(differences[1]) if 0 < int(differences[1]) <= classes // 2 else int(differences[0])
            return f"shifted by {step:+d} class{'es' if abs(step) > 1 else ''}, the last wrapped around"
    return ""
