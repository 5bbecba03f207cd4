"""Which gradients optimizers have applied already, so that it shows where one is applied again."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable

from torch import Tensor
from torch.optim import Optimizer

LOOKED_AT = 3  # gradients of an optimizer by which a step is known again

Mark = tuple[weakref.ref[Tensor], int]  # a gradient, and its version when it was applied


class AppliedGradients:
    """The gradients of the last step of every optimizer, as they were; ``twice`` counts, by the id of a parameter."""

    def __init__(self) -> None:
        self.last: dict[int, list[Mark]] = {}
        self.taken: dict[int, tuple[int, Mark]] = {}  # by the id of a parameter, with the id of its last optimizer
        self.twice: Counter[int] = Counter()

    def again(self, optimizer: Optimizer, *, closure: bool) -> bool | None:
        """Whether a step applies the gradient that the one before has applied, untouched; None: there is none before.

        A closure makes a new one.
        """
        held = [g for group in optimizer.param_groups for p in group["params"] if isinstance(g := p.grad, Tensor)]
        now = [] if closure else held[:: max(1, len(held) // LOOKED_AT)]
        last = self.last.get(id(optimizer), [])
        self.last[id(optimizer)] = [(weakref.ref(g), g._version) for g in now]
        if not now or not last:
            return None
        return len(now) == len(last) and all(map(_is_untouched, now, last))

    def by_another(self, optimizer: Optimizer, held: Iterable[Tensor]) -> None:
        """Counts the parameters whose gradient another optimizer has applied already, and nothing has touched since."""
        for p in held:
            if isinstance(g := p.grad, Tensor):
                before = self.taken.get(id(p))
                self.twice[id(p)] += before is not None and before[0] != id(optimizer) and _is_untouched(g, before[1])
                self.taken[id(p)] = id(optimizer), (weakref.ref(g), g._version)


def _is_untouched(gradient: Tensor, mark: Mark) -> bool:
    ref, version = mark
    return ref() is gradient and gradient._version == version
