"""Which tensors of the batch the loss compares with, and which it then never reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.wild.operators.operator import Setup, Site
from benchmarks.wild.operators.trace import evaluated, leaf, leaves


def told_tokens(at: Site) -> str | None:
    """The path of the tokens that a loss asks for, as they are or shifted: seeing them beforehand is cheating."""
    targets = [call.target.flatten() for call in at.trace.losses if call.grad and not call.target.is_floating_point()]
    for path, ids in leaves(at.program.batch()):
        if ids.dim() != 2 or ids.is_floating_point():
            continue
        for told in (ids, ids[:, 1:], F.pad(ids, (0, 1), value=-100)[:, 1:]):
            if any(told.numel() == target.numel() and torch.equal(told.flatten(), target) for target in targets):
                return path
    return None


def is_read(s: Setup, path: str, seed: int = 0) -> bool:
    """Whether the loss in evaluation answers to a tensor of the batch; the random generator is where it was."""
    kept = torch.get_rng_state()
    values = []
    for shift in (0.0, 1.0):
        tensor = leaf(s.batch, path)
        before = tensor.clone()
        torch.manual_seed(seed)
        tensor.add_(shift)
        values.append(evaluated(s.loss, s.model, s.batch)[0])
        tensor.copy_(before)
    torch.set_rng_state(kept)
    return values[0] != values[1] or math.isnan(values[0])


def first_target(batch: Any, target: Tensor) -> str | None:
    """The path of the tensor of the batch that is a target as it stands."""
    same = (path for path, each in leaves(batch) if each.shape == target.shape and torch.equal(each, target))
    return next(same, None)
