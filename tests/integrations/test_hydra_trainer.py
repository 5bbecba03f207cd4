"""A Hydra trainer's repository as it is: green on its healthy config, red with the cause on every wrong one."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml

from pytest_overfit.trainer.build import build_model
from pytest_overfit.trainer.loading import load_config
from tests.support.miniature import CONFIG, MINIATURE, Session, checkout, sessions, trained
from tests.support.sessions import ITEMS, outcomes, reports_of

__all__ = ["checkout", "sessions", "trained"]  # fixtures

AUGS = "data.train.common_config.augs"
ENTRY = "data.train.dataset.dataset_configs.0"
FIVE_STEPS = ("--overfit-max-steps", "5")
RECORDED = f"{ENTRY}._target_=data.hillside.RecordedHillside"


def test_the_healthy_config_is_green_and_leaves_nothing_behind(trained: Session) -> None:
    """Fourteen green items; no module of the checkout, no path, no group, no variable of a launcher afterwards."""
    before = list(sys.path)
    result = trained()
    assert outcomes(result) == dict.fromkeys(ITEMS, "passed")
    result.stdout.fnmatch_lines(["ok * pair * 2 views of a batch: valid 100.0 % and 100.0 %*"])
    result.stdout.fnmatch_lines(["note: 3 keys that only a trainer reads: *distributed, logging.tensorboard_writer"])
    assert not {"data", "loss", "train_utils", "pairnet"} & sys.modules.keys()
    assert sys.path == before
    assert not dist.is_initialized()
    assert "RANK" not in os.environ


@pytest.mark.parametrize(
    "overrides",
    [
        ("overfit.prepare_batch=train_utils.prepare.normalise",),
        ("data.train.common_config.repeat_batch=true", "accum_steps=2"),
        ("loss.name=loss_objective",),
        (f"{ENTRY}.len_train=500",),
    ],
    ids=["their own preparation", "repeated and accumulated", "objective by another name", "len_train"],
)
def test_what_a_trainer_does_to_a_batch_is_done(trained: Session, overrides: tuple[str, ...]) -> None:
    """Their function in place of our normalisation, doubled batches in parts, and settings that change nothing."""
    assert outcomes(trained(*overrides)) == dict.fromkeys(ITEMS, "passed")


@pytest.mark.parametrize(
    ("overrides", "red", "words"),
    [
        (
            (f"{AUGS}.color_jitter={{brightness: 0.5, p: 1.0}}",),
            "constant_batch",
            ["color_jitter is {'brightness': 0.5, 'p': 1.0}: colours are jittered; set its p to 0", "batch-changes"],
        ),
        (
            (f"{AUGS}.scales=[0.8, 1.2]",),
            "constant_batch",
            ["augs.scales is [0.8, 1.2]: images are scaled by a random factor; set it to null", "why: batch-changes"],
        ),
        (
            ("data.train.common_config.fix_img_num=-1",),
            "constant_batch",
            ["the number of frames is drawn from img_nums [2, 4]; set it to 2", "augs.aspects is", "batch-changes"],
        ),
        ((RECORDED, f"+{ENTRY}.ROOT=nowhere"), "pair", ["the dummy batch that a loader hands out"]),
        (
            ("overfit.criteria.terms={loss_objective: 0.01}",),
            "run",
            ["the loss gives no term 'loss_objective'", "one of the terms that it gives: objective, loss_camera"],
        ),
        (
            ("model.trunk.norm=batch", "+model.trunk.momentum=0.001"),
            "train_val",
            ["in evaluation", "why: mode-gap (observed): on the same sample"],
        ),
        (
            ("+model.fov=-1.0",),
            "camera",
            ["dead-units, see ::objective", "100% of 2 units fire for no sample at the start", "why: dead-units"],
        ),
        (
            ("optim.gradient_clip.configs=[{module_name: [patches, frames, norm, mix, depth_head], max_norm: 1.0}]",),
            "config",
            ["no group clips 4 trainable parameter tensors: camera_head.0.weight", "add their module to"],
        ),
        (("optim.frozen_module_names=['*aggregator*']",), "config", ["'*aggregator*' matches no module"]),
        (("loss._target_=loss.PairLos",), "config", ["did you mean PairLoss?"]),
    ],
    ids=[
        *("jitter", "scales", "frames and aspect", "dummy batch", "loss_objective"),
        *("batch norm", "dead output", "unclipped", "freeze pattern", "misspelt target"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_red_for_the_right_reason(
    trained: Session, overrides: tuple[str, ...], red: str, words: list[str]
) -> None:
    """The item that finds it, or the one it points at, says what was found, where, and what to set instead."""
    reports = reports_of(trained(*overrides))
    assert reports[red].failed
    text = " ".join(reports[red].longreprtext.split())
    if told := re.search(r", see ::(\w+)", text):
        text += " " + " ".join(reports[told.group(1)].longreprtext.split())
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ((f"{ENTRY}.len_train=500",), "*dataset_configs[[]0[]].len_train has no effect*"),
        (("accum_steps=2",), "*accum_steps is 2 and has no effect: the batch has 1 sample"),
        (("limit_train_batches=800",), "*limit_train_batches is 800 and has no effect*"),
        (("loss.name=loss_objective",), "*the loss gives no objective, which trainers minimise: loss_objective*"),
        (
            ("logging.scalar_keys_to_log.train.keys_to_log=[loss_objective]",),
            "*the loss gives no loss_objective; the loss calls it objective",
        ),
    ],
)
def test_what_has_no_effect_is_said(trained: Session, overrides: tuple[str, ...], note: str) -> None:
    """As a note under the table."""
    trained(
        *overrides, args=("--overfit-max-steps", "5", "--overfit-set", "overfit.diagnose=false")
    ).stdout.fnmatch_lines([f"note: {note}"])


def test_a_difference_that_no_setting_admits_is_explained(trained: Session, checkout: Path) -> None:
    """A loader that jitters on its own account: colours alone change, and the keys that usually do that are named."""
    file = checkout / "training" / "data" / "composed.py"
    file.write_text(
        file.read_text().replace(
            'return {**sample, "seq', 'sample["images"] *= random.random()\n        return {**sample, "seq'
        )
    )
    text = " ".join(reports_of(trained(args=FIVE_STEPS))["constant_batch"].longreprtext.split())
    assert (
        "two draws of data.train differ; colours alone change: set data.train.common_config.training to false" in text
    )


def test_exr_that_opencv_cannot_read_is_found_before_the_run(
    trained: Session, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader would go on with zeros; the reason is OpenCV, and the message says what its version needs."""
    (checkout / "0.exr").write_bytes(b"v/1\x01")
    (checkout / "1.exr").write_bytes(b"v/1\x01")
    monkeypatch.setattr(cv2, "imread", lambda *args, **kwargs: None)
    reports = reports_of(trained(RECORDED, f"+{ENTRY}.ROOT={checkout.as_posix()}"))
    text = " ".join(reports["pair"].longreprtext.split())
    assert "gives no pixels for 1 .exr file(s)" in text
    assert "OpenEXR" in text or "OPENCV_IO_ENABLE_OPENEXR" in text
    assert "not judged: ::pair failed (" in reports["objective"].longreprtext


def test_weights_of_a_checkpoint_are_loaded_and_what_does_not_fit_is_said(trained: Session, checkout: Path) -> None:
    """By a path from the root of the repository; a missing key is a note, and an error where strict is set."""
    weights = build_model(load_config(checkout / CONFIG)).state_dict()
    weights["track_head.weight"] = weights.pop("depth_head.bias")
    torch.save({"model": weights, "epoch": 3}, checkout / "start.pt")
    result = trained("checkpoint.resume_checkpoint_path=start.pt", args=FIVE_STEPS)
    result.stdout.fnmatch_lines(["note: start.pt: 1 of * tensors of the model not in it: depth_head.bias"])
    result.stdout.fnmatch_lines(["note: start.pt: 1 of its * not in the model: track_head.weight"])
    strict = trained("checkpoint={resume_checkpoint_path: start.pt, strict: true}")
    assert "since checkpoint.strict is on" in " ".join(reports_of(strict)["config"].longreprtext.split())


def test_a_checkpoint_that_is_not_there_is_an_error(trained: Session) -> None:
    """Before anything runs; overfit.checkpoint=none trains from scratch."""
    result = trained("checkpoint.resume_checkpoint_path=/YOUR/PATH/TO/CKPT")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*resume_checkpoint_path: found '/YOUR/PATH/TO/CKPT': no such file*=none trains from*"]
    )
    scratch = trained("checkpoint.resume_checkpoint_path=/YOUR/PATH/TO/CKPT", "overfit.checkpoint=none")
    assert scratch.ret == pytest.ExitCode.OK


def test_two_checkouts_in_one_session_do_not_mix(trained: Session, checkout: Path) -> None:
    """Each config gets the loss of its own repository, although both are called loss."""
    shutil.copytree(MINIATURE, checkout / "twin")
    loss = checkout / "twin" / "training" / "loss.py"
    loss.write_text(loss.read_text().replace('"loss_T": shift', '"loss_shift": shift'))
    result = trained(
        "overfit.criteria.terms={loss_shift: 1.0}",
        "overfit.diagnose=false",
        args=("--overfit-config", f"twin/{CONFIG}", *FIVE_STEPS),
    )
    reports = result.reprec.getreports("pytest_runtest_logreport")  # type: ignore[attr-defined]
    calls = [report for report in reports if report.nodeid.endswith("::loss_shift") and report.when == "call"]
    outcome = {report.nodeid: report.outcome for report in calls}
    # A limit on a term that a loss does not give ends the run of its config.
    assert outcome == {f"{CONFIG}::loss_shift": "skipped", f"twin/{CONFIG}::loss_shift": "passed"}


def test_a_written_config_of_this_form_composes(tmp_path: Path) -> None:
    """``pair create --config-style vggt`` in a training/config folder: a config that reads as a trainer's."""
    from pytest_overfit.cli import main

    folder = tmp_path / "training" / "config"
    folder.mkdir(parents=True)
    (folder / "default_dataset.yaml").write_text("data: {train: {common_config: {fix_img_num: -1, extra: 1}}}\n")
    datasets = tmp_path / "training" / "data" / "datasets"
    datasets.mkdir(parents=True)
    (datasets / "broken.py").write_text("class Broken(\n")
    (datasets / "own.py").write_text(
        "class Other:\n    def __init__(self, ROOT): ...\n\n\n"
        "class Own:\n    def __init__(self, common_conf, ROOT, split_file='train.npz', segmentation_root=None): ...\n"
    )
    path = folder / "single_pair_test.yaml"
    words = ["--create-config", str(path), "--config-style", "vggt", "--output-root", str(tmp_path / "pair")]
    assert main(["pair", "create", "--render", *words]) == 0
    assert yaml.safe_load(path.read_text())["defaults"] == ["default_dataset.yaml"]
    config = load_config(path)
    assert config.trainer is not None
    assert config.randomness == ()
    assert config.trainer.train["common_config"]["extra"] == 1
    listed = config.trainer.train["dataset"]["dataset_configs"][0]
    assert (listed["_target_"], listed["ROOT"]) == ("data.datasets.own.Own", str(tmp_path / "pair"))
    assert config.logging.log_dir == Path("logs").absolute()
    assert config.planned_steps == 1000


def test_config_style_is_one_of_create_config() -> None:
    """On its own it would say nothing."""
    from pytest_overfit.cli import main

    with pytest.raises(SystemExit):
        main(["pair", "create", "--render", "--config-style", "vggt"])


def test_depth_that_opencv_reads_arrives(trained: Session, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an OpenCV that reads .exr the recorded pair is as good as the one that was made up."""
    reports = reports_of(
        trained(
            args=(
                "-k",
                "pair",
            )
        )
    )
    assert reports["pair"].passed
    for frame in range(2):
        (checkout / f"{frame}.exr").write_bytes(b"v/1\x01")
    monkeypatch.setattr(cv2, "imread", lambda path, *_: np.full((42, 56), 9.0 + int(Path(path).stem), np.float32))
    result = trained(RECORDED, f"+{ENTRY}.ROOT={checkout.as_posix()}", args=("-k", "loader"))
    assert reports_of(result)["loader"].passed
