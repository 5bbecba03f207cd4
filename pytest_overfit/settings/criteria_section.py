"""The strict ``overfit.criteria`` section: a limit is a number or a mapping, a criterion a switch or its settings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.cause_ids import IDS
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.criteria_registry import BESIDE, Entry, entries, limit_aliases
from pytest_overfit.settings.problems import did_you_mean, shown
from pytest_overfit.settings.section import Section, as_switch

NOTHING_ASKED = "no limit on any term: nothing asks for learning"
LEARNING = "a limit of the objective or of a term of the loss"
CONFIG_ONLY = "only a run under a config has what it compares with"


def read_criteria(section: Section, default: Criteria, in_config: bool) -> Criteria:
    """Every registered criterion, the limits of further terms, and what is declared to be meant."""
    terms = {name for name in map(str, section.values) if name.startswith("loss_")}
    section.only([*entries(), *BESIDE, *sorted(terms)])
    _adopt_aliases(section)
    for name, entry in entries().items():
        if as_switch(section.get(name)) not in (None, False) and (why := _refused(entry, default, in_config)):
            section.problem(name, shown(section.get(name)), f"false: {why}")
    criteria = Criteria(
        given={name: _read(section, entry, default, in_config) for name, entry in entries().items()},
        in_config=in_config,
        terms=_read_terms(section, terms - {*limit_aliases()}),
        unused=section.texts("unused"),
        frozen=section.texts("frozen"),
        infinite=section.texts("infinite"),
        unbounded=section.switch("unbounded", False),
        stochastic=section.switch("stochastic", False),
        allow=_read_allowed(section),
    )
    stated = bool(criteria.objective) and as_switch(section.values.get("objective", True)) is not True
    if criteria.unbounded and not stated:
        section.problem("unbounded", "true", "a stated objective limit beside it")
    misread = any(problem.key.startswith(section.key) for problem in section.problems)
    if not misread and not criteria.asks_for_learning():
        section.problem("", NOTHING_ASKED, LEARNING)
    return criteria


def _refused(entry: Entry, default: Criteria, in_config: bool) -> str:
    """Why a criterion cannot be on in this run; empty where it can."""
    if entry.config_only and not in_config:
        return "" if entry.limit else CONFIG_ONLY
    criterion = entry.load()
    if in_config and criterion.condition and default.setting(entry.name) in (None, False):
        split = criterion.condition.startswith("data.")
        same = f"; {criterion.condition}: ${{data.train}} is the same sample" if split else ""
        return f"the config has no {criterion.condition}{same}"
    return ""


def _read(section: Section, entry: Entry, default: Criteria, in_config: bool) -> Any:
    """The setting of one criterion."""
    name, elsewhere = entry.name, entry.config_only and not in_config
    absent = default.setting(name)
    if entry.limit:
        return _limit(section, name, absent, floor=entry.load().floor if in_config else None)
    if elsewhere or name not in section.values:
        return absent
    criterion, value = entry.load(), as_switch(section.values[name])
    if value is None or value is False:
        return criterion.off()
    on = criterion.switched_on(in_config)
    if on is True:
        return section.switch(name, True)
    if isinstance(on, Limit):
        return _limit(section, name, on)
    if listed := _listed(on, value):
        section.values[name] = value = {listed: value}
    if isinstance(value, dict):
        setting = _read_setting(section.section(name), absent or on)
        if criterion.check is not None and (problem := criterion.check(setting)):
            section.section(name).problem("", *problem)
        return setting
    if value is not True and section.get(name) is not None:
        section.problem(name, shown(value), _words(on))
    return on


def _listed(setting: Any, value: Any) -> str:
    """The field that a bare list of names, or one name, stands for; empty where there is none, or it is no such."""
    named = [field.name for field in fields(setting) if "choices" in field.metadata]
    return named[0] if named and isinstance(value, (str, list)) else ""


def _words(setting: Any) -> str:
    """What the setting of a criterion may be."""
    names = [name for field in fields(setting) for name in field.metadata.get("choices", ())]
    listed = f"a list of {' | '.join(names)}, " if names else ""
    return f"true, false, {listed}or a mapping of its settings"


def _choices(section: Section, name: str, default: Any, choices: tuple[str, ...]) -> Any:
    """Names out of these, each once."""
    if section.get(name) is None:
        return default
    found = section.texts(name)
    for each in found:
        if each not in choices:
            section.problem(name, shown(each), " | ".join(choices), did_you_mean(each, choices))
    if not found and isinstance(section.get(name), list):
        section.problem(name, "an empty list", " | ".join(choices))
    return tuple(dict.fromkeys(found))


def _read_setting(section: Section, default: Any) -> Any:
    """A mapping as the dataclass of its criterion: numbers within the bounds of their fields, names, and switches."""
    section.only(field.name for field in fields(default))
    values = {}
    for field in fields(default):
        before, bounds = getattr(default, field.name), dict(field.metadata)
        if "choices" in bounds:
            values[field.name] = _choices(section, field.name, before, bounds["choices"])
            continue
        if isinstance(before, bool):
            values[field.name] = section.switch(field.name, before)
            continue
        null = None if bounds.pop("optional", False) and field.name in section.values else before
        values[field.name] = section.number(field.name, null, **bounds)
    return type(default)(**values)


def _adopt_aliases(section: Section) -> None:
    """``loss_camera`` is the trainer's name of ``camera``: the same limit, which cannot be given twice."""
    for alias, name in limit_aliases().items():
        if alias not in section.values:
            continue
        if name in section.values:
            section.problem(alias, f"a second limit beside {name}", f"one of {name} and {alias}")
        else:
            section.values[name] = section.values[alias]


def _read_terms(section: Section, direct: Collection[str]) -> dict[str, Limit]:
    nested = section.section("terms")
    limits = {name: _limit(section, name, None) for name in sorted(direct)}
    limits |= {str(name): _limit(nested, name, None) for name in nested.values}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _limit(section: Section, name: str, default: Limit | None, *, floor: float | None = None) -> Limit | None:
    """A limit: a number (below it), a mapping, or a switch. ``floor``: what no number that it states may reach."""
    if name not in section.values:
        return default
    value = as_switch(section.values[name])
    if value is None or value is False:
        return None
    if value is True:
        if default is None:
            section.problem(name, "true", "a number, the limit; there is no default")
        return default
    if isinstance(value, dict):
        return _read_limit(section.section(name), floor) or default
    before = len(section.problems)
    below = section.number(name, None, above=floor)
    if len(section.problems) > before:
        section.reword(before, f"{section.problems[-1].allowed}, {{below: number}}, {{above: number}}, or false")
    return default if below is None else Limit(below)


def _read_limit(section: Section, floor: float | None) -> Limit | None:
    section.only(field.name for field in fields(Limit) if field.name != "stated")
    relative = section.switch("relative", False)
    # A share of the start is a share of something above 0.
    below = section.number("below", None, above=0 if relative else floor)
    above = section.number("above", None, above=0 if relative else None)
    if not section.given("below") and not section.given("above"):
        section.problem("", shown(section.values), "a number under below, above, or both")
    if below is not None and above is not None and below <= above:
        section.problem("above", shown(above), f"a number under below, {shown(below)}")
    window = section.number("window", 1, at_least=1, whole=True)
    return None if below is None and above is None else Limit(below, above, relative, window)


def _read_allowed(section: Section) -> tuple[str, ...]:
    ids = section.texts("allow")
    for name in ids:
        cause = name.partition(":")[0]
        if cause not in IDS and "." not in cause:
            guess = nearest(cause, IDS)
            section.problem(
                "allow", shown(name), "ids of docs/causes.md" + (f"; did you mean {guess!r}?" if guess else "")
            )
    return ids
