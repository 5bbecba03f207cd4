"""The trainer's own keys: they work as they stand, and what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.settings.settings import AmpConfig, ClipGroup
from pytest_overfit.trainer.config import LoggingConfig, SplitConfig

from .helpers import load, problems_in

GUIDE = """\
exp_name: single_pair
img_size: 518
patch_size: 14
seed_value: 7
max_epochs: 100
val_epoch_freq: 20
num_workers: 2
accum_steps: 1
limit_train_batches: 800
mode: train
data:
  train:
    _target_: data.dynamic_dataloader.DynamicTorchDataset
    num_workers: 3
    max_img_per_gpu: 48
    common_config:
      img_size: ${img_size}
      patch_size: ${patch_size}
      fix_img_num: 2
      fix_aspect_ratio: 0.92
      img_nums: [2, 24]
      augs: {scales: null, aspects: [0.33, 1.0], cojitter: False, cojitter_ratio: 0.3, color_jitter: null}
    dataset:
      _target_: data.composed_dataset.ComposedDataset
      dataset_configs:
        - _target_: data.datasets.aerial_megadepth.AerialMegaDepthDataset
          split: train
          ROOT: overfit/cropped
          split_file: /abs/train.npz
          segmentation_root: ~/seg
          remove_sky: False
          max_depth: 1e3
          depth_percentile: 95
          len_train: 500
  val:
    _target_: data.dynamic_dataloader.DynamicTorchDataset
    common_config: {fix_img_num: 2, fix_aspect_ratio: 1.0}
    dataset:
      dataset_configs:
        - ROOT: overfit/cropped
          len_test: 5
model:
  _target_: vggt.models.vggt.VGGT
  enable_point: False
loss:
  _target_: loss.MultitaskLoss
  camera: {weight: 5.0, loss_type: "l1"}
  depth: {weight: 1.0, gradient_loss_fn: "grad", valid_range: 0.98}
  point: null
optim:
  param_group_modifiers: False
  optimizer: {_target_: torch.optim.AdamW, lr: 5e-5, weight_decay: 0.05}
  frozen_module_names: ["*aggregator*"]
  amp: {enabled: True, amp_dtype: bfloat16}
  gradient_clip:
    _target_: train_utils.gradient_clip.GradientClipper
    configs:
      - {module_name: ["aggregator"], max_norm: 1.0, norm_type: 2}
      - {module_name: camera, max_norm: 0.5, norm_type: inf}
  options:
    lr:
      - scheduler:
          _target_: fvcore.common.param_scheduler.CompositeParamScheduler
          schedulers:
            - {_target_: fvcore.common.param_scheduler.LinearParamScheduler, start_value: 1e-8, end_value: 5e-5}
          lengths: [1.0]
          interval_scaling: [rescaled]
    weight_decay:
      - scheduler: {_target_: fvcore.common.param_scheduler.ConstantParamScheduler, value: 0.05}
logging:
  log_dir: logs
  log_visuals: False
  log_freq: 1
  tensorboard_writer: {_target_: train_utils.tb_writer.TensorBoardLogger, path: "${logging.log_dir}/tensorboard"}
  scalar_keys_to_log:
    train: {keys_to_log: [loss_objective, loss_camera]}
checkpoint: {save_dir: "logs/${exp_name}/ckpts", resume_checkpoint_path: null}
distributed: {backend: nccl}
cuda: {allow_tf32: True}
"""


def test_top_level(tmp_path: Path) -> None:
    """The scalar keys arrive, the loader's own worker count before the global one."""
    config = load(tmp_path, GUIDE)
    assert (config.exp_name, config.img_size, config.patch_size) == ("single_pair", 518, 14)
    assert (config.seed, config.max_epochs, config.val_epoch_freq, config.num_workers) == (7, 100, 20, 3)
    assert config.planned_steps == 1000
    assert config.path == tmp_path / "a.yaml"


def test_splits(tmp_path: Path) -> None:
    """Both splits arrive with absolute paths; a split file that is not given is the layout's own."""
    config = load(tmp_path, GUIDE)
    root = tmp_path / "overfit" / "cropped"
    assert config.train == SplitConfig(
        img_size=518,
        patch_size=14,
        root=root,
        split_file=Path("/abs/train.npz"),
        segmentation_root=Path("~/seg").expanduser(),
        remove_sky=False,
        max_depth=1000.0,
        depth_percentile=95.0,
        aspect_ratio=0.92,
        augs={
            "scales": None,
            "aspects": [0.33, 1.0],
            "cojitter": False,
            "cojitter_ratio": 0.3,
            "color_jitter": None,
        },
        len_train=500,
    )
    assert config.val == SplitConfig(root=root, split_file=root / "val.npz", aspect_ratio=1.0, len_test=5)
    assert config.overfit.pair.source == "trainer"


def test_optimisation(tmp_path: Path) -> None:
    """Model, loss, optimizer and schedules stay mappings; freezing, precision and clipping become records."""
    config = load(tmp_path, GUIDE)
    assert config.model == {"_target_": "vggt.models.vggt.VGGT", "enable_point": False}
    assert config.loss["depth"] == {"weight": 1.0, "gradient_loss_fn": "grad", "valid_range": 0.98}
    assert config.optimizer == {"_target_": "torch.optim.AdamW", "lr": 5e-5, "weight_decay": 0.05}
    assert config.frozen_module_names == ("*aggregator*",)
    assert config.amp == AmpConfig(True, "bfloat16")
    assert config.gradient_clip == (
        ClipGroup(("aggregator",), 1.0, 2.0),
        ClipGroup(("camera",), 0.5, float("inf")),
    )
    assert config.lr_schedule is not None
    assert config.lr_schedule["schedulers"][0]["start_value"] == 1e-8
    assert config.weight_decay_schedule == {
        "_target_": "fvcore.common.param_scheduler.ConstantParamScheduler",
        "value": 0.05,
    }


def test_logging_and_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging becomes a record, its folder below where the run starts; all else is carried along, resolved."""
    start = tmp_path / "start"
    start.mkdir()
    monkeypatch.chdir(start)
    config = load(tmp_path, GUIDE)
    keys = {"train": ("loss_objective", "loss_camera")}
    assert config.logging == LoggingConfig(start / "logs", 1, False, keys)
    assert config.resolved["checkpoint"] == {"save_dir": "logs/single_pair/ckpts", "resume_checkpoint_path": None}
    assert config.resolved["logging"]["tensorboard_writer"]["path"] == "logs/tensorboard"
    assert (config.resolved["distributed"], config.resolved["limit_train_batches"]) == ({"backend": "nccl"}, 800)


def test_defaults(tmp_path: Path) -> None:
    """A config that says next to nothing is the embedded default: rendered pair, reference model and loss."""
    config = load(tmp_path, "max_epochs: 3\n")
    assert config.model == {"_target_": "pytest_overfit.two_view.reference.TwoViewTransformer"}
    assert config.loss == {
        "_target_": "pytest_overfit.two_view.reference.MultitaskLoss",
        "camera": {"weight": 5.0, "loss_type": "l1"},
        "depth": {"weight": 1.0, "gradient_loss_fn": "grad", "valid_range": 0.98},
    }
    assert config.optimizer == {"_target_": "torch.optim.AdamW"}
    assert (config.val, config.gradient_clip, config.lr_schedule) == (None, (), None)
    assert (config.exp_name, config.overfit.pair.source) == ("a", "render")
    assert (config.notes, config.randomness) == ((), ())


def test_empty_lists_and_sections(tmp_path: Path) -> None:
    """Keys that are left empty, as in the trainer's own files, read as their defaults."""
    config = load(tmp_path, "optim:\n  frozen_module_names:\n  gradient_clip:\n  options:\nlogging:\noverfit:\ndata:\n")
    assert (config.frozen_module_names, config.gradient_clip, config.logging) == ((), (), LoggingConfig())


def test_own_schedule_without_wrapping(tmp_path: Path) -> None:
    """A schedule may be given directly, and the first of several is used, which is noted."""
    assert load(tmp_path, "optim: {options: {lr: {_target_: a.B, x: 1}}}\n").lr_schedule == {"_target_": "a.B", "x": 1}
    config = load(tmp_path, "optim: {options: {lr: [{scheduler: {_target_: a.B}}, {scheduler: {_target_: a.C}}]}}\n")
    assert config.lr_schedule == {"_target_": "a.B"}
    assert config.notes == ("optim.options.lr has 2 entries: only the first is used, for all parameters",)


def test_notes(tmp_path: Path) -> None:
    """Settings that have no effect here are said, not silently dropped."""
    effect = "has no effect: a run has overfit.steps_per_epoch steps per epoch"
    assert load(tmp_path, GUIDE).notes == (
        f"data.train.dataset.dataset_configs[0].len_train {effect}",
        f"data.val.dataset.dataset_configs[0].len_test {effect}",
        "limit_train_batches is 800 and has no effect: an epoch repeats the one batch 10 times "
        "(overfit.steps_per_epoch)",
        "7 keys that only a trainer reads: mode, optim.param_group_modifiers, optim.gradient_clip._target_, "
        "logging.tensorboard_writer, checkpoint.save_dir, distributed, cuda",
    )
    notes = load(tmp_path, GUIDE, ["overfit.pair.source=render"]).notes
    assert "data.train.dataset.dataset_configs[0].ROOT has no effect: overfit.pair.source is render" in notes


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("max_epoch=3", "max_epoch: found an unknown key (did you mean max_epochs?)"),
        ("seed_vaule=3", "seed_vaule: found an unknown key (did you mean seed_value?)"),
        (
            "optim.frozen_modules_names=[a]",
            "optim.frozen_modules_names: found an unknown key (did you mean frozen_module_names?)",
        ),
        ("optim.optimizer.weigth_decay=0",
         "optim.optimizer.weigth_decay: found an unknown key (did you mean weight_decay?)"),
        ("data.train.common_config.aug={}", "data.train.common_config.aug: found an unknown key (did you mean augs?)"),
        (
            "data.train.dataset.dataset_configs[0].root=x",
            "data.train.dataset.dataset_configs[0].root: found an unknown key (did you mean ROOT?)",
        ),
        ("seed_value=-1", "seed_value: found -1, allowed: a whole number from 0 to 4294967295"),
        ("max_epochs=2.5", "max_epochs: found 2.5, allowed: a whole number of at least 1"),
        ("max_epochs=true", "max_epochs: found true, allowed: a whole number of at least 1"),
        ("max_epochs=[1]", "max_epochs: found [1], allowed: a whole number of at least 1"),
        ("exp_name=[a]", "exp_name: found ['a'], allowed: text"),
        ("data=3", "data: found 3, allowed: a mapping"),
        ("data.train.dataset.dataset_configs={}",
         "data.train.dataset.dataset_configs: found {}, allowed: a list of mappings"),
        ("data.train.dataset.dataset_configs[0].remove_sky=maybe",
         "data.train.dataset.dataset_configs[0].remove_sky: found 'maybe', allowed: true or false"),
        ("data.train.dataset.dataset_configs[0].max_depth=0",
         "data.train.dataset.dataset_configs[0].max_depth: found 0, allowed: a number above 0"),
        ("data.train.dataset.dataset_configs[0].ROOT=3",
         "data.train.dataset.dataset_configs[0].ROOT: found 3, allowed: a path"),
        ("model=vggt", "model: found 'vggt', allowed: a mapping"),
        ("model._target_=VGGT",
         "model._target_: found 'VGGT', allowed: a dotted Python name, such as package.module.Name"),
        ("loss.depth.valid_range=98", "loss.depth.valid_range: found 98, allowed: the share of the errors that count, "
         "from 0.5 to 1; null or 0 leaves none out"),
        ("loss.camera.weight=high", "loss.camera.weight: found 'high', allowed: a number of at least 0"),
        ("optim.optimizer.lr=-1e-3", "optim.optimizer.lr: found -0.001, allowed: a number of at least 0"),
        ("optim.optimizer.lr=.nan", "optim.optimizer.lr: found nan, allowed: a number of at least 0"),
        ("optim.optimizer.lr=.inf", "optim.optimizer.lr: found inf, allowed: a number of at least 0"),
        ("optim.frozen_module_names=[1]", "optim.frozen_module_names: found [1], allowed: a list of text"),
        ("optim.amp.amp_dtype=bfloat",
         "optim.amp.amp_dtype: found 'bfloat' (did you mean bfloat16?), allowed: bfloat16 | float16"),
        ("optim.gradient_clip.configs[0].max_norm=0",
         "optim.gradient_clip.configs[0].max_norm: found 0, allowed: a number above 0"),
        ("optim.options.lr=[{scheduler: x}]", "optim.options.lr[0].scheduler: found 'x', allowed: a mapping"),
        ("logging.log_freq=0", "logging.log_freq: found 0, allowed: a whole number of at least 1"),
    ],
)  # fmt: skip
def test_problems(tmp_path: Path, override: str, line: str) -> None:
    """Each wrong value shows its full key, what was found and what is allowed; a near miss names the key meant."""
    assert f"a.yaml: {line}" in problems_in(tmp_path, GUIDE, [override])


def test_foreign_keys_are_welcome(tmp_path: Path) -> None:
    """Keys of the trainer that are nothing like a known one are no problem, anywhere."""
    overrides = [
        "weird=1",
        "data.train2={a: 1}",
        "loss.scale=2",
        "optim.optimizer.betas=[0.9,0.95]",
        "logging.wandb=true",
    ]
    assert load(tmp_path, GUIDE, overrides).resolved["data"]["train2"] == {"a": 1}


def test_width_in_whole_patches(tmp_path: Path) -> None:
    """A width that is no multiple of the patch size is reported once, with the sizes next to it."""
    assert problems_in(tmp_path, GUIDE.replace("img_size: ${img_size}", "debug: true"), ["img_size=520"]) == [
        "a.yaml: img_size: found 520, allowed: a multiple of patch_size 14 (such as 518 or 532)"
    ]


def test_height_of_at_least_a_patch(tmp_path: Path) -> None:
    """An aspect ratio that leaves no height is a problem of the aspect ratio."""
    assert problems_in(tmp_path, GUIDE, ["data.train.common_config.fix_aspect_ratio=0.01"]) == [
        "a.yaml: data.train.common_config.fix_aspect_ratio: found 0.01, which makes a height of 0,"
        " allowed: at least one patch of 14 pixels"
    ]


def test_dotted_top_level_key(tmp_path: Path) -> None:
    """A dotted key in the file is one odd name to YAML, and would be ignored."""
    (line,) = problems_in(tmp_path, "overfit.budget.max_steps: 3\n")
    assert line.startswith("a.yaml: overfit.budget.max_steps: found a dotted key, allowed: nested mappings")


def test_missing_parts_of_clipping(tmp_path: Path) -> None:
    """A clip group needs its modules and its norm."""
    assert problems_in(tmp_path, "optim: {gradient_clip: {configs: [{}]}}\n") == [
        "a.yaml: optim.gradient_clip.configs[0].module_name: found nothing, allowed: the modules that"
        " are clipped together",
        "a.yaml: optim.gradient_clip.configs[0].max_norm: found nothing, allowed: a number above 0",
    ]
