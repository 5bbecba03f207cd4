"""The strict ``overfit.criteria`` section: a limit is a number or a mapping, a criterion a switch or its settings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from typing import TypeVar

from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.cause_ids import IDS
from pytest_overfit.settings.criteria import LIMIT_ALIASES, Criteria, Limit, Monotonic, Prediction, Supervised, TrainVal
from pytest_overfit.settings.problems import shown
from pytest_overfit.settings.section import Section, as_switch

Record = TypeVar("Record")
NOTHING_ASKED = "no limit on any term: nothing asks for learning"
LEARNING = "a limit of the objective or of a term of the loss"


def read_criteria(section: Section, default: Criteria, two_view: bool) -> Criteria:
    names = [field.name for field in fields(Criteria)]
    terms = {name for name in map(str, section.values) if name.startswith("loss_")}
    section.only([*names, *sorted(terms)])
    _adopt_aliases(section)
    if two_view and default.train_val is None and as_switch(section.get("train_val")) not in (None, False):
        section.problem("train_val", shown(section.get("train_val")), "false: the config has no data.val")
    for name in () if two_view else ("train_val", "prediction"):
        if as_switch(section.get(name)) not in (None, False):
            section.problem(
                name, shown(section.get(name)), "false: only a run under a config has what it compares with"
            )
    if two_view and as_switch(section.get("generates")) not in (None, False):
        section.problem("generates", shown(section.get("generates")), "false: a two-view model generates no tokens")
    floor, trend = 0 if two_view else None, default.monotonic or Monotonic()
    criteria = Criteria(
        objective=_limit(section, "objective", default.objective),
        camera=_limit(section, "camera", default.camera, floor=floor),
        depth=_limit(section, "depth", default.depth, floor=floor),
        terms=_read_terms(section, terms - set(LIMIT_ALIASES)),
        monotonic=_optional(
            section, "monotonic", default.monotonic, trend, lambda inner: _read_monotonic(inner, trend)
        ),
        finite=_on(section, "finite"),
        gradients=_on(section, "gradients"),
        supervised=_optional(section, "supervised", default.supervised, Supervised(), _read_supervised),
        constant_batch=_on(section, "constant_batch"),
        train_val=_optional(section, "train_val", default.train_val, TrainVal(), _read_train_val),
        prediction=_optional(section, "prediction", default.prediction, Prediction(), _read_prediction),
        generates=section.switch("generates", False),
        unused=section.texts("unused"),
        frozen=section.texts("frozen"),
        unbounded=section.switch("unbounded", False),
        stochastic=section.switch("stochastic", False),
        defects=_on(section, "defects"),
        allow=_read_allowed(section),
    )
    stated = criteria.objective is not None and as_switch(section.values.get("objective", True)) is not True
    if criteria.unbounded and not stated:
        section.problem("unbounded", "true", "a stated objective limit beside it")
    misread = any(problem.key.startswith(section.key) for problem in section.problems)
    if not misread and not criteria.asks_for_learning():
        section.problem("", NOTHING_ASKED, LEARNING)
    return criteria


def _adopt_aliases(section: Section) -> None:
    """``loss_camera`` is the trainer's name of ``camera``: the same limit, which cannot be given twice."""
    for alias, name in LIMIT_ALIASES.items():
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


def _on(section: Section, name: str) -> bool:
    """A switch for which null means off, as for every criterion."""
    return name not in section.values or (section.values[name] is not None and section.switch(name, True))


def _optional(
    section: Section, name: str, absent: Record | None, default: Record, read: Callable[[Section], Record]
) -> Record | None:
    """A criterion that is a switch, or a mapping of its settings; ``absent`` where the section does not say."""
    if name not in section.values:
        return absent
    value = as_switch(section.values[name])
    if value is None or value is False:
        return None
    if value is True:
        return default
    if isinstance(value, dict):
        return read(section.section(name))
    if section.get(name) is not None:
        section.problem(name, shown(value), "true, false, or a mapping of its settings")
    return default


def _read_monotonic(section: Section, default: Monotonic) -> Monotonic:
    section.only(field.name for field in fields(Monotonic))
    return Monotonic(
        window=section.number("window", default.window, at_least=1, whole=True),
        tolerance=section.number("tolerance", default.tolerance, at_least=0),
        floor=section.number("floor", default.floor, at_least=0, at_most=1),
        strict=section.switch("strict", default.strict),
    )


def _read_supervised(section: Section) -> Supervised:
    default = Supervised()
    section.only(field.name for field in fields(Supervised))
    return Supervised(
        min_valid_ratio=section.number("min_valid_ratio", default.min_valid_ratio, at_least=0, at_most=1),
        min_target_ratio=section.number("min_target_ratio", default.min_target_ratio, at_least=0, at_most=1),
    )


def _read_train_val(section: Section) -> TrainVal:
    section.only(["tolerance"])
    return TrainVal(section.number("tolerance", 0.1, at_least=0))


def _read_prediction(section: Section) -> Prediction:
    section.only(field.name for field in fields(Prediction))
    default, bounds = Prediction(), {"delta_1_25": (0, 1), "rotation_deg": (0, 180), "translation_deg": (0, 180)}
    limits = {}
    for field in fields(Prediction):
        low, high = bounds.get(field.name, (0, None))
        absent = field.name not in section.values
        value = getattr(default, field.name) if absent else None
        limits[field.name] = section.number(field.name, value, at_least=low, at_most=high)
    if all(value is None for value in limits.values()):
        section.problem("", "every limit null", "at least one limit, or prediction: false")
    return Prediction(**limits)


def _read_allowed(section: Section) -> tuple[str, ...]:
    ids = section.texts("allow")
    for name in ids:
        if name not in IDS and "." not in name:
            guess = nearest(name, IDS)
            section.problem(
                "allow", shown(name), "ids of docs/causes.md" + (f"; did you mean {guess!r}?" if guess else "")
            )
    return ids
