"""The strict ``overfit:`` section: where the pair comes from, the budget, the seeds, the device."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pytest_overfit.settings.criteria_section import read_criteria
from pytest_overfit.settings.problems import shown
from pytest_overfit.settings.section import Section, as_switch
from pytest_overfit.settings.settings import AmpConfig, Budget, Distributed, OverfitSettings, PairSource, Probes

DEVICES = "auto | model | cpu | cuda | cuda:N | mps | xpu"
_DEVICE = re.compile(r"auto|model|cpu|mps|(cuda|xpu)(:\d{1,3})?")
_MOST_THREADS = 4096
_LONGEST_WAIT = 86400  # seconds
_LAST_SEED = 2**32 - 1


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
        import_roots=_read_folders(section, "import_roots", folder),
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
        criteria=read_criteria(section.section("criteria"), defaults.criteria, two_view),
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
        follow_links=_read_follow_links(section, folder),
    )


def _read_follow_links(section: Section, folder: Path) -> bool | tuple[Path, ...]:
    value = as_switch(section.get("follow_links"))
    if value is None or isinstance(value, bool):
        return bool(value)
    before = len(section.problems)
    roots = _read_folders(section, "follow_links", folder)
    if not roots and len(section.problems) == before:
        section.problem("follow_links", shown(value))
    if len(section.problems) > before:
        section.reword(before, "false, true (anywhere), or a list of folders that are there")
    return roots


def _read_folders(section: Section, name: str, folder: Path) -> tuple[Path, ...]:
    names = section.texts(name)
    given = replace(section, values=dict(enumerate(names)), key=section.path(name))
    folders = [found for index in given.values if (found := given.file(index, folder)) is not None]
    for found in folders:
        if not found.is_dir():
            section.problem(name, shown(str(found)), "folders that are there")
    return tuple(folders)


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
    section.reword(before, f"auto, keep, or a whole number from 1 to {_MOST_THREADS}")
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
