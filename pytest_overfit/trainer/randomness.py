"""Settings of the trainer's config that make its "one sample" a new sample at every step."""

from __future__ import annotations

from typing import Any

from pytest_overfit.run.record import ALL_AT_ONCE
from pytest_overfit.settings.problems import shown
from pytest_overfit.settings.section import Section, as_switch
from pytest_overfit.trainer.config import DEFAULT_ASPECT

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
