"""What a config says of a trainer's own classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer.config import CheckpointConfig
from pytest_overfit.trainer.trainer_section import FROZEN_FRESH

from .helpers import load, problems_in

TRAINER = """\
num_workers: 8
accum_steps: 2
limit_train_batches: 4
data:
  train:
    _target_: data.Loader
    num_workers: ${num_workers}
    persistent_workers: true
    common_config: {fix_img_num: 2, repeat_batch: true}
loss: {_target_: loss.Loss}
optim: {gradient_clip: {_target_: clip.Clipper, configs: [{module_name: a, max_norm: 1.0}]}}
logging: {scalar_keys_to_log: {train: {keys_to_log: [objective]}}}
"""


def test_the_trainers_classes_hand_out_the_batches(tmp_path: Path) -> None:
    """Where data.train names one; workers are left out, and the epoch is as long as the trainer says."""
    config = load(tmp_path, TRAINER)
    assert config.overfit.pair.source == "trainer"
    assert config.trainer is not None
    assert config.trainer.train == {
        "_target_": "data.Loader",
        "num_workers": 0,
        "persistent_workers": False,
        "common_config": {"fix_img_num": 2, "repeat_batch": True},
    }
    assert (config.trainer.accum_steps, config.trainer.repeat_batch, config.trainer.own_clipper) == (2, True, True)
    assert (config.trainer.logged, config.trainer.val) == (("objective",), None)
    assert config.overfit.steps_per_epoch == 4


def test_our_own_data_path_can_be_asked_for(tmp_path: Path) -> None:
    """A source of overfit.pair wins over the class."""
    config = load(tmp_path, TRAINER + "overfit: {pair: {source: render}, steps_per_epoch: 7}\n")
    assert config.trainer is None
    assert config.overfit.steps_per_epoch == 7


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "overfit: {pair: {source: trainer}}\n",
            "data.train._target_: found nothing, allowed: the class that hands out",
        ),
        (
            TRAINER.replace("loss:", "  val: {shuffle: false}\nloss:"),
            "data.val._target_: found nothing, allowed: a class",
        ),
        ("overfit: {import_roots: [nowhere]}\n", "overfit.import_roots: found "),
        ("overfit: {prepare_batch: normalise}\n", "overfit.prepare_batch: found 'normalise', allowed: a dotted Python"),
        ("overfit: {checkpoint: nowhere.pt}\n", "overfit.checkpoint: found "),
        ("checkpoint: {resume_checkpoint_path: a.pt}\n", "checkpoint.resume_checkpoint_path: found "),
        ("accum_steps: 0\ndata: {train: {_target_: a.B}}\n", "accum_steps: found 0"),
    ],
)
def test_problems(tmp_path: Path, text: str, problem: str) -> None:
    """Each with its key, what was found and what is allowed."""
    (line,) = problems_in(tmp_path, text)
    assert line.startswith(f"a.yaml: {problem}")


def test_checkpoints(tmp_path: Path) -> None:
    """Found from the config's place; none trains from scratch whatever the trainer says."""
    (tmp_path / "a.pt").touch()
    text = "checkpoint: {resume_checkpoint_path: a.pt, strict: true}\n"
    assert load(tmp_path, text).checkpoint == CheckpointConfig(tmp_path / "a.pt", True)
    assert load(tmp_path, text, ["overfit.checkpoint=none"]).checkpoint.path is None
    assert load(tmp_path, "overfit: {checkpoint: a.pt}\n").checkpoint.key == "overfit.checkpoint"
    assert load(tmp_path, "img_size: 28\n").checkpoint.path is None


@pytest.mark.parametrize(("frozen", "overrides", "told"), [
    ('["*trunk*"]', ["overfit.checkpoint=none"], True), ("[]", ["overfit.checkpoint=none"], False),
    ('["*trunk*"]', [], False),
])  # fmt: skip
def test_what_is_frozen_as_it_is_initialised_is_told(
    tmp_path: Path, frozen: str, overrides: list[str], told: bool
) -> None:
    """A trainer freezes what its checkpoint has; without that, fresh weights stand in the way."""
    (tmp_path / "a.pt").touch()
    text = f"checkpoint: {{resume_checkpoint_path: a.pt}}\noptim: {{frozen_module_names: {frozen}}}\n"
    assert (FROZEN_FRESH in load(tmp_path, text, overrides).notes) == told


def test_import_roots(tmp_path: Path) -> None:
    """Given, or found from the config's place."""
    (tmp_path / "pyproject.toml").touch()
    assert load(tmp_path, "img_size: 28\n").import_roots == (tmp_path,)
    (tmp_path / "training").mkdir()
    assert load(tmp_path, "overfit: {import_roots: [training]}\n").import_roots == (tmp_path / "training",)


@pytest.mark.parametrize(
    ("common", "sentences"),
    [
        ("{fix_img_num: 2, img_nums: [2, 24], augs: {aspects: [0.3, 1.0]}}", 0),
        ("{fix_img_num: -1, img_nums: [2, 2], augs: {aspects: [1.0, 1.0]}}", 0),
        ("{fix_img_num: -1, img_nums: [2, 24], fix_aspect_ratio: 1.0, augs: {aspects: [0.3, 1.0]}}", 2),
        ("{fix_img_num: 3, training: true, augs: {scales: [0.8, 1.2], gray_scale: true}}", 2),
        ("{fix_img_num: 2, training: false, augs: {scales: [0.8, 1.2], gray_scale: true}}", 0),
    ],
)
def test_randomness_as_such_trainers_read_it(tmp_path: Path, common: str, sentences: int) -> None:
    """A fixed number fixes the aspect ratio too, ranges of one value draw nothing, training: false augments nothing."""
    config = load(tmp_path, f"data: {{train: {{_target_: a.B, common_config: {common}}}}}\n")
    told = [sentence for sentence in config.randomness if not sentence.startswith("all at once: ")]
    assert len(told) == sentences, config.randomness
    pasted = ["all at once: --overfit-set data.train.common_config."] if sentences else []
    assert [each[: len(pasted[0])] for each in config.randomness[sentences:]] == pasted
