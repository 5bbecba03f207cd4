"""Evidence to causes: every rule is asked, and the strongest answer comes first. Pure, and without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pytest_overfit.diagnose.answers import needs_no_trial
from pytest_overfit.diagnose.catalogue import FAMILIES
from pytest_overfit.diagnose.cause import STRENGTHS, Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family, Rule
from pytest_overfit.diagnose.trial import Attempt, TrialKind
from pytest_overfit.diagnose.trial_causes import unclaimed
from pytest_overfit.errors.asking import Questions
from pytest_overfit.judge.globs import is_allowed

# The trial that takes away what a cause names: where it was made in vain, the cause is not what holds the run up.
TAKEN_AWAY: Mapping[str, TrialKind] = {
    "batch-changes": "same random numbers",
    "stochastic": "same random numbers",
    "dead-units": "fresh weights",
    "symmetry": "fresh weights",
    "gradient-explosion": "fresh weights",
    "input-scale": "standardised inputs",
    "target-scale": "standardised targets",
    "precision": "float32",
    "lr-schedule": "held rate",
    "weight-decay": "no weight decay",
    "optimizer-hyperparameter": "default settings",
    "output-scale": "rescaled",
}
# Trials that get around more than they take away: what is counted or read off stands before what they prove.
AROUND: frozenset[TrialKind] = frozenset({
    "learning rate", "our step", "fresh weights", "unfrozen", "same random numbers", "rescaled",
})  # fmt: skip
# What the one advises, the other takes back; or it says no more than that.
UNLIKE: Mapping[str, tuple[str, ...]] = {
    "output-range": ("double-activation",),
    "lr-high": ("lr-low",),
    "lr-low": ("lr-high",),
    "loss-ignores-output": ("loss-detached",),
    "loss-floor": ("loss-detached", "target-mismatch"),
    "nonfinite-loss": ("target-mismatch",),
    "nonfinite-gradient": ("target-mismatch",),
}
TUNED = ("lr-high", "lr-low", "lr-schedule", "weight-decay", "optimizer-hyperparameter")
PATIENCE = "few-steps"  # of a run that nothing else is wrong with
NUMBERS = ("nonfinite-data", "nonfinite-loss", "nonfinite-gradient", "nonfinite-output")
SPARE = 0.75  # of the steps of a run: what learns later may do so by chance
SURE = 0.9  # weight from which what a probe shows is as good as counted


def find_causes(
    evidence: Evidence,
    *,
    families: Sequence[Family] = (),
    rules: Sequence[Rule] = (),
    allowed: Sequence[str] = (),
    questions: Questions | None = None,
) -> tuple[Cause, ...]:
    """The causes that the evidence leads to, the strongest first; one per id.

    Args:
        families: further ones of ours, asked after the rest.
        rules: rules of the user's own, asked beside ours.
        allowed: ids that are meant here, or ``id:glob`` of the places where they are, and left out.
        questions: keeps which of our rules broke, and on what. A rule of the user's is raised as it is.

    Of a run that passes only what is certain is a cause.
    """
    questions = Questions() if questions is None else questions
    causes: list[Cause] = []
    ours = (rule for family in (*FAMILIES, *families) for rule in family.rules)
    for rule in ours:
        with questions.asking(f"the rule {rule.__module__.rpartition('.')[2]}.{rule.__name__}"):
            for cause in rule(evidence):
                causes.append(_fair(cause, evidence))  # one by one: what a rule finds before it breaks counts
    for rule in rules:
        causes += rule(evidence)
    with questions.asking("what a trial proves"):
        causes += unclaimed(evidence, causes)
    found: dict[str, Cause] = {}
    for cause in causes:
        if is_allowed(cause.id, cause.where, allowed) or (evidence.passed and not cause.certain):
            continue
        if cause.id not in found or _order(cause, evidence) < _order(found[cause.id], evidence):
            found[cause.id] = cause
    return tuple(_agreeing(sorted(found.values(), key=lambda cause: _order(cause, evidence))))


def is_settled(evidence: Evidence, families: Sequence[Family], allowed: Sequence[str]) -> bool:
    """Whether a cause is known for certain before any trial; a rule that breaks says so where the report asks it."""
    return needs_no_trial(find_causes(evidence, families=families, allowed=allowed, questions=Questions(raising=False)))


def _fair(cause: Cause, evidence: Evidence) -> Cause:
    """A rate that passes proves nothing against one that had fewer steps than that, since its time was over."""
    if evidence.record.stop != "max_seconds" or cause.id not in TUNED or cause.certain:
        return cause
    in_time = any(each.passed_at is not None and each.passed_at <= evidence.record.steps for each in evidence.attempts)
    return cause if in_time else replace(cause, strength="observed")


def _agreeing(causes: Sequence[Cause]) -> Iterator[Cause]:
    """Without what takes back the advice of a stronger cause, and without patience beside what is shown or proven."""
    ids = [cause.id for cause in causes]
    held = any(cause.strength != "observed" for cause in causes if cause.id != PATIENCE)
    for place, cause in enumerate(causes):
        if not set(UNLIKE.get(cause.id, ())) & set(ids[:place]) and not (cause.id == PATIENCE and held):
            yield cause


def _order(cause: Cause, evidence: Evidence) -> tuple[int, bool, float]:
    """Mended before counted, shown and observed; what is certain before what is not, and the likelier first.

    What a trial of that very thing proves comes before all that was there while the trial learned. What is counted or
    read off (a step that is never made, a NaN in the batch) comes before what a trial proves that gets around much, or
    that learned only just before its end. What a trial took away in vain comes last. Of a first step that gives no
    numbers the graph and its gradients say nothing: where these arose comes before.
    """
    rank, kind = 1 + STRENGTHS.index(cause.strength), TAKEN_AWAY.get(cause.id)
    if cause.strength == "proven" and any(_takes_away(each, evidence) for each in evidence.attempts):
        rank = 0
    elif cause.strength == "shown" and not cause.certain and kind is not None and evidence.refutes(kind):
        rank = 1 + STRENGTHS.index("observed")
    elif (cause.strength == "shown" and cause.weight >= SURE) or (cause.id in NUMBERS and _at_once(evidence)):
        rank = 1
    return rank, rank > 1 and not cause.certain, -cause.weight


def _takes_away(attempt: Attempt, evidence: Evidence) -> bool:
    """Whether a trial learned for what it took away, with some steps of the run to spare."""
    return attempt.trial.kind not in AROUND and (attempt.passed_at or math.inf) <= SPARE * evidence.record.planned_steps


def _at_once(evidence: Evidence) -> bool:
    """Whether the first step gave a value that is not finite."""
    found = evidence.record.non_finite
    return found is not None and found.step == 1
