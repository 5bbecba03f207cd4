"""Moves, by output feature: whole parts of a layer that no gradient reaches, beside others that learn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_overfit.diagnose.movement import IdleRows
from pytest_overfit.run.elements import is_dense

LEAST = 4  # features of a part: units of ReLUs die alone, and not in runs that begin and end at its multiples


class FeatureGradients:
    """Which output features of the weights of layers have had a gradient in the steps that were looked at."""

    def __init__(self, model: nn.Module) -> None:
        self.axes = {id(weight): axis for weight, axis in _weights(model)}
        self.reached: dict[int, Tensor] = {}

    def seen(self, held: Iterable[Tensor]) -> None:
        """An optimizer is about to step."""
        for p in held:
            axis = self.axes.get(id(p))
            if axis is not None and p.shape[axis] >= 2 * LEAST and isinstance(p.grad, Tensor) and is_dense(p.grad):
                reached = (p.grad.detach().movedim(axis, 0) != 0).flatten(1).any(1)
                self.reached[id(p)] = self.reached[id(p)].logical_or(reached) if id(p) in self.reached else reached

    def idle(self, names: Mapping[int, str]) -> Iterator[IdleRows]:
        """The weights of which whole parts were never reached: runs that begin and end at multiples of one length."""
        for key, reached in self.reached.items():
            idle = [not row for row in reached.tolist()]
            edges = [row for row in range(1, len(idle)) if idle[row] != idle[row - 1]]
            unit = math.gcd(len(idle), *edges)
            if edges and unit >= LEAST and key in names:
                runs = [(first, last) for first, last in _runs(edges, len(idle)) if idle[first]]
                yield IdleRows(names[key], len(idle), sum(idle), runs[0], unit)


def _runs(edges: list[int], length: int) -> list[tuple[int, int]]:
    """The first and the last place of every run."""
    return [(first, behind - 1) for first, behind in zip([0, *edges], [*edges, length], strict=True)]


def _weights(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """The weights of layers, and their axis of output features."""
    for module in model.modules():
        features = getattr(module, "out_features", None) or getattr(module, "out_channels", None)
        weight, axis = getattr(module, "weight", None), 0
        if isinstance(module, nn.MultiheadAttention):
            features, weight = 3 * module.embed_dim, module.in_proj_weight
        elif features is None and (features := getattr(module, "nf", None)) is not None:  # GPT's Conv1D
            axis = 1
        if not isinstance(weight, nn.Parameter) or is_lazy(weight):
            continue
        if weight.dim() > 1 and weight.shape[axis] == features:
            yield weight, axis
