"""What a trainer has outside of its model, loss and optimizer: data classes, a checkpoint, one source of the pair.

And its settings that make the "one sample" a new sample at every step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_overfit.run.record import ALL_AT_ONCE
from pytest_overfit.settings.problems import Problem, shown
from pytest_overfit.settings.section import Section, as_switch
from pytest_overfit.settings.settings import OverfitSettings, PairSource
from pytest_overfit.trainer.config import DEFAULT_ASPECT, CheckpointConfig, OverfitConfig, TrainerConfig
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


# Keys of `augs` that shape another augmentation and change nothing on their own.
_MODIFIERS = ("aspects", "cojitter_ratio", "use_discrete_aspect_ratios", "enable_image_aug")
_KINDS = {
    "color_jitter": "colours are jittered",
    "cojitter": "frames are jittered together or apart by chance",
    "gray_scale": "images lose their colour by chance",
    "gau_blur": "images are blurred by chance",
    "scales": "images are scaled by a random factor",
    "aspects": "the aspect ratio is drawn at random",
}


# Of those trainers too: another sample, other frames of it, or another orientation by chance.
_MAY_DRAW = ("inside_random", "get_nearby", "allow_duplicate_img", "landscape_check")
AUGMENTATIONS = (*_KINDS, *_MODIFIERS)


def sentences(common: Section) -> list[str]:
    """One sentence per setting of a split's ``common_config`` that makes the sample change.

    A config without that section is none of the trainer's, and inherits nothing random.

    Example:
        >>> sentences(Section({"fix_img_num": -1, "fix_aspect_ratio": 0.92}, "data.train.common_config", []))
        ['data.train.common_config.fix_img_num is -1: the number of frames is drawn at random; set it to 2']
    """
    found: list[str] = []
    if not common.values:
        return found
    frames = common.get("fix_img_num")
    if isinstance(frames, int) and frames != 2:
        what = (
            f"a sample has {frames} frames, a pair has two" if frames > 0 else "the number of frames is drawn at random"
        )
        found.append(f"{common.path('fix_img_num')} is {frames}: {what}; set it to 2")
    augs = common.get("augs")
    if not _fixed_aspect(common):
        found.append(
            f"{common.path('fix_aspect_ratio')} is {_state(common, 'fix_aspect_ratio')}: the aspect ratio is drawn at "
            f"random; set it (here {DEFAULT_ASPECT} is used)"
        )
        if isinstance(augs, dict) and _varies(augs.get("aspects")):
            found.append(_sentence(common, "aspects", augs["aspects"]))
    if isinstance(augs, dict) and augs.get("enable_image_aug") is not False:
        found.extend(_sentence(common, name, value) for name, value in augs.items() if is_on(str(name), value))
    elif isinstance(augs, dict) and is_on("scales", augs.get("scales")):
        found.append(_sentence(common, "scales", augs["scales"]))
    return found


def trainer_sentences(common: Section) -> list[str]:
    """The same for a trainer whose own classes read the section (the ``DynamicTorchDataset`` family).

    There a positive ``fix_img_num`` fixes the aspect ratio too, without it both are drawn, from ``img_nums`` and
    ``augs.aspects``; and ``training: false`` switches the augmentation off as a whole.

    Example:
        >>> trainer_sentences(Section({"fix_img_num": -1, "img_nums": [2, 24]}, "data.train.common_config", []))
        ['data.train.common_config.fix_img_num is -1: the number of frames is drawn from img_nums [2, 24]; set it to 2']
    """
    found: list[str] = []
    frames, augs = common.get("fix_img_num"), common.get("augs")
    augs = augs if isinstance(augs, dict) else {}
    if not (isinstance(frames, int) and frames > 0):
        if _varies(common.get("img_nums")):
            found.append(
                f"{common.path('fix_img_num')} is {_state(common, 'fix_img_num')}: the number of frames is drawn from "
                f"img_nums {shown(common.get('img_nums'))}; set it to 2"
            )
        if _varies(augs.get("aspects")):
            found.append(
                f"{common.path('augs')}.aspects is {shown(augs['aspects'])}: the aspect ratio is drawn at random while "
                "fix_img_num is not positive; set fix_img_num to 2 and fix_aspect_ratio"
            )
    if as_switch(common.get("rescale_aug")) is True and as_switch(common.get("rescale")) is not False:
        found.append(f"{common.path('rescale_aug')} is true: images are rescaled by a random factor; set it to false")
    if common.get("training") is False:
        return found
    changing = [name for name, value in augs.items() if name != "cojitter" and is_on(str(name), value)]
    for name in changing:
        text = _sentence(common, name, augs[name])
        if name == "color_jitter":  # there null stands for a jitter of default strength
            text = f"{text.rpartition(';')[0]}; set its p to 0"
        found.append(f"{text}, or {common.path('training')} to false")
    return found


def all_at_once(common: Section) -> str:
    """What keeps the sample of such a trainer the same, as options to paste; empty where nothing makes it change.

    Example:
        >>> all_at_once(Section({"fix_img_num": -1, "img_nums": [2, 24]}, "data.train.common_config", []))
        'all at once: --overfit-set data.train.common_config.fix_img_num=2'
    """
    pasted = " ".join(f"--overfit-set {common.path(name)}={value}" for name, value in held_still(common).items())
    return f"{ALL_AT_ONCE}{pasted}" if pasted else ""


def held_still(common: Section) -> dict[str, str]:
    """The settings that keep the sample of such a trainer the same; empty where nothing makes it change."""
    told = trainer_sentences(common)
    values = {"fix_img_num": "2"} if any("fix_img_num" in text for text in told) else {}
    values |= {"rescale_aug": "false"} if any("rescale_aug is" in text for text in told) else {}
    values |= {"training": "false"} if any(f"{common.path('training')} to false" in text for text in told) else {}
    return values | {name: "false" for name in _MAY_DRAW if told and as_switch(common.get(name)) is True}


def trainer_notes(common: Section) -> list[str]:
    """One note on the switches by which such classes may draw at random, or not: two draws of a batch are compared.

    Example:
        >>> trainer_notes(Section({"inside_random": True, "get_nearby": True}, "data.train.common_config", []))
        ['data.train.common_config: inside_random, get_nearby may draw at random; set them to false']
    """
    on = [name for name in _MAY_DRAW if as_switch(common.get(name)) is True]
    if not on or common.get("training") is False:
        return []
    return [f"{common.key}: {', '.join(on)} may draw at random; set {'them' if len(on) > 1 else 'it'} to false"]


def _fixed_aspect(common: Section) -> bool:
    """Whether ``fix_aspect_ratio`` fixes anything: absent, null, 0 or less leave it to chance."""
    value = common.get("fix_aspect_ratio")
    return isinstance(value, (int, float)) and value > 0


def _state(common: Section, name: str) -> str:
    value = common.get(name)
    return "not set" if value is None else shown(value)


def _sentence(common: Section, name: str, value: Any) -> str:
    off = {"color_jitter": "null", "scales": "null", "aspects": "[1.0, 1.0]"}.get(name, "false")
    return (
        f"{common.path('augs')}.{name} is {shown(value)}: {_KINDS.get(name, 'an augmentation is on')}; set it to {off}"
    )


def is_on(name: str, value: Any) -> bool:
    """Whether this setting of ``augs`` changes a sample."""
    value = as_switch(value)
    if name in _MODIFIERS or (name.endswith("ratio") and name not in _KINDS):
        return False
    if name == "scales":
        return isinstance(value, list) and any(item != 1 for item in value)
    if isinstance(value, dict):
        return bool(value.get("p", 1) != 0)  # {} too: the trainer fills in its defaults
    return value is True or (isinstance(value, (int, float)) and value > 0) or (isinstance(value, str) and bool(value))


def _varies(value: Any) -> bool:
    return isinstance(value, list) and len(set(map(str, value))) > 1
