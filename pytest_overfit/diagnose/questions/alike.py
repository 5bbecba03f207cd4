"""Weights that are the same: units, and copies of a module, that start alike stay alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pytest_overfit.run.elements import is_dense


def rows_alike(parameter: Tensor) -> bool:
    """Whether all rows of a weight are the same."""
    plain = parameter.detach()
    if plain.dim() < 2 or plain.shape[0] < 2 or not torch.equal(plain[0], plain[1]):
        return False
    return bool((plain == plain[:1]).all())


def children_alike(model: nn.Module) -> tuple[str, ...]:
    """The lists of modules of one kind whose weights are identical, and not shared."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            continue
        children = [c for c in module.children() if any(p.dim() > 1 for p in c.parameters())]
        first, *others = [[*c.parameters()] for c in children] or [[]]
        same_kind = others and len({type(c) for c in children}) == 1
        if same_kind and all(_are_copies(first, other) for other in others):
            found.append(name)
    return tuple(found)


def _are_copies(first: list[nn.Parameter], other: list[nn.Parameter]) -> bool:
    return len(first) == len(other) and all(
        a is not b and is_dense(a) and a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(first, other, strict=True)
    )
