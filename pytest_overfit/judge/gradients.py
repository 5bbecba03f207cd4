"""The criterion of living gradients: every trainable parameter learns, nothing else moves."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.globs import as_list, exact_globs, is_declared, is_teacher
from pytest_overfit.judge.stopped import began_broken
from pytest_overfit.run.record import ParameterRecord, RunRecord
from pytest_overfit.settings.criterion import Criterion

ALL_LEARN = "all that is trainable learns, nothing else moves"

ROUNDING = 1e-5  # of the gradient of the weight beside it: what float32 leaves of a sum that is zero

Problem = tuple[str, str, str]  # observed, where, what to try next


def judge_gradients(record: RunRecord, *, unused: Sequence[str] = (), frozen: Sequence[str] = ()) -> Finding:
    """Does every trainable parameter get a finite, non-zero gradient, sit in an optimizer and move?

    Args:
        unused: globs of parameters that are declared to get no gradient; one that learns all the same is named.
        frozen: globs of parameters that are declared not to move, whatever their ``requires_grad`` says.
    """
    held = [p for p in record.parameters if is_declared(p.name, frozen)]
    trainable = [p for p in record.parameters if p.trainable and p.numel and not is_declared(p.name, frozen)]
    # A teacher or an average takes no gradient on purpose; its name says so.
    waiting = waiting_of(record)
    idle = [
        p
        for p in trainable
        if is_declared(p.name, unused) or (p.max_grad is None and is_teacher(p.name)) or p.name in waiting
    ]
    learning = [p for p in trainable if p not in idle]
    found = (
        _nothing_to_train(record, trainable)
        or _not_learning(record, learning, held)
        or _wrongly_declared(record, [p for p in idle if p.max_grad and p.moved and p.name not in waiting], unused)
    )
    if found:
        observed, where, hint = found
        return Finding("gradients", False, observed, ALL_LEARN, where=where, hint=hint)
    still = len(record.parameters) - len(trainable)
    as_declared = " as declared" if frozen or record.freeze_matches else ""
    kept = f", {still} frozen{as_declared}" if still else ""
    declared = [
        f"{pattern} {word}" for word, patterns in (("unused", unused), ("frozen", frozen)) for pattern in patterns
    ]
    shown = f"; declared: {', '.join(declared)}" if declared else ""
    shown += f"; not asked: {shorten(waiting)}, which this batch does not use" if waiting else ""
    return Finding("gradients", True, f"{len(learning)} tensors learn{kept}{shown}", ALL_LEARN)


def waiting_of(record: RunRecord) -> tuple[str, ...]:
    """The parameters that got no gradient, and would from a batch in which no input is zero all through."""
    seen = () if record.supervision is None else record.supervision.waiting
    return tuple(p.name for p in record.parameters if p.name in seen and not p.max_grad)


def _nothing_to_train(record: RunRecord, trainable: Sequence[ParameterRecord]) -> Problem | None:
    if not record.parameters:
        return "the model has no parameters", record.name, "pass the module that is trained"
    if trainable:
        return (
            None
            if record.stop != "detached"
            else (
                "the objective is not connected to the model: it has no gradient",
                "step 1",
                "look for detach(), .item(), .data, torch.tensor(loss) or no_grad between the model and the loss",
            )
        )
    patterns = ", ".join(f"{m.pattern!r} ({m.tensors} tensors)" for m in record.freeze_matches)
    return (
        f"all {len(record.parameters)} parameter tensors are frozen",
        f"frozen by {patterns}" if patterns else "requires_grad is False everywhere",
        "freeze less" if patterns else "set requires_grad where the model is built",
    )


def _not_learning(
    record: RunRecord, learning: Sequence[ParameterRecord], held: Sequence[ParameterRecord]
) -> Problem | None:
    """The first way in which a parameter does not learn that should, or moves that should not."""
    rates = record.learning_rate
    problems = (
        _problem(
            "not in the optimizer",
            [p for p in learning if not p.in_optimizer and not p.moved],  # who updates by hand moves them as well
            "build the optimizer from the model that is trained, after its last module was replaced",
        ),
        _problem(
            "no gradient arrives",
            [p for p in learning if p.max_grad is None and not p.moved],  # gradients are sampled: moving proves one
            "connect them to the loss (detach, no_grad, an unused head?), freeze them, or declare them unused",
        ),
        _problem(
            "the gradient is zero at every step",
            [p for p in learning if p.max_grad == 0.0 and not shifts_nothing(p, learning)],
            "look for a dead activation, a clamp, or a zero factor behind them",
        ),
        _problem(
            "does not move" + (": the learning rate is 0 at every step" if rates and not any(rates) else ""),
            [
                p
                for p in learning
                if p.max_grad and p.in_optimizer and p.moved == 0.0 and not shifts_nothing(p, learning)
            ],
            _still_hint(record),
        ),
        _problem(
            "frozen, yet moves",
            # What no gradient has reached no optimizer moves: it is the teacher of a moving average.
            [p for p in record.parameters if p.moved > 0.0 and (p in held or _frozen_in_vain(p))],
            "take frozen parameters out of the optimizer, or freeze before it is built",
        ),
    )
    return next((problem for problem in problems if problem), None)


def _frozen_in_vain(parameter: ParameterRecord) -> bool:
    stepped = parameter.in_optimizer and parameter.max_grad is not None
    return not parameter.trainable and (stepped or parameter.frozen_by is not None)


def _wrongly_declared(record: RunRecord, learn: Sequence[ParameterRecord], unused: Sequence[str]) -> Problem | None:
    """A declaration that covers what learns would hide it the day it does not."""
    if not learn:
        return None
    pattern = next(each for each in unused if is_declared(learn[0].name, [each]))
    covered = [p.name for p in record.parameters if is_declared(p.name, unused)]
    idle = [name for name in covered if name not in {p.name for p in learn}]
    exact = as_list(exact_globs(idle, [p.name for p in record.parameters]))
    return (
        f"{len(learn)} parameter tensors: declared unused by {pattern!r}, and they learn",
        shorten(p.name for p in learn),
        f"declare what is idle and nothing else: unused={exact}" if idle else f"remove {pattern!r} from unused",
    )


def shifts_nothing(parameter: ParameterRecord, parameters: Sequence[ParameterRecord]) -> bool:
    """A bias beside a weight that learns, with a gradient of zero up to rounding: what follows takes a shift away.

    A softmax over keys, or a normalisation, does not see the bias in front of it: nothing is cut off there.

    Example:
        >>> shifts_nothing(key_bias, [key_weight, key_bias])                # doctest: +SKIP
        True
    """
    home, _, name = parameter.name.rpartition(".")
    if "bias" not in name or parameter.max_grad is None:
        return False
    beside = [p.max_grad or 0.0 for p in parameters if p.name == f"{home}.{name.replace('bias', 'weight')}"]
    return any(parameter.max_grad <= ROUNDING * size for size in beside)


def _problem(what: str, culprits: list[ParameterRecord], hint: str) -> Problem | None:
    if not culprits:
        return None
    return f"{len(culprits)} parameter tensors: {what}", shorten(p.name for p in culprits), hint


def _still_hint(record: RunRecord) -> str:
    if record.stop == "non_finite":
        return "see ::finite: the run stopped before an update"
    rates = record.learning_rate
    return "set a learning rate above 0" if rates and not any(rates) else "check that the optimizer steps"


GRADIENTS = Criterion(
    "gradients",
    "every trainable parameter gets a gradient, is in an optimizer and moves",
    judge=lambda record, setting, criteria: judge_gradients(record, unused=criteria.unused, frozen=criteria.frozen),
    tells=lambda record: record.stop in ("detached", "no_trainable_parameters"),
    echoes=began_broken,
)
