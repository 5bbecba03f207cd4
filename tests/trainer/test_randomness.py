"""Settings that make the one sample a new sample at every step are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import load

QUIET = """\
data:
  train:
    common_config:
      fix_img_num: 2
      fix_aspect_ratio: 0.92
      augs: {scales: [1.0, 1.0], aspects: [0.33, 1.0], cojitter: false, cojitter_ratio: 0.3, color_jitter: null,
             gray_scale: false, gau_blur: false}
"""
COMMON = "data.train.common_config"


def test_quiet(tmp_path: Path) -> None:
    """With everything random switched off, or left out, there is nothing to say."""
    assert load(tmp_path, QUIET).randomness == ()
    assert load(tmp_path, QUIET, [f"~{COMMON}.augs"]).randomness == ()
    assert load(tmp_path, "exp_name: x\n").randomness == ()
    assert load(tmp_path, "data: {train: {dataset: {dataset_configs: [{ROOT: /x}]}}}\n").randomness == ()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("fix_img_num=-1", "fix_img_num is -1: the number of frames is drawn at random; set it to 2"),
        ("fix_img_num=0", "fix_img_num is 0: the number of frames is drawn at random; set it to 2"),
        ("augs.scales=[0.8,1.2]", "augs.scales is [0.8, 1.2]: images are scaled by a random factor; set it to null"),
        (
            "augs.color_jitter={brightness: 0.5, p: 0.9}",
            "augs.color_jitter is {'brightness': 0.5, 'p': 0.9}: colours are jittered; set it to null",
        ),
        (
            "augs.cojitter=true",
            "augs.cojitter is true: frames are jittered together or apart by chance; set it to false",
        ),
        ("augs.color_jitter={}", "augs.color_jitter is {}: colours are jittered; set it to null"),
        ("augs.gray_scale=true", "augs.gray_scale is true: images lose their colour by chance; set it to false"),
        ("augs.gau_blur=true", "augs.gau_blur is true: images are blurred by chance; set it to false"),
        ("augs.jpeg_compression=0.1", "augs.jpeg_compression is 0.1: an augmentation is on; set it to false"),
    ],
)
def test_sentences(tmp_path: Path, override: str, sentence: str) -> None:
    """Each such setting gives one sentence with its full key, its value and how to switch it off."""
    assert load(tmp_path, QUIET, [f"{COMMON}.{override}"]).randomness == (f"{COMMON}.{sentence}",)


@pytest.mark.parametrize(
    ("override", "state"), [("~{}.fix_aspect_ratio", "not set"), ("{}.fix_aspect_ratio=-1.0", "-1.0")]
)
def test_random_aspect(tmp_path: Path, override: str, state: str) -> None:
    """Without a fixed aspect ratio it is drawn from `aspects`; 0.92 is used instead."""
    config = load(tmp_path, QUIET, [override.format(COMMON)])
    assert config.train.aspect_ratio == 0.92
    assert config.randomness == (
        f"{COMMON}.fix_aspect_ratio is {state}: the aspect ratio is drawn at random; set it (here 0.92 is used)",
        f"{COMMON}.augs.aspects is [0.33, 1.0]: the aspect ratio is drawn at random; set it to [1.0, 1.0]",
    )


@pytest.mark.parametrize("override", ["augs.color_jitter={brightness: 0.5, p: 0}", "augs.color_jitter=false"])
def test_switched_off_in_other_ways(tmp_path: Path, override: str) -> None:
    """A jitter with probability 0, or false instead of null, is off."""
    assert load(tmp_path, QUIET, [f"{COMMON}.{override}"]).randomness == ()


def test_val_split_too(tmp_path: Path) -> None:
    """The val split is looked at as well, under its own key."""
    text = QUIET + "  val: {common_config: {fix_aspect_ratio: 1.0, fix_img_num: -1}}\n"
    assert load(tmp_path, text).randomness == (
        "data.val.common_config.fix_img_num is -1: the number of frames is drawn at random; set it to 2",
    )
