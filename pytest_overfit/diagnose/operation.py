"""One operation of a forward pass or a loss, and the facts that were measured of its kind; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

Shape = tuple[int, ...]
LOSS = "the loss"  # the region of what happens outside of every module


@dataclass(frozen=True)
class Comparison:
    """A prediction that meets a target: a loss of torch's, or a difference outside of the model.

    Ranges are None where they were not measured. ``sum_error`` is how far the predictions of a classifier are from
    adding up to 1 over the classes, ``log_sum_error`` the same of their exponentials, ``supervised`` the number of
    labels that count, and ``ignored`` the label that does not. ``origin`` is the key of the batch whose values the
    target has, ``turned`` what was done to them, ``relabelled`` a key whose labels it takes for others, and which,
    ``scrambled`` how an output was reshaped into the prediction.
    ``adds_target``: the prediction is an output and the target itself; ``same``: it is the target. ``summed`` and
    ``averaged`` say how torch reduces what has an axis of classes. ``exchanged`` names the argument that stands where
    the target is, which has a gradient, belongs, and that has none.
    """

    differentiable: bool
    low: float | None = None
    high: float | None = None
    target_low: float | None = None
    target_high: float | None = None
    sum_error: float | None = None
    log_sum_error: float | None = None
    classes: int | None = None
    supervised: int | None = None
    ignored: int | None = None
    smoothing: float = 0.0
    summed: bool = False
    averaged: bool = False
    origin: str = ""
    turned: str = ""
    relabelled: tuple[str, str] = ("", "")
    scrambled: str = ""
    adds_target: bool = False
    same: bool = False
    exchanged: str = ""

    @property
    def targets(self) -> tuple[float, float] | None:
        """The range of the targets."""
        return None if self.target_low is None or self.target_high is None else (self.target_low, self.target_high)

    @property
    def predictions(self) -> tuple[float, float] | None:
        """The range of the predictions."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Broadcast:
    """Two shapes that meet in arithmetic and become a larger one; ``gradients`` of them are the model's, or need one.

    ``same_count``: both have as many numbers, and other ones; ``of_samples``: one for every sample. ``unpaired``: with
    the rows of one of them in reverse order the objective of the trained model is the same.
    """

    by: str
    same_count: bool
    ranks_differ: bool
    gradients: int
    of_samples: bool = False
    unpaired: bool | None = None


@dataclass(frozen=True)
class Summand:
    """What ``by`` gives and a loss adds without a gradient: its value in the first step, and of the trained model."""

    by: str
    first: float
    last: float


@dataclass(frozen=True)
class ClassColumns:
    """The class ids ``key`` are the target of every one of so many columns, which lie ``apart`` times their spread."""

    columns: int
    key: str
    apart: float


@dataclass(frozen=True)
class CutTerm:
    """What the numbers that are cut from the model add to the objective, and the whole of it."""

    part: float
    whole: float


@dataclass(frozen=True)
class Scaled:
    """Something of the loss times a number.

    Of a sum or a mean also the ``gain``, what comes out over the mean of its elements, what is ``made``, and how many
    ``elements`` a mean is of.
    """

    factor: float
    gain: float | None = None
    made: float = 0.0
    elements: int = 0


@dataclass(frozen=True)
class KeysRead:
    """Which ``keys`` the queries of an attention read, as far as its mask or its weights say.

    ``causal``: no query reads beyond its own place, and all read back to the first. ``unread``: so many keys at the
    end are read by nobody, since a causal mask starts at the first key though there are more keys than queries.
    ``padding_alone``: padding is read, and nothing else; ``padding``: content reads padding, ``masked``: although
    something is left out that is not of the future. ``heeds``: padding is left out, and nobody reads it.
    """

    keys: int
    causal: bool = False
    unread: int = 0
    padding_alone: bool = False
    padding: bool = False
    masked: bool = False
    heeds: bool = False


@dataclass(frozen=True)
class Squashed:
    """A sigmoid, tanh, softmax or log_softmax: ``bound`` is the share of its outputs at its bounds.

    ``length`` and ``ranks`` are those of the axis and of the tensor of a softmax, None of the others; ``over_samples``
    says that it runs over the samples, ``reads`` which keys it weighs; ``low`` and ``high`` are those of its input.
    """

    bound: float
    low: float | None = None
    high: float | None = None
    length: int | None = None
    ranks: int | None = None
    over_samples: bool = False
    reads: KeysRead | None = None


@dataclass(frozen=True)
class Rectified:
    """A ReLU, or an activation like it: the share of its ``units`` that fire for no sample."""

    dead: float
    units: int


@dataclass(frozen=True)
class Clamped:
    """A clamp of what has a gradient: the ``share`` of elements that it changes, and ranges before and after."""

    share: float
    scalar: bool
    low: float
    high: float
    clamped_low: float
    clamped_high: float


@dataclass(frozen=True)
class Drawn:
    """Random numbers: by which function, with which probability (NaN: it has none), and whether of an input.

    ``gates``: they let some activations through and not others, as dropout does, however it is written. ``added``: they
    are added to features in a size that nothing learns.
    """

    random_by: str
    p: float
    of_input: bool
    gates: bool = False
    added: bool = False


@dataclass(frozen=True)
class PlainWeight:
    """A ``weight`` that is an attribute of its module and no parameter, beside a ``bias`` that learns."""

    weight: str
    bias: str
    shape: Shape


@dataclass(frozen=True)
class FreshTensor:
    """A tensor made anew by a function in the place of the tensor of the batch with such a key."""

    made_by: str
    made_of: str


@dataclass(frozen=True)
class InPlace:
    """A tensor of the batch that is written to."""

    written_by: str
    written_to: str


@dataclass(frozen=True)
class Attention:
    """Scaled dot-product attention: the share of rows on one key, the deviation of its logits, the number of keys."""

    bound: float
    deviation: float
    keys: int
    reads: KeysRead | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class HeadMask:
    """Multi-head attention whose logits stay inside: which keys its mask lets through, and what it drops."""

    reads: KeysRead | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class OutOfRange:
    """The first result that is no number, or one beyond what a gradient can stand.

    ``fed`` are the ranges of the first two inputs, ``highest`` the largest result where it is a number, ``dtype`` its
    type where it is none, ``sound`` whether all inputs were numbers.
    """

    fed: tuple[tuple[float, float], ...]
    highest: float | None = None
    dtype: str = ""
    sound: bool = True

    @property
    def numbers(self) -> Mapping[str, float]:
        """The same by name, for the evidence of a cause."""
        named = {
            f"{end}{i}": value
            for i, pair in enumerate(self.fed)
            for end, value in zip(("low", "high"), pair, strict=True)
        }
        return named if self.highest is None else {**named, "high": self.highest}


@dataclass(frozen=True)
class ThrownAway:
    """A result that nobody takes: ``gap`` is how far it lies from what it was made of, relative to the size of that."""

    gap: float


@dataclass(frozen=True)
class Overwritten:
    """Values with a gradient of which one call writes several to one place: ``lost`` of ``count`` are not there."""

    lost: int
    count: int


@dataclass(frozen=True)
class WeightedSum:
    """A sum over one axis by a softmax over another: its weights add up to ``low`` to ``high``, and not to 1."""

    axis: int
    summed: int
    low: float
    high: float


Fact = (
    Comparison | Broadcast | Scaled | Squashed | Rectified | Clamped | Drawn | FreshTensor | InPlace | Attention
    | HeadMask | OutOfRange | PlainWeight | Summand | ThrownAway | WeightedSum | CutTerm | ClassColumns
    | Overwritten
)  # fmt: skip
F = TypeVar("F", bound=Fact)


@dataclass(frozen=True)
class Op:
    """One operation worth a note: by its torch name, in a module (dotted name) or in the loss.

    ``line`` is the user's line that called it; ``shapes`` those of its tensor arguments, then of its result; ``final``
    the operation that made its first argument; ``fact`` what was measured of its kind, None where its name says all.
    """

    name: str
    region: str
    line: str
    shapes: tuple[Shape, ...] = ()
    final: str = ""
    fact: Fact | None = None

    @property
    def where(self) -> str:
        place = self.region if self.region == LOSS else f"module {self.region}"
        return f"{place}, {self.line}" if self.line else place


def with_fact(ops: Iterable[Op], kind: type[F]) -> Iterator[tuple[Op, F]]:
    """The operations of which such facts were measured, with them.

    Example:
        >>> [fact.units for op, fact in with_fact([Op("relu", "net", "", fact=Rectified(0.5, 64))], Rectified)]
        [64]
    """
    for op in ops:
        if isinstance(op.fact, kind):
            yield op, op.fact


def keys_read(ops: Iterable[Op]) -> Iterator[tuple[Op, KeysRead]]:
    """The attentions of which is known which keys they read, however they are computed."""
    for op in ops:
        if isinstance(op.fact, (Attention, HeadMask, Squashed)) and op.fact.reads is not None:
            yield op, op.fact.reads
