"""Settings of parameter groups that are written down and that nobody reads: an ``lr_scale`` without its schedule."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytest_overfit.diagnose.movement import RATE, UnreadSetting
from pytest_overfit.diagnose.questions.parameter_updates import TracedUpdate
from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.snapshot import preserved

OURS = ("params", "initial_lr")  # of torch and of its schedules


def unread_settings(traced: TracedUpdate) -> Iterator[UnreadSetting]:
    """Keys that no optimizer of the kind has, of numbers that differ from group to group.

    Of one of a rate all groups have the same rate in every step that was looked at; of another one they have all else
    the same. Whether the optimizer reads one all the same is tried: its step is made with the number, and another one.
    """
    for optimizer in traced.kept:
        rates = {tuple(seen.rates) for seen in traced.groups.values() if seen.optimizer is optimizer}
        if len(rates) == 1:
            yield from _of_one_rate(optimizer)


def _of_one_rate(optimizer: Optimizer) -> Iterator[UnreadSetting]:
    groups = optimizer.param_groups
    keys = {key for group in groups for key in group if key not in (*OURS, *optimizer.defaults)}
    for key in sorted(key for key in keys if isinstance(key, str)):
        values = [group.get(key, 0.0) for group in groups]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) or len(set(values)) < 2:
            continue
        if not any(isinstance(v, float) for v in values):
            continue  # an index, or a depth: the name of a group
        rest = [{k: v for k, v in group.items() if k not in (*OURS, *keys)} for group in groups]
        same = RATE.search(key) is not None or all(repr(each) == repr(rest[0]) for each in rest)
        if same and not _is_read(optimizer, key):
            yield UnreadSetting(type(optimizer).__name__, key, tuple(map(float, values)))


def _is_read(optimizer: Optimizer, key: str) -> bool:
    """Whether a step is another one with another number under a key; what cannot be stepped counts as read."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    first = [next((p for p in group["params"] if is_real(p)), None) for group in optimizer.param_groups]
    tried = [p for p in first if p is not None]
    before, gradients = [p.detach().clone() for p in tried], [p.grad for p in held]

    def stepped(change: float) -> list[Tensor]:
        with preserved(optimizer), torch.no_grad(), users_code():
            for p in held:
                p.grad = None
            for p in tried:
                p.grad = torch.ones_like(p)
            for group in optimizer.param_groups:
                group[key] = group.get(key, 0.0) + change
            optimizer.step()
            moved = [p.detach().clone() for p in tried]
            torch._foreach_copy_([p.detach() for p in tried], before)
            return moved

    try:
        return any(not torch.equal(a, b) for a, b in zip(stepped(0.0), stepped(1.0), strict=True))
    except Refused:
        return True
    finally:
        for p, gradient in zip(held, gradients, strict=True):
            p.grad = gradient
        with torch.no_grad():
            for p, old in zip(tried, before, strict=True):
                p.copy_(old)
