"""The criterion of real supervision: the loss answers to model and targets, and falls by the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.judge.stopped import began_broken
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criteria_registry import entries
from pytest_overfit.settings.criterion import Criterion, bounded

MIN_VALID_PIXELS = 100
SAME_IMAGE = 1e-3
SAME_POSE = 1e-4
MOST_REASONS = 4
MOST_LINES = 2  # of the supervision map; the record has them all
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


@dataclass(frozen=True)
class Supervised:
    """Every frame has at least a ``min_valid_ratio`` of valid pixels, every target one of elements that the loss reads.

    Elements that the data themselves mark as left out (a label of -100, padding, a mask) do not count as elements.
    """

    min_valid_ratio: float = bounded(0.05, at_least=0, at_most=1)
    min_target_ratio: float = bounded(0.25, at_least=0, at_most=1)


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
    counting = [line for line in supervision.taught if line.term == "objective"][:MOST_LINES]
    parts = [*(c.text() for c in counting if not c.whole), *parts, *(c.text() for c in counting if c.whole)]
    parts += [each.text() for each in supervision.not_asked]
    return "; ".join(parts)


def _starts_high(record: RunRecord, limits: Mapping[str, Limit]) -> list[tuple[str, str]]:
    found = []
    for name, limit in limits.items():
        term = record.terms.get(name)
        curve = record.curves.get(term or "", ())
        starts = (1.0,) if limit.relative else (limit.start(curve), *curve[:1])  # a first value may be a lucky draw
        if curve and all(map(limit.holds, starts)):
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
        term = record.terms.get(name)
        if term is None:
            continue
        wanted = (entries()[name].load().targets if name in entries() else ()) or supervision.answers
        targets = [target for target in wanted if target in supervision.answers]
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
    terms = [term for name in limits if (term := record.terms.get(name))]
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


def _no_depth(record: RunRecord) -> bool:
    """Whether a mean over no depth at all made the loss NaN: there the data tell the fault."""
    seen = record.supervision.frames if record.supervision else ()
    return began_broken(record) and any(frame.valid == 0 for frame in seen)


SUPERVISED = Criterion(
    "supervised",
    "the loss answers to model and batch, starts above its limits and falls by the weights; a frame has this "
    "share of valid pixels, a target this share of elements that the loss reads",
    Supervised(),
    lambda record, setting, criteria: judge_supervised(record, setting, criteria.limits()),
    tells=_no_depth,
    echoes=lambda record: began_broken(record) or record.stop == "detached" or not record.steps,
)
