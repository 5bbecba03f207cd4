"""What a config says and nothing here reads, or something else overrides: misspellings are problems, the rest notes.

Which keys are read is not listed anywhere: every section notes what it is asked for (`Reads`), a section that goes to a
class is read by that class, and a key that an interpolation names is read by whoever reads the interpolation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from pytest_overfit.errors.suggest import nearest, shorten
from pytest_overfit.settings.problems import Problem, misspelt, one_letter_off, shown
from pytest_overfit.settings.section import Reads
from pytest_overfit.trainer.config import OverfitConfig

# Keys of a VGGT-style trainer that change nothing about one sample or its loss: told in one line, whatever their value.
_TRAINERS = re.compile(
    r"mode|accum_steps|limit_(train|val)_batches|max_img_per_gpu|distributed|cuda|env_variables"
    r"|checkpoint\.save_\w+|logging\.(tensorboard_writer|log_level_\w+|all_ranks|log_visual_frequency|wandb\w*)"
    r"|optim\.(param_group_modifiers|gradient_clip\._target_)"
    r"|data\.\w+\.(num_workers|shuffle|pin_memory|drop_last|persistent_workers|prefetch_factor|max_img_per_gpu)"
    r"|data\.(.+\.)?_(target|partial|recursive|convert)_"
    r"|data\.\w+\.dataset\.dataset_configs\[\d+\]\.(split|expand_range|expand_ratio|len_train|len_test)"
    r"|data\.\w+\.common_config\.(training|img_nums|rescale|load_\w+|track_num|debug|max_img_per_gpu|repeat_batch"
    r"|inside_random|get_nearby|allow_duplicate_img|landscape_check|rescale_aug)"
)
# Sections in which such a trainer may have any key: in the same line, where a key is like none that is read.
_LOOSE = re.compile(r"(checkpoint|logging)\..+|.+\.common_config\.augs\.\w+")
# Where such a trainer draws at random while it is switched on; our own data path has nothing of it.
_CHANGING = re.compile(
    r".+\.common_config\.(repeat_batch|inside_random|get_nearby|allow_duplicate_img|landscape_check|rescale_aug)"
)
# What other projects call a key that is read here; the rest is found by likeness.
MEANT = {
    "seed": "seed_value", "randomseed": "seed_value", "net": "model", "network": "model", "arch": "model",
    "criterion": "loss", "losses": "loss", "learningrate": "optim.optimizer.lr", "lr": "optim.optimizer.lr",
    "optimiser": "optim.optimizer",
    "wd": "optim.optimizer.weight_decay", "scheduler": "optim.options.lr", "lrscheduler": "optim.options.lr",
    "schedule": "optim.options.lr", "dtype": "optim.amp.amp_dtype", "precision": "optim.amp.amp_dtype",
    "clip": "optim.gradient_clip.configs", "gradclip": "optim.gradient_clip.configs",
    "clipgradnorm": "optim.gradient_clip.configs", "maxgradnorm": "optim.gradient_clip.configs",
    "freeze": "optim.frozen_module_names", "epochs": "max_epochs", "numepochs": "max_epochs", "nepochs": "max_epochs",
    "steps": "overfit.budget.max_steps", "numsteps": "overfit.budget.max_steps",
    "iterations": "overfit.budget.max_steps", "maxiter": "overfit.budget.max_steps",
    "maxtime": "overfit.budget.max_seconds", "timeout": "overfit.budget.max_seconds",
    "threshold": "overfit.criteria.objective", "thresholds": "overfit.criteria", "limit": "overfit.criteria.objective",
    "limits": "overfit.criteria", "targetloss": "overfit.criteria.objective", "name": "exp_name",
    "experiment": "exp_name", "imagesize": "img_size", "resolution": "img_size", "size": "img_size",
    "workers": "num_workers", "dataroot": "ROOT", "datadir": "ROOT", "rootdir": "ROOT", "path": "ROOT",
    "logdir": "logging.log_dir", "outputdir": "logging.log_dir", "resume": "checkpoint.resume_checkpoint_path",
    "pretrained": "checkpoint.resume_checkpoint_path", "ckpt": "checkpoint.resume_checkpoint_path",
    "augmentation": "augs", "augmentations": "augs", "transforms": "augs",
}  # fmt: skip
_NEAR, _NEAR_ELSEWHERE = 0.6, 0.8
_MOST_LINES = 6
_MOST_NAMES = 12


@dataclass(frozen=True)
class Unread:
    """What is to be said of the keys that nothing reads."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def unread(
    values: Mapping[Any, Any],
    reads: Reads,
    *,
    referred: Set[str],
    of_a_trainer: bool,
    takes: Callable[[str, str], bool] = lambda target, name: False,
) -> Unread:
    """Looks through a config that has been read.

    Args:
        values: the composed config, plain containers.
        referred: dotted keys that interpolations name.
        of_a_trainer: the config is a trainer's own, whose further keys are none of ours.
        takes: whether a class, by its dotted name, takes an argument of this name.
    """
    every = _unread(values, reads, "", handed=False)
    found = [each for each in every if not (each.certain and each.target and takes(each.target, each.name))]
    certain = [each for each in found if each.certain]
    original = {(each.name, str(each.value)): each.key for each in certain if _is_referred(each.key, referred)}
    problems = [
        Problem(each.key, "an unknown key", hint=f"did you mean {each.certain}?")
        for each in certain
        if original.get((each.name, str(each.value)), each.key) == each.key  # else it is a copy by ${...}
    ]
    lines, trainers, strangers = [], [], []
    for each in found:
        its_trainers = _is_a_trainers(each.key, each.value)
        near = None if its_trainers else _near(each, reads)
        if each.certain or each.value is None or _is_referred(each.key, referred):
            continue
        if each.handed:
            lines += [f"{each.key}: left to the class; {near} is read here"] if near else []
        elif _CHANGING.fullmatch(each.key) and each.value not in (False, 0):
            lines.append(f"{each.key} is {shown(each.value)}: not applied here, where the sample is always the same")
        elif its_trainers or (near is None and (of_a_trainer or _LOOSE.fullmatch(each.key))):
            trainers.append(each.key)
        elif near is not None:
            lines.append(f"{each.key}: nothing here reads it; {near} is read")
        else:
            strangers.append(each.key)
    if len(strangers) <= _MOST_LINES:
        lines += [f"{key}: nothing here reads it" for key in strangers]
    else:
        lines.append(f"{len(strangers)} keys that nothing here reads: {shorten(strangers, _MOST_NAMES)}")
    if trainers:
        many = (
            f"{len(trainers)} keys that only a trainer reads"
            if len(trainers) > 1
            else "a key that only a trainer reads"
        )
        lines.append(f"{many}: {shorten(trainers, _MOST_NAMES)}")
    return Unread(tuple(problems), tuple(lines))


@dataclass(frozen=True)
class _Key:
    """A key that is not asked for.

    ``handed``: a class gets it, by itself that of ``target``; ``certain``: what it is a misspelling of.
    """

    section: str
    name: str
    value: Any
    handed: bool
    siblings: tuple[str, ...]
    certain: str | None
    target: str | None

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name


def _unread(values: Mapping[Any, Any], reads: Reads, section: str, *, handed: bool) -> Iterator[_Key]:
    handed = handed or section in reads.handed
    asked = reads.asked.get(section, {})
    target = str(values.get("_target_", "")) if section in reads.handed else None
    for name, value in ((str(name), value) for name, value in values.items()):
        key = f"{section}.{name}" if section else name
        if name not in asked:
            known = _alike_in_kind(section, value, reads) if handed else reads.names(section)
            certain = None if _is_a_trainers(key, value) else misspelt(name, known)
            siblings = tuple(name for name in known if values.get(name) is None)
            yield _Key(section, name, value, handed, siblings, certain, target)
        elif key == "overfit":
            continue  # strict: an unknown key in it is a problem already
        elif isinstance(value, dict) and key in reads.asked:
            yield from _unread(value, reads, key, handed=handed)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict) and f"{key}[{index}]" in reads.asked:
                    yield from _unread(item, reads, f"{key}[{index}]", handed=handed)


def _alike_in_kind(section: str, value: Any, reads: Reads) -> list[str]:
    """The names of a class's section that a value can be meant for: a number is no misspelt mapping."""
    return [name for name in reads.names(section) if (f"{section}.{name}" in reads.asked) == isinstance(value, Mapping)]


def _is_a_trainers(key: str, value: Any) -> bool:
    """A mapping under ``mode`` is a misspelt ``model``."""
    return _TRAINERS.fullmatch(key) is not None and not (key == "mode" and isinstance(value, dict))


def _near(key: _Key, reads: Reads) -> str | None:
    """The key that is read and most like one that is not: beside it, then elsewhere. A class may have names alike."""
    near = next((name for name in key.siblings if one_letter_off(key.name, name)), None)
    if key.handed:
        return near or nearest(key.name, key.siblings, cutoff=0.75)
    if near:
        return near
    known = [name for name in reads.every_key() if not name.startswith("data.val.")]
    leaves: dict[str, str] = {}
    for name in known:
        leaves.setdefault(name.rpartition(".")[2], name)
    if (meant := meant_by(key.name)) and key.key != meant:
        return next((name for name in known if name == meant or name.endswith(f".{meant}")), meant)
    if key.name in leaves:
        return leaves[key.name]
    beside = nearest(key.name, key.siblings, cutoff=_NEAR)
    elsewhere = None if beside else nearest(key.name, leaves, cutoff=_NEAR_ELSEWHERE)
    return beside or (leaves[elsewhere] if elsewhere else None)


def meant_by(name: str) -> str | None:
    """What other projects call so, by its key here."""
    return MEANT.get(re.sub(r"[\W_]", "", name).casefold())


def _is_referred(key: str, referred: Set[str]) -> bool:
    return any(
        name == key or name.startswith((f"{key}.", f"{key}[")) or key.startswith((f"{name}.", f"{name}["))
        for name in referred
    )


CLOSE = 0.02  # of a value: a person writes two or three digits
ARGUMENTS = {"lr": ("value", "lr", "rate"), "weight_decay": ("value", "weight_decay")}  # ends of the names of values


def overridden(config: OverfitConfig) -> Iterator[str]:
    """That a value of the optimizer is none of those that its schedule sets.

    Example:
        >>> cosine = {"_target_": "pytest_overfit.trainer.schedules.Cosine", "start_value": 2e-3, "end_value": 6e-5}
        >>> list(overridden(OverfitConfig(Path("a.yaml"), "a", optimizer={"lr": 1e-9}, lr_schedule=cosine)))
        ['optim.optimizer.lr = 1e-09 is not used: the schedule optim.options.lr sets 6e-05 to 0.002']
    """
    for name, schedule in (("lr", config.lr_schedule), ("weight_decay", config.weight_decay_schedule)):
        own, values = config.optimizer.get(name), [value for _, value in leaves(schedule or {}, name)]
        if not values or not isinstance(own, (int, float)) or isinstance(own, bool):
            continue
        if not any(abs(value - own) <= CLOSE * abs(own) for value in values):
            span = f"{min(values):g}" if len(set(values)) == 1 else f"{min(values):g} to {max(values):g}"
            yield f"optim.optimizer.{name} = {own:g} is not used: the schedule optim.options.{name} sets {span}"


def leaves(node: Any, name: str, key: str = "") -> Iterator[tuple[str, float]]:
    """The arguments of a schedule, nested ones too, that are values of what it sets; by their keys below ``key``.

    Example:
        >>> list(leaves({"schedulers": [{"value": 1e-3}], "lengths": [1.0]}, "lr", "scheduler"))
        [('scheduler.schedulers.0.value', 0.001)]
    """
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for part, value in pairs:
        here = f"{key}.{part}" if key else str(part)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield from leaves(value, name, here)
        elif str(part if isinstance(node, Mapping) else key).rstrip("s").endswith(ARGUMENTS[name]):
            yield here, float(value)
