"""The settings of one call: records, mappings and keywords as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_overfit.errors import ConfigError
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.criteria_section import LEARNING, NOTHING_ASKED
from pytest_overfit.settings.ladder import layer_of_keywords, layer_of_terms, resolve_settings
from pytest_overfit.settings.settings import Budget, OverfitSettings


def settings_of_call(
    criteria: Criteria | Mapping[str, Any] | None,
    budget: Budget | Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> OverfitSettings:
    """The settings of one call, records and mappings alike.

    Raises:
        ConfigError: a keyword is unknown, given twice, or has a wrong value.
    """
    flat = dict(keywords)
    for name, given, kind in (("criteria", criteria, Criteria), ("budget", budget, Budget)):
        if given is None or isinstance(given, kind):
            continue
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"a {type(given).__name__}", where=name, allowed=f"a mapping, or a {kind.__name__} record"
            )
        if twice := sorted(flat.keys() & given.keys()):
            raise ConfigError(f"{twice[0]} is given twice", where=name, allowed="once, here or as a keyword")
        flat.update(given)
    terms = flat.pop("terms", None) if isinstance(criteria, Mapping) and "terms" in criteria else None
    layer = layer_of_keywords("run_overfit", flat)
    for name, given, kind in (("criteria", criteria, Criteria), ("budget", budget, Budget)):
        beside = [layer.spoken(key) for key in layer.keywords if key.startswith(f"{name}.")]
        if isinstance(given, kind) and beside:
            found = f"{beside[0]} beside a {kind.__name__} record"
            raise ConfigError(found, where=name, allowed=f"{beside[0]} in the record")
    settings = resolve_settings([layer, layer_of_terms("run_overfit", terms)], where="run_overfit").settings
    if isinstance(criteria, Criteria):
        settings = replace(settings, criteria=criteria)
    if isinstance(budget, Budget):
        settings = replace(settings, budget=budget.fitting())
    if not settings.criteria.asks_for_learning():
        raise ConfigError(NOTHING_ASKED, where="criteria", allowed=LEARNING)
    return settings
