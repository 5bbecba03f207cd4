"""What a bug of the gallery is: a healthy family, one mistake, and the causes that count as right."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.gallery.families import FAMILIES
from benchmarks.zoo.case import Setup

Kind = Literal["breaking", "silent"]


@dataclass(frozen=True)
class Bug:
    """One mistake in a healthy family.

    ``causes`` follow from the mechanism, best first, and never from what a tool answers. ``kind`` is "breaking" where
    a plain loop misses the limit of the family within its budget, "silent" where it meets it. ``where`` says in words
    what a right answer points at. ``shows`` is read off a trained setup where the curve does not tell bug and twin
    apart. ``build`` and ``healthy`` take the seed of the model; the batch does not depend on it.
    """

    name: str
    family: str
    causes: tuple[str, ...]
    kind: Kind
    where: str
    held_out: bool
    build: Callable[[int], Setup]
    healthy: Callable[[int], Setup]
    shows: Callable[[Setup], Any] | None = None

    @property
    def case(self) -> str:
        """What the bug is called in the table of all rows."""
        return f"{self.family}/{self.name}"


def is_held_out(family: str) -> bool:
    """A third of the families, whatever else the gallery holds: no tool may be tuned on them."""
    return zlib.crc32(family.encode()) % 3 == 0


Mistake = Callable[[Setup], Setup]


def breaking(family: str, *causes: str, where: str) -> Callable[[Mistake], Bug]:
    """Makes a function from a healthy setup to a broken one a bug that keeps a plain loop above its limit."""
    return lambda mistake: _bug(mistake, family, causes, "breaking", where, None)


def silent(
    family: str, *causes: str, where: str, shows: Callable[[Setup], Any] | None = None
) -> Callable[[Mistake], Bug]:
    """The same for a mistake that a plain loop does not notice."""
    return lambda mistake: _bug(mistake, family, causes, "silent", where, shows)


def _bug(
    mistake: Mistake,
    family: str,
    causes: tuple[str, ...],
    kind: Kind,
    where: str,
    shows: Callable[[Setup], Any] | None,
) -> Bug:
    healthy = FAMILIES[family]

    def build(seed: int) -> Setup:
        setup = healthy(seed)
        torch.manual_seed(seed)  # a model built anew starts from the weights of its twin
        return mistake(setup)

    return Bug(mistake.__name__, family, causes, kind, where, is_held_out(family), build, healthy, shows)


def parameter_count(setup: Setup) -> int:
    """What a layer that does nothing else changes."""
    model: nn.Module = setup.model
    return sum(parameter.numel() for parameter in model.parameters())
