"""The strict ``overfit:`` section, read by the definitions of its settings; and what has to hold between them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_overfit.settings.criteria_section import read_criteria
from pytest_overfit.settings.section import Section
from pytest_overfit.settings.settings import OverfitSettings, PairSource

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
    section.only(field.name for field in known)
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
