"""The strict ``overfit:`` section: where the pair comes from, the budget, the criteria, the device."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_overfit.config.causes import IDS
from pytest_overfit.config.criteria import LIMIT_ALIASES, Criteria, Limit, Monotonic, Prediction, Supervised, TrainVal
from pytest_overfit.config.problems import shown
from pytest_overfit.config.reading import Section, as_switch
from pytest_overfit.config.schema import AmpConfig, Budget, Distributed, OverfitSettings, PairSource, Probes
from pytest_overfit.suggest import nearest

DEVICES = "auto | model | cpu | cuda | cuda:N | mps | xpu"
_DEVICE = re.compile(r"auto|model|cpu|mps|(cuda|xpu)(:\d{1,3})?")
_MOST_THREADS = 4096
_LONGEST_WAIT = 86400  # seconds
_LAST_SEED = 2**32 - 1

Record = TypeVar("Record")


def read_overfit(
    section: Section, defaults: OverfitSettings, folder: Path, *, two_view: bool, data: str = "render"
) -> OverfitSettings:
    """Reads the section.

    Args:
        defaults: what stands for a key that is not given.
        folder: what relative paths are relative to.
        two_view: the section belongs to a config: camera and depth are losses, which are never below 0, and
            ``train_val`` needs the validation split that ``defaults`` switch it on for.
        data: the source that ``data.train`` speaks for where the section names none.
    """
    section.only(field.name for field in fields(OverfitSettings))
    pair = _read_pair(section.section("pair"), folder, data)
    device = _read_device(section, defaults.device)
    seeds = _read_seeds(section)
    return OverfitSettings(
        pair=pair,
        import_roots=_read_roots(section, folder),
        prepare_batch=_read_dotted(section, "prepare_batch"),
        checkpoint=_read_checkpoint(section, folder),
        steps_per_epoch=section.number("steps_per_epoch", defaults.steps_per_epoch, at_least=1, whole=True),
        half_pixel_depth=section.switch("half_pixel_depth", defaults.half_pixel_depth),
        device=device,
        require_gpu=_read_require_gpu(section, device),
        threads=_read_threads(section, defaults.threads),
        deterministic=section.switch("deterministic", defaults.deterministic),
        seeds=seeds,
        pass_at_least=_read_pass_at_least(section, seeds),
        amp=_read_amp(section),
        keep_trained=section.switch("keep_trained", defaults.keep_trained),
        budget=_read_budget(section.section("budget"), defaults.budget),
        criteria=_read_criteria(section.section("criteria"), defaults.criteria, two_view),
        probes=_read_probes(section.section("probes"), defaults.probes),
        diagnose=section.switch("diagnose", defaults.diagnose),
        diagnose_seconds=section.number("diagnose_seconds", defaults.diagnose_seconds, above=0),
        distributed=_read_distributed(section.section("distributed"), defaults.distributed),
    )


def _read_pair(section: Section, folder: Path, data: str) -> PairSource:
    section.only(field.name for field in fields(PairSource))
    source = section.choice("source", data, ("dataset", "render", "cut", "trainer"))
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


def _read_roots(section: Section, folder: Path) -> tuple[Path, ...]:
    names = section.texts("import_roots")
    given = Section(dict(enumerate(names)), section.path("import_roots"), section.problems)
    roots = [root for index in given.values if (root := given.file(index, folder)) is not None]
    for root in roots:
        if not root.is_dir():
            section.problem("import_roots", shown(str(root)), "folders that are there")
    return tuple(roots)


def _read_dotted(section: Section, name: str) -> str | None:
    dotted = section.text(name, None)
    if dotted is not None and ("." not in dotted or not all(part.isidentifier() for part in dotted.split("."))):
        section.problem(name, shown(dotted), "a dotted Python name, such as package.module.function")
        return None
    return dotted


def _read_checkpoint(section: Section, folder: Path) -> Any:
    if section.get("checkpoint") in ("none", False):
        return "none"
    return section.file("checkpoint", folder)


def _read_device(section: Section, default: str) -> str:
    value = section.get("device")
    if value is None:
        return default
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        section.problem("device", shown(value), DEVICES)
        return default
    return value


def _read_require_gpu(section: Section, device: str) -> bool:
    required = section.switch("require_gpu", False)
    if required and device == "cpu":
        section.problem("require_gpu", "true beside device: cpu", "false, or another device")
    return required


def _read_threads(section: Section, default: Any) -> Any:
    if section.get("threads") in ("auto", "keep"):
        return section.get("threads")
    before = len(section.problems)
    threads = section.number("threads", default, at_least=1, at_most=_MOST_THREADS, whole=True)
    _reword(section, before, f"auto, keep, or a whole number from 1 to {_MOST_THREADS}")
    return threads


def _read_seeds(section: Section) -> tuple[int, ...]:
    value = section.get("seeds")
    if value is None:
        return ()
    items = Section(dict(enumerate(value if isinstance(value, list) else [value])), "", [])
    seeds = [items.number(index, None, at_least=0, at_most=_LAST_SEED, whole=True) for index in tuple(items.values)]
    if items.problems or None in seeds or not seeds or len({*seeds}) < len(seeds):
        section.problem("seeds", shown(value), f"distinct whole numbers from 0 to {_LAST_SEED}: one, or a list")
        return ()
    return tuple(seeds)


def _read_pass_at_least(section: Section, seeds: Collection[int]) -> Any:
    wanted, runs = section.number("pass_at_least", None, at_least=1, whole=True), max(1, len(seeds))
    if wanted is not None and wanted > runs:
        section.problem("pass_at_least", f"{wanted}, more than the number of seeds", f"a whole number from 1 to {runs}")
    return wanted


def _read_amp(section: Section) -> AmpConfig | None:
    value = as_switch(section.get("amp"))
    if value is None:
        return None
    if value not in (False, "bfloat16", "float16"):
        section.problem("amp", shown(value), "false | bfloat16 | float16")
        return None
    return AmpConfig(True, value) if value else AmpConfig(False)


def _read_budget(section: Section, default: Budget) -> Budget:
    section.only(field.name for field in fields(Budget))
    steps = section.number("max_steps", default.max_steps, at_least=1, whole=True)
    hold = default.hold_steps if steps is None else min(default.hold_steps, steps)  # in a run of three steps: all three
    return Budget(
        max_steps=steps,
        max_seconds=section.number("max_seconds", default.max_seconds, above=0),
        hold_steps=section.number("hold_steps", hold, at_least=1, whole=True),
    )


def _read_probes(section: Section, default: Probes) -> Probes:
    section.only(field.name for field in fields(Probes))
    return Probes(
        sensitivity=section.switch("sensitivity", default.sensitivity),
        gradient_every=section.number("gradient_every", default.gradient_every, at_least=1, whole=True),
    )


def _read_distributed(section: Section, default: Distributed) -> Distributed:
    section.only(field.name for field in fields(Distributed))
    return Distributed(
        strategy=section.choice("strategy", default.strategy, ("ddp", "fsdp")),
        timeout=section.number("timeout", default.timeout, above=0, at_most=_LONGEST_WAIT),
        modules=section.texts("modules"),
    )


def _read_allowed(section: Section) -> tuple[str, ...]:
    ids = section.texts("allow")
    for name in ids:
        if name not in IDS and "." not in name:
            guess = nearest(name, IDS)
            section.problem(
                "allow", shown(name), "ids of docs/causes.md" + (f"; did you mean {guess!r}?" if guess else "")
            )
    return ids


def _read_criteria(section: Section, default: Criteria, two_view: bool) -> Criteria:
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
    if not set(criteria.names()) - {"defects"}:  # a run without a mistake need not have learnt anything
        section.problem("", "every criterion switched off", "at least one: a gate without criteria proves nothing")
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
        _reword(section, before, f"{section.problems[-1].allowed}, {{below: number}}, {{above: number}}, or false")
    return default if below is None else Limit(below)


def _read_limit(section: Section, floor: float | None) -> Limit | None:
    section.only(field.name for field in fields(Limit))
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


def _reword(section: Section, before: int, allowed: str) -> None:
    """Says what else is allowed in the problem, if any, that was added since there were ``before``."""
    if len(section.problems) > before:
        section.problems[-1] = replace(section.problems[-1], allowed=allowed)


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
