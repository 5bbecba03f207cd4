"""The strict ``overfit:`` section: where the pair comes from, the budget, the criteria, the device."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_overfit.config.problems import shown
from pytest_overfit.config.reading import Section, as_switch
from pytest_overfit.config.schema import (
    Budget,
    Criteria,
    Limit,
    Monotonic,
    OverfitSettings,
    PairSource,
    Prediction,
    Probes,
    Supervised,
    TrainVal,
)

DEVICES = "auto | cpu | cuda | cuda:N | mps | xpu"
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?")
# The names that a VGGT-style trainer logs for the three headline limits.
_ALIASES = {"loss_objective": "objective", "loss_camera": "camera", "loss_depth": "depth"}

Record = TypeVar("Record")


def read_overfit(
    section: Section, folder: Path, *, has_root: bool, has_val: bool, absent: Collection[str]
) -> OverfitSettings:
    """Reads the section.

    Args:
        folder: what relative paths are relative to.
        has_root: the config names a dataset on disk, which is then the default source.
        has_val: there is a val split, so that ``train_val`` is on by default.
        absent: terms (camera, depth) that the loss leaves out, so that they are off by default.
    """
    section.only(field.name for field in fields(OverfitSettings))
    pair = _read_pair(section.section("pair"), folder, has_root)
    device = _read_device(section)
    return OverfitSettings(
        pair=pair,
        steps_per_epoch=section.number("steps_per_epoch", 10, at_least=1, whole=True),
        half_pixel_depth=section.switch("half_pixel_depth", False),
        device=device,
        require_gpu=_read_require_gpu(section, device),
        threads=_read_threads(section),
        deterministic=section.switch("deterministic", True),
        budget=_read_budget(section.section("budget")),
        criteria=_read_criteria(section.section("criteria"), has_val, absent),
        probes=_read_probes(section.section("probes")),
    )


def _read_pair(section: Section, folder: Path, has_root: bool) -> PairSource:
    section.only(field.name for field in fields(PairSource))
    source = section.choice("source", "dataset" if has_root else "render", ("dataset", "render", "cut"))
    if source == "cut" and not section.given("source_root"):
        section.problem("source_root", "nothing", "the folder of a source in the AerialMegaDepth layout")
    if source != "cut" and not section.given("source") and section.given("source_root"):
        section.problem("source", f"nothing, which means {source}, beside a source_root", "cut, to use source_root")
    root = section.file("source_root", folder)
    pairs = section.file("source_npz", folder)
    return PairSource(
        source=source,
        pair_index=section.number("pair_index", 0, at_least=0, whole=True),
        seed=section.number("seed", 0, at_least=0, at_most=2**32 - 1, whole=True),
        width=section.number("width", 640, at_least=16, at_most=8192, whole=True),
        height=section.number("height", 480, at_least=16, at_most=8192, whole=True),
        source_root=root,
        source_seg_root=section.file("source_seg_root", folder),
        source_npz=root / "train.npz" if pairs is None and root is not None else pairs,
    )


def _read_device(section: Section) -> str:
    value = section.get("device")
    if value is None:
        return "auto"
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        section.problem("device", shown(value), DEVICES)
        return "auto"
    return value


def _read_require_gpu(section: Section, device: str) -> bool:
    required = section.switch("require_gpu", False)
    if required and device == "cpu":
        section.problem("require_gpu", "true beside device: cpu", "false, or another device")
    return required


def _read_threads(section: Section) -> Any:
    if section.get("threads") == "auto":
        return "auto"
    before = len(section.problems)
    threads = section.number("threads", "auto", at_least=1, at_most=4096, whole=True)
    if len(section.problems) > before:
        section.problems[-1] = replace(section.problems[-1], allowed="auto, or a whole number from 1 to 4096")
    return threads


def _read_budget(section: Section) -> Budget:
    section.only(field.name for field in fields(Budget))
    return Budget(
        max_steps=section.number("max_steps", None, at_least=1, whole=True),
        max_seconds=section.number("max_seconds", None, above=0),
        hold_steps=section.number("hold_steps", 5, at_least=1, whole=True),
    )


def _read_probes(section: Section) -> Probes:
    section.only(field.name for field in fields(Probes))
    return Probes(
        sensitivity=section.switch("sensitivity", True),
        gradient_every=section.number("gradient_every", 1, at_least=1, whole=True),
    )


def _read_criteria(section: Section, has_val: bool, absent: Collection[str]) -> Criteria:
    default = Criteria()
    names = [field.name for field in fields(Criteria)]
    terms = {name for name in map(str, section.values) if name.startswith("loss_")}
    section.only([*names, *sorted(terms)])
    _adopt_aliases(section)
    if as_switch(section.get("train_val")) not in (None, False) and not has_val:
        section.problem("train_val", shown(section.get("train_val")), "false: the config has no data.val")
    criteria = Criteria(
        objective=_limit(section, "objective", default.objective),
        camera=_limit(section, "camera", None if "camera" in absent else default.camera, above=0),
        depth=_limit(section, "depth", None if "depth" in absent else default.depth, above=0),
        terms=_read_terms(section, terms - set(_ALIASES)),
        monotonic=_optional(section, "monotonic", Monotonic(), _read_monotonic),
        finite=_on(section, "finite"),
        gradients=_on(section, "gradients"),
        supervised=_optional(section, "supervised", Supervised(), _read_supervised),
        constant_batch=_on(section, "constant_batch"),
        train_val=_optional(section, "train_val", TrainVal(), _read_train_val, present=has_val),
        prediction=_optional(section, "prediction", Prediction(), _read_prediction),
    )
    if not criteria.names():
        section.problem("", "every criterion switched off", "at least one: a gate without criteria proves nothing")
    return criteria


def _adopt_aliases(section: Section) -> None:
    """``loss_camera`` is the trainer's name of ``camera``: the same limit, which cannot be given twice."""
    for alias, name in _ALIASES.items():
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


def _limit(section: Section, name: str, default: Limit | None, *, above: float | None = None) -> Limit | None:
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
        inner = section.section(name)
        inner.only(["below"])
        if not inner.given("below"):
            inner.problem("below", "nothing", "a number, the limit")
        below = inner.number("below", None, above=above)
    else:
        below = _short_limit(section, name, above)
    return default if below is None else Limit(below)


def _short_limit(section: Section, name: str, above: float | None) -> Any:
    before = len(section.problems)
    below = section.number(name, None, above=above)
    if len(section.problems) > before:
        wider = f"{section.problems[-1].allowed}, {{below: number}}, or false"
        section.problems[-1] = replace(section.problems[-1], allowed=wider)
    return below


def _on(section: Section, name: str) -> bool:
    """A switch for which null means off, as for every criterion."""
    return name not in section.values or (section.values[name] is not None and section.switch(name, True))


def _optional(
    section: Section, name: str, default: Record, read: Callable[[Section], Record], *, present: bool = True
) -> Record | None:
    """A criterion that is a switch, or a mapping of its settings."""
    if name not in section.values:
        return default if present else None
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


def _read_monotonic(section: Section) -> Monotonic:
    section.only(field.name for field in fields(Monotonic))
    return Monotonic(
        window=section.number("window", 21, at_least=1, whole=True),
        tolerance=section.number("tolerance", 0.25, at_least=0),
        strict=section.switch("strict", False),
    )


def _read_supervised(section: Section) -> Supervised:
    section.only(["min_valid_ratio"])
    return Supervised(section.number("min_valid_ratio", 0.05, at_least=0, at_most=1))


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
