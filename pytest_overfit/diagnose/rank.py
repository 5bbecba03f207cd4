"""Evidence to causes: every rule is asked, and the strongest answer comes first. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pytest_overfit.diagnose.cause import STRENGTHS, Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.rules import (
    correspondence,
    data,
    data_scale,
    dependence,
    graph,
    loop,
    loss,
    loss_scale,
    numerics,
    optimizer,
    output_range,
    output_scale,
    rates,
    step,
    supervision,
    symmetry,
    terms,
    tokens,
    two_view,
    units,
)
from pytest_overfit.errors.asking import Questions

Rule = Callable[[Evidence], Iterable[Cause]]


def _of_views(evidence: Evidence) -> Iterator[Cause]:
    if evidence.views is not None:
        for rule in two_view.RULES:
            yield from rule(evidence.views, evidence.predicted)


RULES: tuple[Rule, ...] = (
    *data_scale.RULES,
    *data.RULES,
    *numerics.RULES,
    *graph.RULES,
    *loop.RULES,
    *optimizer.RULES,
    *step.RULES,
    *rates.RULES,
    *loss.RULES,
    *supervision.RULES,
    *correspondence.RULES,
    *tokens.RULES,
    *loss_scale.RULES,
    *terms.RULES,
    *units.RULES,
    *output_range.RULES,
    *output_scale.RULES,
    *symmetry.RULES,
    *dependence.RULES,
    _of_views,
)
SURE = 0.9  # weight from which what a probe shows stands before what a trial of something else proves


def find_causes(
    evidence: Evidence, *, rules: Sequence[Rule] = (), allowed: Sequence[str] = (), questions: Questions | None = None
) -> tuple[Cause, ...]:
    """The causes that the evidence leads to, the strongest first; one per id.

    Args:
        rules: rules of the user's own, asked beside ours.
        allowed: ids that are meant here, and left out.
        questions: keeps which of our rules broke, and on what. A rule of the user's is raised as it is.

    Of a run that passes only what is certain is a cause.
    """
    questions = Questions() if questions is None else questions
    causes: list[Cause] = []
    for rule in RULES:
        with questions.asking(f"the rule {rule.__module__.rpartition('.')[2]}.{rule.__name__}"):
            for cause in rule(evidence):
                causes.append(cause)  # one by one: what a rule finds before it breaks counts
    for rule in rules:
        causes += rule(evidence)
    found: dict[str, Cause] = {}
    for cause in causes:
        if cause.id in allowed or (evidence.passed and not cause.certain):
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
