"""What one bounded run leaves behind: plain numbers, no tensors, so that judging and reporting need no torch.

Steps are counted from 1 in every text and from 0 in every index. Losses carry the names the user's loss gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.run.names import resolved_terms

StopReason = Literal[
    "passed", "max_steps", "max_seconds", "hung", "non_finite", "interrupted", "no_trainable_parameters", "detached"
]

CUT_SHORT: tuple[StopReason, ...] = ("max_seconds", "hung", "interrupted")


@dataclass(frozen=True)
class ParameterRecord:
    """One parameter tensor over the whole run.

    ``max_grad`` is the largest gradient norm seen (None: no gradient ever arrived), ``moved`` the largest absolute
    change of one element between the first and the last step.
    """

    name: str
    numel: int
    trainable: bool
    frozen_by: str | None
    in_optimizer: bool
    max_grad: float | None
    moved: float
    finite: bool


@dataclass(frozen=True)
class FreezeMatch:
    """How many parameter tensors one ``frozen_module_names`` pattern froze."""

    pattern: str
    tensors: int
    numel: int


@dataclass(frozen=True)
class Load:
    """One ``load_state_dict`` of a module of such a class.

    ``given`` counts its keys, ``missing`` are names of the module that none of them filled. ``renamed`` pairs such a
    name with a key of the checkpoint that went nowhere: the same but for what stands before it, and of the same shape.
    """

    into: str
    given: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NonFinite:
    """The first NaN or infinity of a run: ``what`` tensor, at which step (from 1), and the module it arose in."""

    step: int
    what: str
    module: str | None


@dataclass(frozen=True)
class Hang:
    """Code that did not come back.

    Args:
        limit: seconds that it had; ``seconds`` those after which it was stopped.
        doing: what the run was busy with.
        where: the line that hangs, the innermost one of the user's; ``stack`` has those around it, innermost first.
    """

    limit: float
    seconds: float
    doing: str
    where: str
    stack: tuple[str, ...] = ()

    def text(self) -> str:
        """One line.

        Example:
            >>> Hang(2.0, 4.0, "training", "loss at test_model.py:7: queue.get()").text()
            'did not come back within 2 s (training): loss at test_model.py:7: queue.get()'
        """
        return f"did not come back within {self.limit:g} s ({self.doing}): {self.where}"


@dataclass(frozen=True)
class BatchRecord:
    """Whether the sample stayed the same: fingerprints around the run, differences between draws of the loader.

    ``draws`` counts these (1: there is one batch, or it could not be drawn again). ``changed_at`` is the first step
    (from 1) at which the batch was another, though it is the first one again at the end; ``written`` names a tensor
    that is changed within every step and put back.
    """

    fingerprint_start: str
    fingerprint_end: str
    redraw_differences: tuple[str, ...]
    randomness: tuple[str, ...]
    draws: int = 1
    changed_at: int | None = None
    written: str | None = None


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
    """

    key: str
    values: int
    counted: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)
    unexplained: int = 0
    unlabelled: tuple[int, ...] = ()


@dataclass(frozen=True)
class Taught:
    """What of an output counts in a loss term, by the slope of the term along it: a line of the supervision map.

    ``counted`` of its ``places`` have a slope; ``silent`` are those of the ``samples`` in which none has. ``samples``
    is None where the output has no axis of them.

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
    ``taught`` what of every output counts in every term.

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
    falls: Mapping[str, Fall] = field(default_factory=dict)
    agreement: Agreement | None = None
    not_asked: tuple[NotAsked, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The loss terms of the final parameters, in training mode and in evaluation mode on the validation sample."""

    train: Mapping[str, float]
    val: Mapping[str, float]


@dataclass(frozen=True)
class FramePrediction:
    """Prediction against ground truth for one frame.

    ``abs_rel`` is mean(|pred - gt| / gt) and ``delta_1_25`` the share with max(pred/gt, gt/pred) < 1.25 over valid
    pixels (Eigen et al. 2014); ``mae`` is in normalised units, ``mae_metres`` in metres. ``rotation_deg`` is the
    geodesic angle, ``translation_deg`` the angle between the world2cam translations (None where the true one is zero).
    """

    frame: int
    abs_rel: float | None = None
    delta_1_25: float | None = None
    mae: float | None = None
    mae_metres: float | None = None
    rotation_deg: float | None = None
    translation_deg: float | None = None
    translation_metres: float | None = None


@dataclass(frozen=True)
class Generated:
    """The memorised sequences, generated greedily by the trained model from their first ``prompt`` tokens.

    ``right`` of ``total`` tokens behind the prompts are those of the sample; ``first_wrong`` names the first other one.
    ``ahead`` is asked of a decoder without generating: at which share of the tokens it predicts that token itself, the
    next one, and the one after; empty where that was not asked.
    """

    right: int = 0
    total: int = 0
    prompt: int = 1
    first_wrong: str = ""
    ahead: tuple[float, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """Everything one bounded run produced.

    Example:
        >>> record.steps, record.stop, record.curves["objective"][-1]
        (412, 'passed', 0.0031)
    """

    name: str
    seed: int
    device: str
    planned_steps: int
    steps: int
    stop: StopReason
    seconds: float
    curves: Mapping[str, tuple[float, ...]]
    val_steps: tuple[int, ...] = ()
    val_curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    learning_rate: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    grad_norms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parameters: tuple[ParameterRecord, ...] = ()
    freeze_matches: tuple[FreezeMatch, ...] = ()
    non_finite: NonFinite | None = None
    hung: Hang | None = None
    batch: BatchRecord | None = None
    supervision: Supervision | None = None
    evaluation: Evaluation | None = None
    predictions: tuple[FramePrediction, ...] = ()
    prediction_keys: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    peak_mib: float | None = None
    generated: Generated | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> Mapping[str, str]:
        """Criterion -> the loss's own name for its term, where the loss gives one: a limit on ``depth`` may be one on
        ``loss_reg_depth``.
        """
        return resolved_terms(self.curves)

    @property
    def step_ms(self) -> float:
        """Mean milliseconds of one training step, validation and probes included."""
        return 1000.0 * self.seconds / max(1, self.steps)
