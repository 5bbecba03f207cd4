"""Evidence to causes: every rule is asked, and the strongest answer comes first. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.diagnose.catalogue import FAMILIES
from pytest_overfit.diagnose.cause import STRENGTHS, Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family, Rule
from pytest_overfit.errors.asking import Questions
from pytest_overfit.judge.globs import is_allowed

SURE = 0.9  # weight from which what a probe shows stands before what a trial of something else proves


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
                causes.append(cause)  # one by one: what a rule finds before it breaks counts
    for rule in rules:
        causes += rule(evidence)
    found: dict[str, Cause] = {}
    for cause in causes:
        if is_allowed(cause.id, cause.where, allowed) or (evidence.passed and not cause.certain):
            continue
        if cause.id not in found or _order(cause) < _order(found[cause.id]):
            found[cause.id] = cause
    return tuple(sorted(found.values(), key=_order))


def _order(cause: Cause) -> tuple[int, float]:
    """Proven before shown before observed, and the likelier first.

    What is counted or read off (a step that is never made, a NaN in the batch) is as good as proven: a trial of a
    learning rate that happens to get around it must not stand before it.
    """
    rank = STRENGTHS.index(cause.strength)
    if cause.strength == "shown" and cause.weight >= SURE:
        rank = 0
    return rank, -cause.weight
