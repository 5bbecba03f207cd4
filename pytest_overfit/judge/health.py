"""The criteria that need no limit: finite numbers, living gradients, real supervision, one constant sample."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import BatchRecord, ParameterRecord, RunRecord, Supervision
from pytest_overfit.settings.criteria import Limit, Supervised

# Which targets a term of the two-view loss must answer to. Other terms must answer to at least one target.
TARGETS_OF = {"camera": ("extrinsics", "intrinsics"), "depth": ("depths",)}
MIN_VALID_PIXELS = 100
SAME_IMAGE = 1e-3
SAME_POSE = 1e-4
MOST_REASONS = 4
ALL = 0.95  # of a target: a loss that reads so much of it need not say so
KEPT = 0.5  # of a fall, without the weights; python -m benchmarks.zoo keeps at most 0.015 of it
STILL, LARGER = 0.1, 4.0  # of its start, of what the step reports: a loss above both has not fallen with the step
BY_ITSELF = (
    "look for what counts calls or steps (a schedule, a mask, a cache, a factor); where a weight of a term is "
    "scheduled on purpose, return the term without it too and state the limit on that"
)
SWITCHED_OFF = (
    "look for what the training switches the term off with (a weight, a mask, a confidence): bound it from below, or "
    "return the term without it too and state the limit on that"
)
ALL_LEARN = "all that is trainable learns, nothing else moves"

Problem = tuple[str, str, str]  # observed, where, what to try next


def judge_finite(record: RunRecord) -> Finding:
    """Is every loss term, prediction, gradient, parameter and optimizer state finite at every step?"""
    allowed = "finite losses, predictions, gradients and state"
    bad = record.non_finite
    if bad is None:
        if record.steps == 0:
            return Finding("finite", False, "no step was made", allowed, hint="see ::gradients and ::objective")
        return Finding("finite", True, f"{record.steps} steps, all finite", allowed)
    return Finding(
        "finite",
        False,
        f"{bad.what} is not finite at step {bad.step}",
        allowed,
        where=f"first in module {bad.module}"
        if bad.module
        else f"step {bad.step}, {record.device}, seed {record.seed}",
        hint="a loss that replaces NaN by 0 hides this: mend the module named here, then look at its inputs"
        if bad.what.startswith("prediction")
        else "lower the learning rate, clip gradients, or guard the square root, logarithm or division that made it",
    )


def judge_gradients(record: RunRecord, *, unused: Sequence[str] = (), frozen: Sequence[str] = ()) -> Finding:
    """Does every trainable parameter get a finite, non-zero gradient, sit in an optimizer and move?

    Args:
        unused: globs of parameters that are declared to get no gradient.
        frozen: globs of parameters that are declared not to move, whatever their ``requires_grad`` says.
    """
    held = [p for p in record.parameters if _declared(p, frozen)]
    trainable = [p for p in record.parameters if p.trainable and p.numel and not _declared(p, frozen)]
    learning = [p for p in trainable if not _declared(p, unused)]
    found = _nothing_to_train(record, trainable) or _not_learning(record, learning, held)
    if found:
        observed, where, hint = found
        return Finding("gradients", False, observed, ALL_LEARN, where=where, hint=hint)
    still = len(record.parameters) - len(trainable)
    declared = [
        f"{pattern} {word}" for word, patterns in (("unused", unused), ("frozen", frozen)) for pattern in patterns
    ]
    shown = f"; declared: {', '.join(declared)}" if declared else ""
    return Finding("gradients", True, f"{len(learning)} tensors learn, {still} frozen as declared{shown}", ALL_LEARN)


def _nothing_to_train(record: RunRecord, trainable: Sequence[ParameterRecord]) -> Problem | None:
    if record.stop == "detached":
        return (
            "the objective is not connected to the model: it has no gradient",
            "step 1",
            "look for detach(), .item(), .data, torch.tensor(loss) or no_grad between the model and the loss",
        )
    if trainable:
        return None
    if not record.parameters:
        return "the model has no parameters", record.name, "pass the module that is trained"
    patterns = ", ".join(f"{m.pattern!r} ({m.tensors} tensors)" for m in record.freeze_matches)
    return (
        f"all {len(record.parameters)} parameter tensors are frozen",
        f"frozen by {patterns}" if patterns else "requires_grad is False everywhere",
        "remove the patterns from optim.frozen_module_names, or freeze less",
    )


def _not_learning(
    record: RunRecord, learning: Sequence[ParameterRecord], held: Sequence[ParameterRecord]
) -> Problem | None:
    """The first way in which a parameter does not learn that should, or moves that should not."""
    rates = record.learning_rate
    problems = (
        _problem(
            "not in the optimizer",
            [p for p in learning if not p.in_optimizer],
            "build the optimizer from the model that is trained, after its last module was replaced",
        ),
        _problem(
            "no gradient arrives",
            [p for p in learning if p.max_grad is None and not p.moved],  # gradients are sampled: moving proves one
            "connect them to the loss (detach, no_grad, an unused head?), freeze them, or declare them unused",
        ),
        _problem(
            "the gradient is zero at every step",
            [p for p in learning if p.max_grad == 0.0],
            "look for a dead activation, a clamp, or a zero factor behind them",
        ),
        _problem(
            "does not move" + (": the learning rate is 0 at every step" if rates and not any(rates) else ""),
            [p for p in learning if p.max_grad and p.in_optimizer and p.moved == 0.0],
            _still_hint(record),
        ),
        _problem(
            "frozen, yet moves",
            # Without a gradient and outside of every optimizer it moves on purpose: the teacher of a moving average.
            [p for p in record.parameters if p.moved > 0.0 and (p in held or _frozen_in_vain(p))],
            "take frozen parameters out of the optimizer, or freeze before it is built",
        ),
    )
    return next((problem for problem in problems if problem), None)


def _frozen_in_vain(parameter: ParameterRecord) -> bool:
    return not parameter.trainable and (parameter.in_optimizer or parameter.frozen_by is not None)


def _declared(parameter: ParameterRecord, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(parameter.name, pattern) for pattern in patterns)


def judge_supervised(record: RunRecord, settings: Supervised, limits: Mapping[str, Limit]) -> Finding:
    """Could this run have failed? The loss answers to model and target, starts high, and there is something to see."""
    several = record.supervision is not None and bool(record.supervision.frames)
    allowed = "a loss that can fail" + (", on two supervised views" if several else "")
    checks = [*_starts_high(record, limits), *_depends_on_model(record)]
    if record.supervision is not None:  # the data first: what is wrong with them shows in the loss too
        checks = [*_enough_to_see(record.supervision, settings), *checks]
        checks += (
            _answers_targets(record, record.supervision, limits)
            if record.supervision.frames
            else _answers_batch(record, record.supervision, limits)
        )
        checks += [
            *_reads_enough(record.supervision, settings),
            *_falls_by_the_weights(record.supervision),
            *_agrees(record.supervision),
        ]
    if record.steps == 0 and not checks:
        checks = [("no step was made", "see ::gradients")]
    if record.supervision is None and not checks:
        way_out = "set overfit.probes.sensitivity: true, or overfit.criteria.supervised: false"
        checks = [("the targets were not probed: whether the loss answers to them is unknown", way_out)]
    broken = [each for each in record.supervision.not_asked if each.ours] if record.supervision else []
    if broken and not checks:  # what was answered counts; what a mistake of ours left open is held against nobody
        return Finding("supervised", False, broken[0].text(), allowed, where=record.name, judged=False)
    if checks:
        texts = [text for text, _ in checks]
        observed = "; ".join(texts[:MOST_REASONS])
        if len(texts) > MOST_REASONS:
            observed += f"; and {len(texts) - MOST_REASONS} more"
        return Finding("supervised", False, observed, allowed, where=record.name, hint=checks[0][1])
    return Finding("supervised", True, _seen(record.supervision), allowed)


def _seen(supervision: Supervision | None) -> str:
    if supervision is None:
        return "the loss answers"
    if supervision.frames:
        seen = f"valid depth {', '.join(f'{frame.valid / frame.total:.0%}' for frame in supervision.frames)}"
        partly = [f"the loss reads {s.text()} of {name}" for name, s in supervision.shares.items() if s.ratio < ALL]
        return "; ".join([seen, *partly, *(each.text() for each in supervision.not_asked)])
    read = [name for name in supervision.answers if name not in supervision.unread]
    shown = [f"{key} ({supervision.shares[key].text()})" if key in supervision.shares else key for key in read]
    parts = [f"the loss answers to {shorten(shown) or 'the model alone'}"]
    if supervision.unread:
        parts.append(f"not read: {shorten(supervision.unread)}")
    if supervision.note:
        parts.append(supervision.note)
    parts += [each.text() for each in supervision.not_asked]
    return "; ".join(parts)


def judge_constant_batch(record: RunRecord, *, may_differ: bool = False) -> Finding:
    """Did the loader hand out one sample, and is it byte-identical at the end?

    Args:
        may_differ: two draws are declared to be different ones; one of them is trained on all the same.
    """
    allowed = "one sample, the same bytes at every step"
    batch = record.batch
    if batch is None:
        return Finding("constant_batch", False, "the batch was not fingerprinted", allowed)
    if batch.randomness:
        return Finding(
            "constant_batch",
            False,
            "; ".join(batch.randomness),
            allowed,
            where="config",
            hint="switch it off: one sample means the same pixels at every step",
        )
    if batch.redraw_differences and not may_differ:
        return Finding(
            "constant_batch",
            False,
            "two draws differ: " + "; ".join(batch.redraw_differences),
            allowed,
            where="the loader",
            hint="switch off augmentation, shuffling and random sampling for this test, or pass one batch of it",
        )
    if changed := _changed(batch):
        observed, where = changed
        hint = "the model, the loss or the step writes into its batch: look for in-place operations"
        return Finding("constant_batch", False, observed, allowed, where=where, hint=hint)
    drawn = f", drawn {batch.draws} times" if batch.draws > 1 else ""
    declared = "; two draws differ, declared stochastic" if batch.redraw_differences else ""
    return Finding("constant_batch", True, f"sha256 {batch.fingerprint_start[:12]}{drawn}{declared}", allowed)


def _changed(batch: BatchRecord) -> tuple[str, str] | None:
    """(observed, where) of a batch that was another one during the run; None where it never was."""
    if batch.fingerprint_start != batch.fingerprint_end:
        where = f"{batch.fingerprint_start[:12]} became {batch.fingerprint_end[:12]}"
        return "the batch was changed during the run", where
    if batch.changed_at is not None:
        return (
            "the batch was changed during the run, and put back before its end",
            f"seen after step {batch.changed_at}",
        )
    if batch.written is not None:
        return f"{batch.written} is changed within a step, and put back before its end", "every step that was looked at"
    return None


def _problem(what: str, culprits: list[ParameterRecord], hint: str) -> Problem | None:
    if not culprits:
        return None
    return f"{len(culprits)} parameter tensors: {what}", shorten(p.name for p in culprits), hint


def _still_hint(record: RunRecord) -> str:
    if record.stop == "non_finite":
        return "see ::finite: the run stopped before an update"
    rates = record.learning_rate
    return "set a learning rate above 0" if rates and not any(rates) else "check that the optimizer steps"


def _starts_high(record: RunRecord, limits: Mapping[str, Limit]) -> list[tuple[str, str]]:
    found = []
    for name, limit in limits.items():
        term = resolve_term(name, record.curves)
        curve = record.curves.get(term or "", ())
        if curve and limit.holds(1.0 if limit.relative else curve[0]):
            shown = f"below its limit {number(limit.below)}" if limit.above is None and limit.below else limit.text()
            found.append(
                (
                    f"{term} starts at {number(curve[0])}, already {shown}",
                    "start from an untrained model, or look for an empty mask, a zero target or a zero weight"
                    if curve[0] >= 0
                    else "look for a flipped sign; where it has no floor, state a limit and declare unbounded",
                )
            )
    return found


def _depends_on_model(record: RunRecord) -> list[tuple[str, str]]:
    if record.grad_norms and not any(any(curve) for curve in record.grad_norms.values()):
        return [("the loss does not depend on the model (its gradient is zero)", "connect the loss to the predictions")]
    return []


def _answers_targets(record: RunRecord, supervision: Supervision, limits: Mapping[str, Limit]) -> list[tuple[str, str]]:
    found = []
    for name in limits:
        term = resolve_term(name, record.curves)
        if term is None:
            continue
        targets = [t for t in TARGETS_OF.get(name, tuple(supervision.answers)) if t in supervision.answers]
        silent = [t for t in targets if not supervision.answers[t].get(term)]
        if targets and len(silent) == len(targets):
            found.append(
                (
                    f"{term} does not answer when {' or '.join(targets)} change",
                    "the term reads no target: an empty mask, a detached copy or a prediction compared with itself",
                )
            )
    return found


def _has_teacher(record: RunRecord) -> bool:
    """Whether one of several models is frozen as a whole: what it predicts may be the target."""
    groups: dict[str, list[bool]] = {}
    for parameter in record.parameters:
        groups.setdefault(parameter.name.split(".")[0], []).append(parameter.trainable)
    return len(groups) > 1 and any(not any(group) for group in groups.values()) and any(map(any, groups.values()))


def _answers_batch(record: RunRecord, supervision: Supervision, limits: Mapping[str, Limit]) -> list[tuple[str, str]]:
    """Of any batch: the loss answers to it at all, as does a term with a limit, and to what is certainly a target."""
    if not supervision.answers:
        return []
    if len(supervision.unread) == len(supervision.answers):
        way_out = "the loss reads nothing of its batch: a constant, another batch, or a prediction compared with itself"
        return [(f"the loss does not answer when {' or '.join(supervision.unread)} change", way_out)]
    terms = [term for name in limits if (term := resolve_term(name, record.curves))]
    known = [term for term in terms if any(term in answer for answer in supervision.answers.values())]
    if known and not any(answer.get(term) for answer in supervision.answers.values() for term in known):
        way_out = "a term of the weights alone shows no learning: state a limit on one that compares the predictions"
        told = f"{' and '.join(known)}, which alone {'has a limit' if len(known) == 1 else 'have limits'}"
        return [(f"{told}, {_does(known)} not answer when {' or '.join(supervision.answers)} change", way_out)]
    deaf = [target for target in supervision.targets if target in supervision.unread]
    read = [name for name in supervision.answers if name not in (*supervision.inputs, *supervision.unread)]
    if not deaf or read or _has_teacher(record):  # a batch may carry targets that this task does not read
        return []
    return [
        (
            f"the loss does not answer when {' or '.join(deaf)} (the target) changes",
            "look at what is compared with what; a tensor that is no target is best left out of the batch",
        )
    ]


def _does(names: Sequence[str]) -> str:
    return "does" if len(names) == 1 else "do"


def _reads_enough(supervision: Supervision, settings: Supervised) -> list[tuple[str, str]]:
    found = []
    for name, share in supervision.shares.items():
        if share.certain and share.ratio < settings.min_target_ratio:
            wanted = f"at least {settings.min_target_ratio:.0%} wanted"
            way_out = (
                "look for what throws the rest away: a quantile, a threshold, top-k, ignore_index, a mask; "
                'where it is meant: supervised={"min_target_ratio": ...}'
            )
            found.append((f"the loss reads little of {name}: {share.text()}, {wanted}", way_out))
    if supervision.copied:
        way_out = "take it out of the input: the model has nothing to learn but to copy it"
        found.append((supervision.copied, way_out))
    return found


def _falls_by_the_weights(supervision: Supervision) -> list[tuple[str, str]]:
    found = []
    for name, fall in supervision.falls.items():
        if fall.kept(fall.returned) > KEPT:
            verb = "falls" if fall.end < fall.start else "rises"
            text = f"back at the initial weights it is {number(fall.returned)}, it started at {number(fall.start)}"
            found.append((f"{name} {verb} without the weights: {text}", BY_ITSELF))
        elif fall.exchanged is not None and fall.alone is None:
            text = f"for another one it is {number(fall.exchanged)}, it started at {number(fall.start)}"
            found.append((f"{name} does not answer to the target any more: {text}", SWITCHED_OFF))
        elif fall.exchanged is not None and fall.alone is not None and fall.kept(fall.exchanged) > KEPT:
            text = f"{number(fall.alone)} with the initial model, {number(fall.exchanged)} for other targets"
            moved = f"{name} falls by {shorten(fall.parameters)} alone, which change no output"
            found.append((f"{moved}: {text}", SWITCHED_OFF))
    return found


def _agrees(supervision: Supervision) -> list[tuple[str, str]]:
    """A step's number and the loss of the same model, up to a factor that they have at the start too."""
    seen = supervision.agreement
    if seen is None or min(seen.start, seen.start_loss) <= 0:
        return []
    expected = max(0.0, seen.reported) * seen.start_loss / seen.start
    if seen.loss <= max(LARGER * expected, STILL * seen.start_loss):
        return []
    text = f"the step reports {number(seen.reported)}, the loss of the same model on this batch is {number(seen.loss)}"
    return [(text, "look at which batch and targets the step trains on, and in which mode; or leave the loss out")]


def _enough_to_see(supervision: Supervision, settings: Supervised) -> list[tuple[str, str]]:
    found = []
    for frame in supervision.frames:
        if frame.valid < max(MIN_VALID_PIXELS, settings.min_valid_ratio * frame.total):
            found.append(
                (
                    f"frame {frame.frame} has {frame.valid} valid depth pixels of {frame.total} "
                    f"({frame.valid / max(1, frame.total):.1%}, at least {settings.min_valid_ratio:.0%} wanted)",
                    "choose another pair, or look at the depth file, max_depth, depth_percentile and the sky mask",
                )
            )
    if supervision.image_difference is not None and supervision.image_difference < SAME_IMAGE:
        found.append(
            (
                f"the two images are the same (mean difference {number(supervision.image_difference)} of 1)",
                "choose a pair of two different views",
            )
        )
    if supervision.pose_difference is not None and supervision.pose_difference < SAME_POSE:
        found.append(
            (
                f"the two cameras are the same (largest difference {number(supervision.pose_difference)})",
                "choose a pair of two different cameras, or look at cam2world of both .npz files",
            )
        )
    return found
