"""Which numbers may be infinite: a mask or a bound that is so from the start, and what is declared."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Infinities:
    """Judges the outputs of a run, step after step.

    Infinite from the first step on, in the same places, are masked scores (minus infinity) and bounds (what has no
    gradient): that is how they were made. Anything else that is not finite has gone wrong.

    Args:
        declared: globs over outputs, terms, parameters and buffers that may be anything.
    """

    def __init__(self, declared: Sequence[str] = ()) -> None:
        self.declared = tuple(declared)
        self._meant: dict[str, Tensor | None] = {}  # by output: where it was infinite when it was first seen

    def excepts(self, name: str) -> bool:
        """Whether somebody has declared that this place is not judged."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.declared)

    def is_sound(self, name: str, output: Tensor) -> bool:
        """Whether an output is finite, but for what is meant. A host-device sync.

        A sum is the cheapest look at a tensor on the CPU; only one that overflows needs a second.
        """
        flat = output.detach()
        if math.isfinite(flat.sum(dtype=torch.float32).item()) or bool(torch.isfinite(flat).all()):
            self._meant.setdefault(name, None)
            return True
        if self.excepts(name):
            return True
        if name not in self._meant:
            scores, wild = output.requires_grad, flat.isneginf() if output.requires_grad else flat.isinf()
            self._meant[name] = None if scores and bool(wild.all()) else wild
        return bool(self._finite(name, flat))

    @torch.no_grad()
    def states(self, outputs: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """A number of each output on its device that is finite where the output is sound: one operation for most."""
        plain = [t for name, t in outputs if t.numel() and self._meant.get(name) is None and not self.excepts(name)]
        sizes = dict(zip(map(id, plain), torch._foreach_norm(plain, torch.inf) if plain else (), strict=True))
        return [sizes[id(t)] if id(t) in sizes else self._state(name, t) for name, t in outputs]

    def _state(self, name: str, output: Tensor) -> Tensor:
        if self.excepts(name) or not output.numel():
            return output.new_zeros(())
        return torch.where(self._finite(name, output), 0.0, torch.nan)

    def _finite(self, name: str, flat: Tensor) -> Tensor:
        meant = self._meant.get(name)
        if meant is None or meant.shape != flat.shape:
            return torch.isfinite(flat).all()
        return (torch.isfinite(flat) | (meant & flat.isinf())).all()
