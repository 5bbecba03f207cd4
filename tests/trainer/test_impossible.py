"""Values that no run can have are errors, each with its key: one row per key and kind of value."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import load, problems

COMMON, DATASET = "data.train.common_config", "data.train.dataset.dataset_configs[0]"
WHOLE = ["-1", "1.5", "true", ".nan", ".inf", "x", "[1]", "{a: 1}", "'9e999'"]
POSITIVE = [*WHOLE, "0"]
SHARE = ["-0.1", "1.1", ".nan", ".inf", "x", "[1]", "true"]
AMOUNT = ["-1", ".nan", ".inf", "-.inf", "x", "[1]", "true"]
SWITCH = ["3", "maybe", "[true]", "{a: 1}"]
ONE_SIDE = "overfit.criteria."
TABLE = {
    "img_size": POSITIVE,
    "patch_size": POSITIVE,
    "seed_value": [*WHOLE, "4294967296"],
    "max_epochs": POSITIVE,
    "val_epoch_freq": POSITIVE,
    "num_workers": [*WHOLE, "1025"],
    "limit_train_batches": POSITIVE,
    "data.train.num_workers": [*WHOLE, "1025"],
    "data.val.num_workers": WHOLE,
    f"{COMMON}.img_size": POSITIVE,
    f"{COMMON}.patch_size": POSITIVE,
    f"{COMMON}.fix_img_num": ["-2", "1", "3", "4", "1.5", ".nan", "x"],
    f"{COMMON}.fix_aspect_ratio": [".nan", ".inf", "101", "x"],
    "data.train.dataset.dataset_configs": ["[]", "{}", "[3]", "x"],
    f"{DATASET}.remove_sky": SWITCH,
    f"{DATASET}.max_depth": [*AMOUNT, "0"],
    f"{DATASET}.depth_percentile": ["50", "2", "-1", "101", ".nan", "x"],
    f"{DATASET}.len_train": POSITIVE,
    "loss.camera.weight": AMOUNT,
    "loss.depth.weight": AMOUNT,
    "loss.camera.loss_type": ["3", "''", "[a]"],
    "loss.depth.valid_range": ["0.01", "0.49", "-1", "1.01", "98", ".nan", ".inf", "x", "true"],
    "optim.optimizer.lr": AMOUNT,
    "optim.optimizer.weight_decay": AMOUNT,
    "optim.optimizer.eps": AMOUNT,
    "optim.optimizer.momentum": AMOUNT,
    "optim.optimizer.betas": ["[]", "0.9", "[0.9, 1]", "[-0.1, 0.9]", "[.nan, 0.9]", "[a, b]", "[0.9, 1.1]", "{a: 1}"],
    "optim.frozen_module_names": ["[1]", "[[a]]", "3", "['']"],
    "optim.amp.enabled": SWITCH,
    "optim.amp.amp_dtype": ["float8", "16", "[a]"],
    "optim.gradient_clip.configs[0].max_norm": [*(value for value in AMOUNT if value != ".inf"), "0"],
    "optim.gradient_clip.configs[0].norm_type": ["0", "-2", ".nan", "x"],
    "optim.gradient_clip.configs[0].module_name": ["[]", "[1]", "['']"],
    "logging.log_freq": POSITIVE,
    "logging.log_visuals": SWITCH,
    "checkpoint.strict": SWITCH,
    "overfit.pair.source": ["rendr", "3", "[render]"],
    "overfit.pair.pair_index": [*WHOLE, "7"],
    "overfit.pair.seed": WHOLE,
    "overfit.pair.width": [*POSITIVE, "15", "8193"],
    "overfit.pair.height": [*POSITIVE, "15"],
    "overfit.pair.follow_links": ["[]", "3", "nowhere", "[nowhere]", "{a: 1}"],
    "overfit.steps_per_epoch": POSITIVE,
    "overfit.half_pixel_depth": SWITCH,
    "overfit.device": ["gpu", "cuda:x", "3"],
    "overfit.require_gpu": SWITCH,
    "overfit.threads": [*POSITIVE, "4097"],
    "overfit.deterministic": SWITCH,
    "overfit.seeds": ["[]", "[-1]", "[1, 1]", "[0.5]", "x", "4294967296"],
    "overfit.pass_at_least": [*POSITIVE, "2"],
    "overfit.amp": ["float8", "true", "3"],
    "overfit.keep_trained": SWITCH,
    "overfit.diagnose": SWITCH,
    "overfit.diagnose_seconds": [*AMOUNT, "0"],
    "overfit.budget.max_steps": POSITIVE,
    "overfit.budget.max_seconds": [*AMOUNT, "0"],
    "overfit.budget.hold_steps": [*POSITIVE, "1001"],
    "overfit.probes.sensitivity": SWITCH,
    "overfit.probes.gradient_every": POSITIVE,
    "overfit.distributed.strategy": ["dp", "3"],
    "overfit.distributed.timeout": [*AMOUNT, "0", "86401"],
    "overfit.distributed.modules": ["[1]", "3"],
    "overfit.import_roots": ["[nowhere]", "3"],
    "overfit.checkpoint": ["nowhere.pt", "3"],
    f"{ONE_SIDE}objective": [
        ".nan",
        ".inf",
        "x",
        "[1]",
        "{}",
        "{below: .nan}",
        "{above: 2, below: 1}",
        "{below: 1, window: 0}",
        "{below: 0, relative: true}",
    ],
    f"{ONE_SIDE}camera": ["0", "-1", ".nan", "x"],
    f"{ONE_SIDE}depth": ["0", "-1", ".nan", "x"],
    f"{ONE_SIDE}monotonic.window": POSITIVE,
    f"{ONE_SIDE}monotonic.tolerance": AMOUNT,
    f"{ONE_SIDE}monotonic.floor": SHARE,
    f"{ONE_SIDE}supervised.min_valid_ratio": SHARE,
    f"{ONE_SIDE}train_val": ["{tolerance: -1}", "3", "[1]", "{tolerance: .nan}"],
    f"{ONE_SIDE}prediction.abs_rel": AMOUNT,
    f"{ONE_SIDE}prediction.delta_1_25": SHARE,
    f"{ONE_SIDE}prediction.rotation_deg": ["-1", "181", ".nan"],
    f"{ONE_SIDE}finite": SWITCH,
    f"{ONE_SIDE}gradients": SWITCH,
    f"{ONE_SIDE}constant_batch": SWITCH,
    f"{ONE_SIDE}defects": SWITCH,
    f"{ONE_SIDE}unused": ["[1]", "3"],
    f"{ONE_SIDE}allow": ["[nothing-known]", "3"],
}
GOOD = """\
data:
  train: {common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92}, dataset: {dataset_configs: [{max_depth: 10}]}}
  val: {}
optim: {gradient_clip: {configs: [{module_name: [a], max_norm: 1.0}]}}
"""
ROWS = [(key, value) for key, values in TABLE.items() for value in values]


@pytest.mark.parametrize(("key", "value"), ROWS)
def test_impossible_values_are_errors(tmp_path: Path, key: str, value: str) -> None:
    """Each is refused before anything runs, and the line names the key."""
    (tmp_path / "a.yaml").write_text(GOOD, encoding="utf-8")
    assert any(key in line for line in problems(tmp_path / "a.yaml", [f"{key}={value}"]))


def test_the_table_starts_from_a_config_that_loads(tmp_path: Path) -> None:
    """What is refused above is refused for its one value."""
    assert load(tmp_path, GOOD).notes == ()


@pytest.mark.parametrize(
    "override",
    [
        "loss.depth.valid_range=null",
        "loss.depth.valid_range=0",
        "loss.depth.valid_range=0.5",
        "loss.camera.weight=0",
        "loss.depth.valid_range=1",
        "optim.optimizer.betas=[0, 0.5]",
        "optim.optimizer.betas=[0.9, 0.9, 0.99]",
        "optim.optimizer.lr=0",
        "optim.gradient_clip.configs[0].max_norm=.inf",
        "optim.gradient_clip.configs=[]",
        "optim.options.lr=[]",
        "data.train.common_config.fix_img_num=-1",
        "overfit.pair.follow_links=true",
        "overfit.pair.follow_links=off",
        "overfit.pair.follow_links=[/]",
    ],
)
def test_the_ends_of_the_ranges_are_allowed(tmp_path: Path, override: str) -> None:
    """What lies just inside loads."""
    load(tmp_path, GOOD, [override])
