"""What one bounded run leaves behind: plain numbers, no tensors, so that judging and reporting need no torch.

Steps are counted from 1 in every text and from 0 in every index. Losses carry the names the user's loss gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pytest_overfit.run.names import resolved_terms
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.run.twin_record import TwinResult

ALL_AT_ONCE = "all at once: "  # before the options that hold a sample, among what makes it change

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
    ``fov_deg`` is the larger error of the two fields of view, of height and width.
    """

    frame: int
    abs_rel: float | None = None
    delta_1_25: float | None = None
    mae: float | None = None
    mae_metres: float | None = None
    rotation_deg: float | None = None
    translation_deg: float | None = None
    translation_metres: float | None = None
    fov_deg: float | None = None


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
    twins: tuple[TwinResult, ...] = ()
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
