"""Rules of the user's own: from the ``overfit_causes`` fixture, from a call, or from an installed package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any

from pytest_overfit.diagnose.cause import STRENGTHS, Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.errors import OverfitError

GROUP = "pytest_overfit.causes"


@functools.cache
def installed_rules() -> tuple[Callable[[Evidence], Iterable[Cause]], ...]:
    """The rules that installed packages register under the entry point group ``pytest_overfit.causes``."""
    return tuple(point.load() for point in entry_points(group=GROUP))


def checked(rules: Any) -> tuple[Callable[[Evidence], Iterable[Cause]], ...]:
    """Rules as they are asked: one that raises, or gives something else than causes, is named.

    Raises:
        OverfitError: there is something that cannot be called among them.
    """
    given: Sequence[Any] = [rules] if callable(rules) else list(rules or ())
    for rule in given:
        if not callable(rule):
            raise OverfitError(
                f"a {type(rule).__name__} where a rule is wanted",
                where="overfit_causes",
                allowed="functions from Evidence to an iterable of Cause",
            )
    return tuple(_told(rule) for rule in given)


def _told(rule: Callable[[Evidence], Iterable[Cause]]) -> Callable[[Evidence], Iterable[Cause]]:
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
