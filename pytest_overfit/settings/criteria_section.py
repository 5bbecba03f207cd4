"""The strict ``overfit:`` section, read by the definitions of its settings; and what has to hold between them.

In its ``criteria`` a limit is a number or a mapping, a criterion a switch or its settings.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.cause_ids import IDS
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.criteria_registry import BESIDE, Entry, entries, limit_aliases
from pytest_overfit.settings.keywords import keys
from pytest_overfit.settings.problems import did_you_mean, shown
from pytest_overfit.settings.section import Section, as_switch
from pytest_overfit.settings.settings import OverfitSettings, PairSource

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


Record = TypeVar("Record")


def read_overfit(
    section: Section, defaults: OverfitSettings, folder: Path, *, in_config: bool, data: str = "render"
) -> OverfitSettings:
    """Reads the section.

    Args:
        defaults: what stands for a key that is not given.
        folder: what relative paths are relative to.
        in_config: the section belongs to a config: camera and depth are losses, which are never below 0, and
            ``train_val`` needs the validation split that ``defaults`` switch it on for.
        data: the source that ``data.train`` speaks for where the section names none.
    """
    defaults = replace(defaults, pair=replace(defaults.pair, source=data))  # type: ignore[arg-type]
    settings = read_record(section, defaults, folder)
    criteria = read_criteria(section.section("criteria"), defaults.criteria, in_config)
    runs = max(1, len(settings.seeds))
    if settings.pass_at_least is not None and settings.pass_at_least > runs:
        found = f"{settings.pass_at_least}, more than the number of seeds"
        section.problem("pass_at_least", found, f"a whole number from 1 to {runs}")
    if settings.require_gpu and settings.device == "cpu":
        section.problem("require_gpu", "true beside device: cpu", "false, or another device")
    if in_config and settings.lr is not None:
        section.problem("lr", f"{settings.lr:g}", "optim.optimizer.lr in its place: a config names its optimizer")
    budget = settings.budget
    if not section.section("budget").given("hold_steps"):
        budget = budget.fitting()
    pair = _of_one_source(section.section("pair"), settings.pair)
    return replace(settings, criteria=criteria, budget=budget, pair=pair)


def read_record(section: Section, defaults: Record, folder: Path) -> Record:
    """A record of settings: every field by its definition, nested records as sections, any other key a problem."""
    known = fields(defaults)  # type: ignore[arg-type]
    section.only([field.name for field in known], keys() if isinstance(defaults, OverfitSettings) else None)
    values: dict[str, Any] = {}
    for field in known:
        default = getattr(defaults, field.name)
        if "definition" in field.metadata:
            values[field.name] = field.metadata["definition"].kind.read(section, field.name, default, folder)
        elif is_dataclass(default) and field.name != "criteria":
            values[field.name] = read_record(section.section(field.name), default, folder)
    return replace(defaults, **values)  # type: ignore[type-var]


def _of_one_source(section: Section, pair: PairSource) -> PairSource:
    """A cut has a source, and nothing else has one."""
    if pair.source == "cut" and not section.given("source_root"):
        section.problem("source_root", "nothing", "the folder of a source in the AerialMegaDepth layout")
    if pair.source != "cut" and not section.given("source") and section.given("source_root"):
        found = f"nothing, which means {pair.source}, beside a source_root"
        section.problem("source", found, "cut, to use source_root")
    if pair.source_npz is None and pair.source_root is not None:
        return replace(pair, source_npz=pair.source_root / "train.npz")
    return pair
