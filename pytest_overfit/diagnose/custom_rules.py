"""Rules of the user's own: from the ``overfit_causes`` fixture, from a call, or from an installed package."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any

from pytest_overfit.diagnose.cause import STRENGTHS, Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family, Question, Rule
from pytest_overfit.errors import OverfitError

GROUP = "pytest_overfit.causes"


@functools.cache
def installed_family() -> Family:
    """What installed packages register under the entry point group ``pytest_overfit.causes``: rules, or families."""
    return custom_family([point.load() for point in entry_points(group=GROUP)])


def custom_family(given: Any) -> Family:
    """Rules and families of the user's own as one: what each rule gives is checked.

    Raises:
        OverfitError: there is something among them that is neither.
    """
    own: Sequence[Any] = [given] if callable(given) or isinstance(given, Family) else list(given or ())
    rules: list[Rule] = []
    questions: list[Question] = []
    for each in own:
        if isinstance(each, Family):
            rules += map(_told, each.rules)
            questions += each.questions
        elif callable(each):
            rules.append(_told(each))
        else:
            raise OverfitError(
                f"a {type(each).__name__} where a rule is wanted",
                where="overfit_causes",
                allowed="functions from Evidence to an iterable of Cause",
            )
    return Family("custom", rules=tuple(rules), questions=tuple(questions))


def _told(rule: Rule) -> Rule:
    name = getattr(rule, "__qualname__", type(rule).__name__)

    def asked(evidence: Evidence) -> Iterable[Cause]:
        try:
            causes = list(rule(evidence) or ())
        except Exception as error:
            raise OverfitError(
                f"the rule {name} raised {type(error).__name__}: {error}", where="overfit_causes", hint="mend the rule"
            ) from error
        for cause in causes:
            if not isinstance(cause, Cause) or cause.strength not in STRENGTHS:
                raise OverfitError(
                    f"the rule {name} gave a {type(cause).__name__}",
                    where="overfit_causes",
                    allowed=f"pytest_overfit.Cause with a strength of {', '.join(STRENGTHS)}",
                )
        return causes

    return asked
