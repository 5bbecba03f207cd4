"""From a composed tree to an `OverfitConfig`: every known key's type and range, all problems collected.

The trainer's own sections may hold anything else: such keys are carried along, and told of (`unread`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.criteria_registry import entries
from pytest_overfit.settings.criteria_section import read_overfit
from pytest_overfit.settings.problems import Problem, Unusable, shown
from pytest_overfit.settings.secret import Secret, hide, masked_name, plain
from pytest_overfit.settings.section import Section
from pytest_overfit.settings.settings import AmpConfig, ClipGroup, OverfitSettings
from pytest_overfit.trainer import trainer_section
from pytest_overfit.trainer.arguments import has_argument
from pytest_overfit.trainer.compose import Tree
from pytest_overfit.trainer.config import (
    DEFAULT_ASPECT,
    DEFAULT_LOSS,
    DEFAULT_MODEL,
    DEFAULT_OPTIMIZER,
    LoggingConfig,
    OverfitConfig,
    SplitConfig,
)
from pytest_overfit.trainer.imports import find_import_roots
from pytest_overfit.trainer.trainer_section import dataset_of, expect_one_source
from pytest_overfit.trainer.unread import Unread, overridden, unread

_SECTIONS = ("data", "model", "loss", "optim", "logging", "checkpoint", "overfit")
_SIZE: dict[str, Any] = {"at_least": 1, "at_most": 8192, "whole": True}
_WORKERS: dict[str, Any] = {"at_least": 0, "at_most": 1024, "whole": True}
_LOSS: dict[str, Any] = {
    "camera": {"weight": 5.0, "loss_type": "l1"},
    "depth": {"weight": 1.0, "gradient_loss_fn": "grad", "valid_range": 0.98},
}


def _name(top: Section, tree: Tree, default: str) -> str:
    """The name of the run, and of its log folder."""
    text: str = top.text("exp_name", default)
    return masked_name(top.get("exp_name"), tree.secrets) if isinstance(top.get("exp_name"), Secret) else text


def build_config(
    path: Path, tree: Tree, beside: Callable[[OverfitConfig], Iterable[OverfitError]] = lambda config: ()
) -> OverfitConfig:
    """Checks every known key and builds the record.

    Args:
        beside: what else is wrong with a config that has problems.

    Raises:
        Unusable: with every problem of this config, those of composition included.
    """
    problems: list[Problem] = list(tree.problems)
    top = Section(tree.values, "", problems)
    _expect_nested(top)
    notes: list[str] = []
    width, patch = (top.number(name, size, **_SIZE) for name, size in (("img_size", 518), ("patch_size", 14)))
    sizes = (width, patch)
    data = top.section("data")
    train = _read_split(data, "train", sizes, path.parent, notes)
    val = _read_split(data, "val", sizes, path.parent, notes) if data.get("val") is not None else None
    loss = _read_loss(top)
    overfit = _read_overfit(top, _default_criteria(loss, has_val=val is not None), path.parent, notes)
    optim, amp = top.section("optim"), top.section("optim").section("amp")
    config = OverfitConfig(
        path=path,
        exp_name=_name(top, tree, path.stem),
        img_size=sizes[0],
        patch_size=sizes[1],
        seed=top.number("seed_value", 42, at_least=0, at_most=2**32 - 1, whole=True),
        max_epochs=top.number("max_epochs", 100, at_least=1, whole=True),
        val_epoch_freq=top.number("val_epoch_freq", 10, at_least=1, whole=True),
        num_workers=_read_workers(top, data),
        train=train,
        val=val,
        model=top.target("model", DEFAULT_MODEL),
        loss=loss,
        optimizer=_read_optimizer(optim),
        frozen_module_names=optim.texts("frozen_module_names"),
        amp=AmpConfig(amp.switch("enabled", False), amp.choice("amp_dtype", "bfloat16", ("bfloat16", "float16"))),
        gradient_clip=_read_clip(optim.section("gradient_clip")),
        lr_schedule=_read_schedule(optim.section("options"), "lr", notes),
        weight_decay_schedule=_read_schedule(optim.section("options"), "weight_decay", notes),
        logging=_read_logging(top.section("logging"), Path() if trainer_section.names_a_class(data) else path.parent),
        overfit=overfit,
        import_roots=overfit.import_roots or find_import_roots(path.parent, tree.values),
        checkpoint=trainer_section.read_checkpoint(top, overfit, path.parent, problems, notes),
        trainer=trainer_section.read_trainer(top, overfit.pair, path.parent),
        randomness=tuple(_read_randomness(data, notes, own=overfit.pair.source == "trainer")),
        resolved=plain(tree.values),
        origins=tree.origins,
        hidden=frozenset(tree.hidden),
        secrets=tuple(sorted(tree.secrets_beside(top.reads.paths))),
    )
    expect_one_source(config, top, notes)
    config = _with_hold(config, top, problems)
    left = _left(tree, top, config)
    if problems or left.problems:
        _refuse([*left.problems, *problems], config, beside)
    said = tuple(hide(note, config.secrets) for note in (*notes, *overridden(config), *left.notes))
    return replace(config, notes=said, randomness=tuple(hide(text, config.secrets) for text in config.randomness))


def _left(tree: Tree, top: Section, config: OverfitConfig) -> Unread:
    """What nothing here reads of a config that has been read."""
    of_a_trainer = trainer_section.names_a_class(top.silent().section("data"))
    takes = partial(_takes, config)
    return unread(tree.values, top.reads, referred=tree.referred, of_a_trainer=of_a_trainer, takes=takes)


def _takes(config: OverfitConfig, target: str, name: str) -> bool:
    """Whether a class has an argument of this name, looked up only where it is like a key that is read here."""
    from pytest_overfit.trainer.build import at_home
    from pytest_overfit.trainer.instantiate import find_target

    try:
        with at_home(config, group=False):
            return has_argument(find_target(target, where=target), name)
    except OverfitError:
        return False


def _refuse(
    problems: Sequence[Problem], config: OverfitConfig, beside: Callable[[OverfitConfig], Iterable[OverfitError]]
) -> None:
    more = [_problem(error, config.path) for error in beside(config)]
    left = [each for each in problems if not any(_mends(other, each) for other in more)]
    raise Unusable(*(each.hiding(config.secrets) for each in dict.fromkeys((*left, *more))))


def _mends(refused: Problem, missing: Problem) -> bool:
    """Whether a key that is referred to is there once one that its class does not take is called so."""
    found = re.search(r"but there is no key ([\w.]+)\.(\w+)$", missing.found)
    return (
        found is not None
        and refused.key.startswith(f"{found[1]}.")
        and re.search(rf"\b{found[2]}[:=]", refused.hint) is not None
    )


def _problem(error: OverfitError, path: Path) -> Problem:
    return Problem((error.where or "").removesuffix(f" of {path}"), error.found, error.allowed or "", error.hint or "")


def _read_overfit(top: Section, criteria: Criteria, folder: Path, notes: list[str]) -> OverfitSettings:
    """The section of ours, whose defaults the rest of the config decides."""
    data, defaults = top.section("data"), OverfitSettings(criteria=criteria)
    source = "dataset" if dataset_of(data.silent(), "train").given("ROOT") else "render"
    source = "trainer" if trainer_section.names_a_class(data) else source
    overfit = read_overfit(top.section("overfit"), defaults, folder, in_config=True, data=source)
    return replace(overfit, steps_per_epoch=trainer_section.steps_per_epoch(top, overfit, notes))


def _expect_nested(top: Section) -> None:
    """A key such as ``overfit.budget.max_steps:`` at the top level is one odd name to YAML, and would be ignored."""
    for name in map(str, top.values):
        if name.partition(".")[0] in _SECTIONS and "." in name:
            top.problem(name, "a dotted key", f"nested mappings, {name.replace('.', ': {', 1)}: …}}, or an override")


def _default_criteria(loss: Mapping[str, Any], *, has_val: bool) -> Criteria:
    """Without the terms that the loss leaves out; with the agreement of the splits where there are two."""
    limits = [name for name, entry in entries().items() if entry.limit]
    off = {name: None for name in limits if name in loss and loss[name] is None}
    return Criteria(in_config=True, given={**off, "train_val": has_val})


def _read_split(data: Section, split: str, sizes: tuple[int, int], folder: Path, notes: list[str]) -> SplitConfig:
    section = data.section(split)
    common, dataset = section.section("common_config"), dataset_of(data, split)
    entries = section.section("dataset").sections("dataset_configs")
    if section.section("dataset").get("dataset_configs") == []:
        section.problem("dataset.dataset_configs", "[]", "a list of one dataset, or nothing")
    if len(entries) > 1 and "_target_" not in section.values:
        notes.append(f"{section.path('dataset.dataset_configs')} has {len(entries)} entries: only the first is used")
    aspect = common.number("fix_aspect_ratio", DEFAULT_ASPECT, at_most=100)
    root = dataset.file("ROOT", folder)
    file = dataset.file("split_file", folder)
    config = SplitConfig(
        img_size=common.number("img_size", sizes[0], at_least=1, at_most=8192, whole=True),
        patch_size=common.number("patch_size", sizes[1], at_least=1, at_most=8192, whole=True),
        root=root,
        split_file=root / f"{split}.npz" if file is None and root is not None else file,
        segmentation_root=dataset.file("segmentation_root", folder),
        remove_sky=dataset.switch("remove_sky", True),
        max_depth=dataset.number("max_depth", 2000.0, above=0),
        depth_percentile=dataset.number("depth_percentile", 98.0, above=50, at_most=100),
        fix_img_num=_read_frames(common, data),
        aspect_ratio=aspect if aspect > 0 else DEFAULT_ASPECT,
        augs=_read_augs(common.section("augs")),
        len_train=dataset.number("len_train", None, at_least=1, whole=True),
        len_test=dataset.number("len_test", None, at_least=1, whole=True),
    )
    _expect_patches(config, common)
    for name in ("len_train", "len_test"):
        if dataset.given(name):
            notes.append(f"{dataset.path(name)} has no effect: a run has overfit.steps_per_epoch steps per epoch")
    return config


def _read_frames(common: Section, data: Section) -> int:
    """A pair has two frames. (What draws their number, 0 and below, is told of as random.)"""
    frames = common.number("fix_img_num", 2, at_least=-1, whole=True)
    if frames not in (-1, 0, 2) and not trainer_section.names_a_class(data):
        common.problem("fix_img_num", f"{frames}, for a pair", "2, the frames of a pair")
    return int(frames)


def _read_augs(section: Section) -> dict[str, Any]:
    """As they are. One that we do not know is read all the same where it is on: it is told of as random."""
    for name, value in {**dict.fromkeys(trainer_section.AUGMENTATIONS), **section.values}.items():
        if name in trainer_section.AUGMENTATIONS or trainer_section.is_on(str(name), value):
            section.get(name)
    return section.values


def _expect_patches(split: SplitConfig, common: Section) -> None:
    """Width and height are whole numbers of patches. The two splits share their keys' problems: reported once."""
    own = common.given("img_size")
    top = common if own else replace(common, key="")
    if split.img_size % split.patch_size:
        down = split.img_size // split.patch_size * split.patch_size
        near = " or ".join(str(size) for size in (down, down + split.patch_size) if size)
        top.problem("img_size", str(split.img_size), f"a multiple of patch_size {split.patch_size}", f"such as {near}")
    elif split.height < split.patch_size:
        found = f"{split.aspect_ratio:g}, which makes a height of 0"
        common.problem("fix_aspect_ratio", found, f"at least one patch of {split.patch_size} pixels")


def _read_randomness(data: Section, notes: list[str], *, own: bool) -> list[str]:
    """``own``: the trainer's classes read these settings, as such trainers do."""
    silent = data.silent()
    commons = [silent.section(name).section("common_config") for name in ("train", "val") if silent.given(name)]
    if own:
        notes += [note for common in commons for note in trainer_section.trainer_notes(common)]
    read = trainer_section.trainer_sentences if own else trainer_section.sentences
    told = [text for common in commons for text in read(common)]
    return told + [text for common in commons if own and (text := trainer_section.all_at_once(common))]


def _read_workers(top: Section, data: Section) -> int:
    count = top.number("num_workers", 0, **_WORKERS)
    train, _ = (data.section(split).number("num_workers", count, **_WORKERS) for split in ("train", "val"))
    return int(train)


def _read_loss(top: Section) -> dict[str, Any]:
    section = top.section("loss")
    names = list(_LOSS)
    if not section.silent().text("_target_", DEFAULT_LOSS).startswith("pytest_overfit."):
        # A class of the user's own: under these names it may take anything else.
        names = [name for name in names if section.get(name) is None or isinstance(section.get(name), dict)]
    terms = [section.section(name) for name in names]
    for term in terms:
        term.number("weight", None, at_least=0)
        if term.key.endswith("camera"):
            term.text("loss_type", None)
        else:
            term.text("gradient_loss_fn", None)
            _read_valid_range(term)
    loss = top.target("loss", DEFAULT_LOSS)
    return loss if section.values else {**loss, **deepcopy(_LOSS)}


def _read_valid_range(depth: Section) -> None:
    """The share of the errors that count: with few of them a depth passes that is wrong nearly everywhere."""
    before, written = len(depth.problems), depth.get("valid_range")
    share = depth.number("valid_range", None)
    if len(depth.problems) == before and share is not None and share != 0 and not 0.5 <= share <= 1:
        depth.problem("valid_range", shown(written))
    if len(depth.problems) > before:
        depth.reword(before, "the share of the errors that count, from 0.5 to 1; null or 0 leaves none out")


def _read_optimizer(optim: Section) -> dict[str, Any]:
    section = optim.section("optimizer")
    for name in ("lr", "weight_decay", "eps", "momentum"):
        section.number(name, None, at_least=0)
    section.numbers("betas", at_least=0, under=1)
    return optim.target("optimizer", DEFAULT_OPTIMIZER)


def _read_clip(section: Section) -> tuple[ClipGroup, ...]:
    groups = []
    for entry in section.sections("configs"):
        before = len(entry.problems)
        names = entry.texts("module_name")
        if not names and len(entry.problems) == before:
            entry.problem("module_name", "nothing", "the modules that are clipped together")
        norm = entry.number("max_norm", None, above=0, infinite=True)
        if not entry.given("max_norm"):
            entry.problem("max_norm", "nothing", "a number above 0")
        groups.append(ClipGroup(names, norm or 1.0, entry.number("norm_type", 2.0, above=0, infinite=True)))
    return tuple(groups)


def _read_schedule(options: Section, name: str, notes: list[str]) -> Mapping[str, Any] | None:
    """``optim.options.<name>``: a list of ``{scheduler: {_target_: ...}}``, or one such mapping."""
    one = isinstance(options.get(name), dict)
    entries = [options.section(name)] if one else options.sections(name)
    if not entries:
        return None
    if len(entries) > 1:
        notes.append(f"{options.path(name)} has {len(entries)} entries: only the first is used, for all parameters")
    first = entries[0]
    if "_target_" in first.values:  # the schedule itself, without the trainer's wrapping
        first.get("_target_")
        first.hand_over()
        return plain(first.values)  # type: ignore[no-any-return]
    if "_target_" not in first.section("scheduler").values:
        first.problem("scheduler", shown(first.get("scheduler")), "a mapping with a _target_, such as fvcore's")
        return None
    return first.target("scheduler", "")


def _read_logging(section: Section, folder: Path) -> LoggingConfig:
    """A trainer's log folder lies below where it is started, any other beside its config."""
    keys = section.section("scalar_keys_to_log")
    return LoggingConfig(
        log_dir=section.file("log_dir", folder.absolute()),
        log_freq=section.number("log_freq", 1, at_least=1, whole=True),
        log_visuals=section.switch("log_visuals", False),
        scalar_keys={
            split: keys.section(split).texts("keys_to_log") for split in ("train", "val") if keys.get(split) is not None
        },
    )


def _with_hold(config: OverfitConfig, top: Section, problems: list[Problem]) -> OverfitConfig:
    budget, planned = config.overfit.budget, config.planned_steps
    if not top.section("overfit").section("budget").given("hold_steps"):
        return replace(config, overfit=replace(config.overfit, budget=budget.fitting(planned)))
    if (hold := budget.hold_steps) > planned:
        found = f"{hold}, more than the {planned} steps of the run"
        problems.append(Problem("overfit.budget.hold_steps", found, f"at most {planned}"))
    return config
