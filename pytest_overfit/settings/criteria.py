"""What must hold of a run, as frozen records of plain values: the ``overfit.criteria`` section and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

STOCHASTIC_WINDOW = 25  # steps
# The names that a VGGT-style trainer logs for the three headline limits.
LIMIT_ALIASES = {"loss_objective": "objective", "loss_camera": "camera", "loss_depth": "depth"}


@dataclass(frozen=True)
class Limit:
    """What a term has to reach: below one number, above another, or both.

    ``relative`` compares with the term's start instead (0.05: a twentieth of it; the start must be above zero).
    ``window`` compares the mean over that many latest steps, and over the first as many for the start.
    ``stated`` is False for a default that nobody has chosen for this loss.

    Example:
        >>> Limit(below=0.05, relative=True).text(), Limit(above=0.99).text()
        ('< 0.05 of its start', '> 0.99')
    """

    below: float | None = None
    above: float | None = None
    relative: bool = False
    window: int = 1
    stated: bool = field(default=True, compare=False)

    def text(self) -> str:
        """The limit as a message shows it."""
        bounds = (("<", self.below), (">", self.above))
        shown = " and ".join(f"{sign} {value:.4g}" for sign, value in bounds if value is not None)
        mean = f", mean of {self.window} steps" if self.window > 1 else ""
        return f"{shown}{' of its start' if self.relative else ''}{mean}"

    def measure(self, curve: Sequence[float], end: int) -> float:
        """What is compared after step ``end`` (from 1) of a curve: a value or mean, or its share of the start."""
        value = _mean(curve[max(0, end - self.window) : end])
        if not self.relative:
            return value
        start = _mean(curve[: self.window])
        return value / start if start > 0 else math.nan

    def holds(self, measured: float) -> bool:
        """Whether a measured value is within the bounds; a NaN never is."""
        return (self.below is None or measured < self.below) and (self.above is None or measured > self.above)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


@dataclass(frozen=True)
class Monotonic:
    """The running median over ``window`` steps does not end above its best by more than a ``tolerance`` share.

    A climb that is recovered is told and fails nothing; ``strict`` asks it of every step. A climb by less than a
    ``floor`` share of the fall so far is the noise of a last stretch. Another thread count alone gave a healthy run
    with momentum one of 2.5 %, so for any model the floor is wider than for the two-view recipe.
    """

    window: int = 21
    tolerance: float = 0.25
    floor: float = 0.003
    strict: bool = False


@dataclass(frozen=True)
class Supervised:
    """Every frame has at least a ``min_valid_ratio`` of valid pixels, every target one of elements that the loss reads.

    Elements that the data themselves mark as left out (a label of -100, padding, a mask) do not count as elements.
    """

    min_valid_ratio: float = 0.05
    min_target_ratio: float = 0.25


@dataclass(frozen=True)
class TrainVal:
    """Evaluation and training loss agree to this relative tolerance."""

    tolerance: float = 0.1


@dataclass(frozen=True)
class Prediction:
    """Limits of the predictions themselves, per frame; None: not judged.

    ``abs_rel``: mean |pred - gt| / gt, at most; ``delta_1_25``: share of pixels within a factor 1.25, at least;
    ``rotation_deg`` and ``translation_deg``: angle errors in degrees, at most.
    """

    abs_rel: float | None = 0.05
    delta_1_25: float | None = 0.95
    rotation_deg: float | None = 1.0
    translation_deg: float | None = 2.0


@dataclass(frozen=True)
class Criteria:
    """``overfit.criteria``: what must hold. None or False: switched off, and not collected as a test.

    ``defects``: no probe finds a mistake that is certain, whatever the loss has reached. ``generates``: a language
    model gives the memorised sequences back, token by token.

    Five are declared exceptions, and show in the report: ``unused`` and ``frozen`` are globs over parameter names that
    get no gradient, or do not move, on purpose; ``unbounded`` says that the objective has no floor, so that its stated
    limit counts although it may be negative; ``stochastic`` that forward passes or draws are random, so that limits
    hold for a windowed mean and draws of the loader may differ; ``allow`` holds ids of causes (docs/causes.md) that are
    meant here.

    Example:
        >>> Criteria(camera=None, terms={"loss_T": Limit(0.001)}).names()[3:6]
        ('gradients', 'objective', 'depth')
    """

    objective: Limit | None = Limit(0.01, stated=False)
    camera: Limit | None = Limit(0.001, stated=False)
    depth: Limit | None = Limit(0.01, stated=False)
    terms: Mapping[str, Limit] = field(default_factory=dict)
    monotonic: Monotonic | None = Monotonic()
    finite: bool = True
    gradients: bool = True
    supervised: Supervised | None = Supervised()
    constant_batch: bool = True
    train_val: TrainVal | None = None
    prediction: Prediction | None = Prediction()
    generates: bool = False
    unused: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    unbounded: bool = False
    stochastic: bool = False
    defects: bool = True
    allow: tuple[str, ...] = ()

    def limits(self) -> dict[str, Limit]:
        """Every term with a limit, by criterion name: objective, camera and depth first; only those that are on.

        Under ``stochastic`` a limit without a window of its own is judged on a mean.

        Example:
            >>> list(Criteria(camera=None, terms={"loss_T": Limit(0.001)}).limits())
            ['objective', 'depth', 'loss_T']
        """
        named = {"objective": self.objective, "camera": self.camera, "depth": self.depth, **self.terms}
        limits = {name: limit for name, limit in named.items() if limit is not None}
        if not self.stochastic:
            return limits
        return {
            name: replace(limit, window=STOCHASTIC_WINDOW) if limit.window == 1 else limit
            for name, limit in limits.items()
        }

    def asks_for_learning(self) -> bool:
        """Whether anything here can only be reached by a model that has learnt: a limit, predictions, tokens.

        Example:
            >>> Criteria(objective=None, camera=None, depth=None, prediction=None).asks_for_learning()
            False
        """
        return bool(self.limits()) or self.prediction is not None or self.generates

    def names(self) -> tuple[str, ...]:
        """The criteria that are switched on, in the order in which they are reported; terms by their own name."""
        before = ("supervised", "constant_batch", "finite", "gradients", "objective", "camera", "depth")
        after = ("monotonic", "train_val", "prediction", "generates", "defects")
        on = {name: getattr(self, name) not in (None, False) for name in (*before, *after)}
        return (*(name for name in before if on[name]), *self.terms, *(name for name in after if on[name]))
