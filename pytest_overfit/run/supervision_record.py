"""Could the run have failed? What the loss reads, of which samples and labels, and whether limits fall by weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_overfit.errors.asking import NotAsked


@dataclass(frozen=True)
class FrameRecord:
    """Supervised share of one frame: ``valid`` of ``total`` pixels carry depth."""

    frame: int
    valid: int
    total: int


@dataclass(frozen=True)
class Share:
    """How much of a target the objective reads: ``answering`` of the ``elements`` that the data do not leave out.

    ``tried``: they are single ones that were exchanged, not all. ``certain``: it is a target by its place or name.

    Example:
        >>> Share(12, 12).text(), Share(2, 2, tried=True).text()
        ('100% of 12 elements', '2 of 2 elements tried')
    """

    answering: int
    elements: int
    tried: bool = False
    certain: bool = True

    @property
    def ratio(self) -> float:
        return self.answering / max(1, self.elements)

    def text(self) -> str:
        """The share as a report shows it."""
        if self.tried:
            return f"{self.answering} of {self.elements} elements tried"
        return f"{self.ratio:.0%} of {self.elements} elements"


@dataclass(frozen=True)
class Fall:
    """Does a limited term fall by the weights? Its value at the start and the end, and asked again after the run.

    ``returned`` has it with the initial weights back, all else as the run has left it. ``alone`` has it with the
    initial weights but for ``parameters``, which change no output, and ``exchanged`` the trained model's for other
    targets; None where no parameter is of that kind.
    """

    start: float
    end: float
    returned: float
    alone: float | None = None
    exchanged: float | None = None
    parameters: tuple[str, ...] = ()

    def kept(self, value: float) -> float:
        """Which share of the fall is still there at a value: 0 at the start, 1 at the end."""
        return (self.start - value) / (self.start - self.end) if self.start != self.end else 0.0


@dataclass(frozen=True)
class Agreement:
    """A step beside a loss: what the step reports at its last steps, and the loss of the same model on this batch.

    ``start`` and ``start_loss`` are the same two with the initial weights.
    """

    reported: float
    loss: float
    start: float
    start_loss: float


@dataclass(frozen=True)
class LabelsTaught:
    """The labels at the places of an output: how many of each value count, and of each that counts nowhere.

    Both have the most frequent ones; ``values`` is the number of different ones that count.
    ``unexplained`` places do not count although their label does elsewhere. ``unlabelled`` are the samples that
    nothing but their labels leaves out, all through: neither a mask, nor the chance of labels that are strewn.
    ``silenced`` is a class that counts nowhere for its label alone: another label in its place does.
    """

    key: str
    values: int
    counted: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)
    unexplained: int = 0
    unlabelled: tuple[int, ...] = ()
    silenced: str = ""


@dataclass(frozen=True)
class OneNumber:
    """A target of numbers of which one ``number`` alone counts, and nowhere else stands: ``others`` do not count."""

    key: str
    number: float
    others: int


@dataclass(frozen=True)
class Taught:
    """What of an output counts in a loss term, by the slope of the term along it: a line of the supervision map.

    ``counted`` of its ``places`` have a slope; ``silent`` are those of the ``samples`` in which none has. ``samples``
    is None where the output has no axis of them. An output has ``classes`` numbers for every place of a label.

    Example:
        >>> Taught("objective", "logits", 14, 52, 4, (2, 3)).text()
        '14 of 52 places of logits count, in 2 of 4 samples'
    """

    term: str
    output: str
    counted: int
    places: int
    samples: int | None
    silent: tuple[int, ...] = ()
    labels: LabelsTaught | None = None
    classes: int = 0
    one: OneNumber | None = None

    @property
    def whole(self) -> bool:
        """Whether every place counts."""
        return self.counted == self.places

    def text(self) -> str:
        """One line."""
        if self.whole:
            return f"all of {self.output} counts"
        seen = f"{self.counted} of {self.places}"
        among = "" if self.samples is None else f", in {self.samples - len(self.silent)} of {self.samples} samples"
        return f"{seen} places of {self.output} count{among}"


@dataclass(frozen=True)
class Supervision:
    """Could the run have failed?

    ``answers[target][term]`` is the absolute change of a loss term when that target is perturbed and the predictions
    are kept. ``image_difference`` is the mean absolute difference of the two images (0..1), ``pose_difference`` the
    largest absolute difference between entries of two normalised world2cam matrices.

    Of a batch that is no two-view batch, ``answers`` has every tensor that could be perturbed; ``inputs`` are those
    that change what the model returns, ``unread`` those that change nothing, ``targets`` those that are targets by
    their place (the second of a pair) or name. ``note`` says what was not probed, and why; ``finite`` whether the
    loss was, before anything was perturbed. ``padding`` counts the labels under an ``attention_mask`` of 0 that the
    loss answers to. ``shares`` has how much of each target is read, ``copied`` a target that stands in the input too,
    ``taught`` what of every output counts in every term, ``waiting`` the parameters that get a gradient only once an
    input that is zero all through is not.

    Of a run that has passed, ``falls`` has every limited term, and ``agreement`` the loss beside a step of the user's.
    ``not_asked`` says which of these questions have no answer, and why.
    """

    answers: Mapping[str, Mapping[str, float]]
    frames: tuple[FrameRecord, ...]
    image_difference: float | None = None
    pose_difference: float | None = None
    inputs: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    note: str | None = None
    finite: bool = True
    padding: int = 0
    shares: Mapping[str, Share] = field(default_factory=dict)
    copied: str | None = None
    taught: tuple[Taught, ...] = ()
    waiting: tuple[str, ...] = ()
    falls: Mapping[str, Fall] = field(default_factory=dict)
    agreement: Agreement | None = None
    not_asked: tuple[NotAsked, ...] = ()
