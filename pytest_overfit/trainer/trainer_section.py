"""What a trainer has outside of its model, loss and optimizer: data classes, checkpoint; and one source of the pair."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_overfit.settings.problems import Problem, shown
from pytest_overfit.settings.section import Section
from pytest_overfit.settings.settings import OverfitSettings, PairSource
from pytest_overfit.trainer.config import CheckpointConfig, OverfitConfig, TrainerConfig
from pytest_overfit.trainer.imports import find_path, with_found_paths

RESUME = "checkpoint.resume_checkpoint_path"
FROM_SCRATCH = "overfit.checkpoint=none trains from scratch"
FROZEN_FRESH = (
    "weights are frozen that no checkpoint has filled: --overfit-set optim.frozen_module_names=[] trains them"
)
NO_CLASS = "no.class"  # stands in where a problem is reported
# Workers prepare batches ahead of a loop; a run needs one batch, and draws it in its own process.
_IN_THIS_PROCESS: dict[str, Any] = {"num_workers": 0, "persistent_workers": False, "prefetch_factor": None}


def names_a_class(data: Section) -> bool:
    """Whether ``data.train`` names a class of the trainer's that hands out the batches."""
    return isinstance(data.silent().section("train").values.get("_target_"), str)


def read_trainer(top: Section, pair: PairSource, folder: Path) -> TrainerConfig | None:
    """The trainer's own data classes; None where this plugin reads the pair.

    Args:
        pair: where the batches come from.
        folder: what relative paths are looked up from.
    """
    if pair.source != "trainer":
        return None
    data = top.section("data")
    train, val = data.section("train"), data.section("val")
    if "_target_" not in train.values:
        train.problem("_target_", "nothing", "the class that hands out the batches, for a pair from the trainer")
        return None
    if val.values and "_target_" not in val.values:
        val.problem("_target_", "nothing", "a class that hands out the batches, as in data.train")
    accum = top.number("accum_steps", 1, at_least=1, whole=True)
    logged = top.section("logging").section("scalar_keys_to_log").section("train").texts("keys_to_log")
    return TrainerConfig(
        train=_in_this_process(with_found_paths(data.target("train", NO_CLASS), folder)),
        val=_in_this_process(with_found_paths(data.target("val", NO_CLASS), folder)) if val.values else None,
        accum_steps=accum,
        repeat_batch=train.section("common_config").switch("repeat_batch", False),
        logged=logged,
        own_clipper="_target_" in top.section("optim").section("gradient_clip").values,
    )


def steps_per_epoch(top: Section, settings: OverfitSettings, notes: list[str]) -> int:
    """``overfit.steps_per_epoch``, of which ``limit_train_batches`` leaves no more than it says."""
    limit = top.number("limit_train_batches", None, at_least=1, whole=True)
    if limit is None or top.silent().section("overfit").given("steps_per_epoch"):
        return settings.steps_per_epoch
    if limit > settings.steps_per_epoch:
        notes.append(
            f"limit_train_batches is {limit} and has no effect: an epoch repeats the one batch "
            f"{settings.steps_per_epoch} times (overfit.steps_per_epoch)"
        )
    return min(int(limit), settings.steps_per_epoch)


def read_checkpoint(
    top: Section, settings: OverfitSettings, folder: Path, problems: list[Problem], notes: list[str]
) -> CheckpointConfig:
    """The weights to start from; a file that is not there is a problem, never a fresh start."""
    section = top.section("checkpoint")
    strict = section.switch("strict", False)
    if settings.checkpoint == "none":
        if section.given(RESUME.rpartition(".")[2]) and top.silent().section("optim").texts("frozen_module_names"):
            notes.append(FROZEN_FRESH)
        return CheckpointConfig(None, strict)
    if isinstance(settings.checkpoint, Path):
        path, key = settings.checkpoint, "overfit.checkpoint"
    else:
        text = section.text("resume_checkpoint_path", None)
        if text is None:
            return CheckpointConfig(None, strict)
        path, key = find_path(text, folder) or folder / text, RESUME
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on names that are too long
        problems.append(Problem(key, f"{shown(str(path))}: no such file", "a checkpoint that is there", FROM_SCRATCH))
    return CheckpointConfig(path, strict, key)


def _in_this_process(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _IN_THIS_PROCESS.get(name, value) for name, value in section.items()}


_SOURCE = "overfit.pair.source"
_OF_A_DATASET = ("ROOT", "split_file", "segmentation_root")
_OF_A_CUT = ("source_root", "source_seg_root", "source_npz")
_OF_A_RENDER = ("seed", "width", "height")
_ONE = "one source of the pair"


def expect_one_source(config: OverfitConfig, top: Section, notes: list[str]) -> None:
    """Adds a problem where the config speaks for a source that is not the one that is used.

    A source that the command line or a marker states against a config's ROOT is a choice, and noted.
    """
    source = config.overfit.pair.source
    pair, data = top.silent().section("overfit").section("pair"), top.silent().section("data")
    stated: list[str] = []
    for split in ("train", "val") if config.val else ("train",):
        dataset = dataset_of(data, split)
        if source == "dataset" and not dataset.given("ROOT"):
            where = dataset.path("ROOT")
            top.problems.append(Problem(where, "nothing", "the dataset's folder, for a pair from a dataset"))
        elif source in ("render", "cut"):
            stated += [dataset.path(name) for name in _OF_A_DATASET if dataset.given(name)]
    if all(_is_chosen_over(config, key) for key in stated):
        notes += [f"{key} has no effect: {_SOURCE} is {source}" for key in stated]
    else:
        _two_sources(stated, config, top, instead="dataset")
    if source != "cut" and pair.given("source"):
        _two_sources([pair.path(name) for name in _OF_A_CUT if pair.given(name)], config, top, instead="cut")
    if source in ("render", "trainer") and config.overfit.pair.pair_index:
        found = f"{config.overfit.pair.pair_index} beside {_SOURCE}: {source}, which has no index"
        top.problems.append(Problem(pair.path("pair_index"), found, "0, or a pair out of a dataset or a cut"))
    unused = [name for name in _OF_A_RENDER if getattr(config.overfit.pair, name) != getattr(PairSource(), name)]
    if source in ("render", "trainer") and config.overfit.pair.follow_links:
        notes.append(f"{pair.path('follow_links')} has no effect: {_SOURCE} is {source}")
    if source != "render" and unused:
        notes.append(f"{', '.join(map(pair.path, unused))}: no effect, nothing is rendered ({_SOURCE} is {source})")


def _two_sources(keys: Sequence[str], config: OverfitConfig, top: Section, *, instead: str) -> None:
    """One problem for all the keys of the other source."""
    if not keys:
        return
    found = f"a setting of another source beside {_SOURCE}: {config.overfit.pair.source}"
    hint = f"set {_SOURCE} to {instead}, or leave out {', '.join(keys)}"
    top.problems.append(Problem(keys[0], found, _ONE, hint))


def dataset_of(data: Section, split: str) -> Section:
    """``data.<split>.dataset.dataset_configs[0]``."""
    dataset = data.section(split).section("dataset")
    entries = dataset.sections("dataset_configs")
    return entries[0] if entries else replace(data, values={}, key=f"{dataset.path('dataset_configs')}[0]")


def _is_chosen_over(config: OverfitConfig, key: str) -> bool:
    """Whether the source is stated by a stronger place than the key: the command line or a marker over the file."""
    weak = (config.path.name, "default", "ini")
    return config.origin(_SOURCE) not in weak and config.origin(key) in weak
