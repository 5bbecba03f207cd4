"""Slopes of the reported objective beside the gradients that reach the optimizers, as plain numbers; no torch."""

from __future__ import annotations

from dataclasses import dataclass

CLOSE = 0.2  # of a slope: finite differences of float32, a loss that is curved
UNEQUAL = 1.2  # factors of two samples of one batch: no rounding
FLAT = 0.02  # of a gradient: a slope that is none, under rounding, argmax and other steps


@dataclass(frozen=True)
class Slope:
    """The slope along a direction: by a gradient, and by finite differences.

    ``blind``: the gradient is there, and as large, for a derivative of zero as well: a backward that ignores what it is
    given. ``ratio``: of gradient over slope, where it is the same in every direction that was tried. ``elsewhere``:
    some outputs have no gradient at all, as by a stop-gradient that is written, and the others have their whole one.
    """

    where: str
    gradient: float
    measured: float
    blind: bool = False
    ratio: float | None = None
    elsewhere: bool = False

    @property
    def agrees(self) -> bool:
        return abs(self.gradient - self.measured) <= CLOSE * max(abs(self.gradient), abs(self.measured))

    @property
    def is_flat(self) -> bool:
        """Whether there is a gradient where nothing slopes: a straight-through estimator, which is meant."""
        return abs(self.measured) < FLAT * abs(self.gradient)


@dataclass(frozen=True)
class Agreement:
    """Does what reaches the optimizers agree with the slope of the objective that a step of the user's reports?

    ``slopes`` has one of every optimizer that steps, along its own gradient; ``elsewhere`` is one along a
    random direction, of all or of one module, along which gradient and objective differ; ``functions`` has those of
    autograd functions in the graph that are not torch's. ``differentiated`` is the sum of what was, in one step,
    ``backwards`` how often; ``again``: something of it twice. ``regrouped`` is the largest over the smallest factor by
    which the weight of a sample in the gradient changes where it stands in another micro-batch; None: there are none,
    or samples are no summands of the loss. ``scaled``: by what a GradScaler has multiplied what was differentiated.
    ``micro_batches``: so many calls of a model have the samples between them; 0 where each has all.
    """

    reported: float = 0.0
    slopes: tuple[Slope, ...] = ()
    elsewhere: Slope | None = None
    functions: tuple[Slope, ...] = ()
    differentiated: float = 0.0
    backwards: int = 1
    again: bool = False
    clipped: bool = False
    regrouped: float | None = None
    scaled: float = 1.0
    micro_batches: int = 0

    @property
    def agrees(self) -> bool:
        """Whether an optimizer follows the whole of the reported objective, or none could be asked."""
        return self.elsewhere is None and (not self.slopes or any(slope.agrees for slope in self.slopes))

    @property
    def opposes(self) -> bool:
        """Whether the objective climbs wherever an optimizer is led."""
        return bool(self.slopes) and all(s.measured < 0 and not s.is_flat for s in self.slopes)

    @property
    def depends_on_groups(self) -> bool:
        """Whether the same samples have other weights in other micro-batches."""
        return (self.regrouped or 1.0) > UNEQUAL

    @property
    def factor(self) -> float | None:
        """How many times too large the only gradient is; None where nothing says so."""
        only = self.slopes[0] if len(self.slopes) == 1 else None
        return only.gradient / only.measured if only is not None and only.measured > 0 else None


@dataclass(frozen=True)
class BackwardAgain:
    """Has one forward pass one gradient?

    ``drawn`` is how far gradients lie apart where other random numbers are drawn behind the same forward pass, relative
    to their size; ``recomputed`` the module that runs once more on the way back. ``hooked`` has ``hooks`` by now, more
    with every call: with all of them the gradients of ``tensors`` are ``left`` of what they are with those of one call,
    and the objective the second number in place of the first.
    """

    drawn: float = 0.0
    recomputed: str = ""
    tensors: tuple[str, ...] = ()
    hooked: str = ""
    hooks: int = 0
    left: float = 1.0
    objective: tuple[float, float] = (0.0, 0.0)
