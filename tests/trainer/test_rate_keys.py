"""Advice on a config names the key that is read, and where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.run.columns import gone_at
from pytest_overfit.trainer.config_changes import ConfigChanges, rate_overrides, rates_of
from pytest_overfit.trainer.loading import load_config
from tests.support.configs import write_tiny

OWN = "start_value: ${optim.optimizer.lr}"


@pytest.mark.parametrize(
    ("start", "options"),
    [
        (OWN, "--overfit-set optim.optimizer.lr=0.01"),
        ("start_value: 1e-9", "--overfit-set optim.options.lr.0.scheduler.start_value=0.01"),
    ],
)
def test_the_key_that_is_read_is_advised(tmp_path: Path, start: str, options: str) -> None:
    """The schedule's where it has a value of its own."""
    config = load_config(write_tiny(tmp_path, replace=((OWN, start),)), ["optim.optimizer.lr=1e-9"])
    assert rate_overrides(config, 1e-9, 0.01).startswith(options)


WARM = """          _target_: pytest_overfit.trainer.schedules.WarmUpCosine
          peak_value: {peak}
          end_value: 6e-5
          warm_up: 0.03
"""
SCHEDULE = """          _target_: fvcore.common.param_scheduler.CosineParamScheduler
          start_value: ${optim.optimizer.lr}
          end_value: 0.0
"""


def test_a_peak_below_the_end_is_raised_in_the_line_that_its_user_wrote(tmp_path: Path) -> None:
    """Scaled, the schedule would still start at its peak and fall below it."""
    path = write_tiny(tmp_path, replace=((SCHEDULE, WARM.format(peak="${optim.optimizer.lr}")),))
    config = load_config(path, ["optim.optimizer.lr=2e-6"])
    assert rate_overrides(config, 6e-5, 0.001) == "--overfit-set optim.optimizer.lr=0.001"


def test_a_peak_of_its_own_below_the_end_is_the_one_key(tmp_path: Path) -> None:
    path = write_tiny(tmp_path, replace=((SCHEDULE, WARM.format(peak="2e-6")),))
    told = rate_overrides(load_config(path), 6e-5, 0.001)
    assert told == "--overfit-set optim.options.lr.0.scheduler.peak_value=0.001"


def test_values_in_a_list_are_values(tmp_path: Path) -> None:
    steps = (
        "          _target_: fvcore.common.param_scheduler.MultiStepParamScheduler\n          values: [1e-6, 1e-7]\n"
    )
    path = write_tiny(tmp_path, replace=((SCHEDULE, steps + "          num_updates: 10\n          milestones: [8]\n"),))
    told = rate_overrides(load_config(path), 1e-6, 0.001)
    keys = "optim.options.lr.0.scheduler.values"
    assert told == f"--overfit-set {keys}.0=0.001 --overfit-set {keys}.1=0.0001"


ENDS = """          _target_: pytest_overfit.trainer.schedules.WarmUpCosine
          peak_value: {peak}
          end_value: 0.0
          warm_up: 0.005
          until: 0.02
"""
DROPS = """          _target_: fvcore.common.param_scheduler.MultiStepParamScheduler
          values: [0.05, 0.0]
          num_updates: 1000
          milestones: [10]
"""


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (ENDS.format(peak="${optim.optimizer.lr}"), "--overfit-set optim.options.lr.0.scheduler.until=1"),
        (DROPS, "--overfit-set optim.options.lr.0.scheduler.milestones.0=9"),
        (SCHEDULE, ""),
    ],
)
def test_a_schedule_that_ends_at_once_is_made_to_last(tmp_path: Path, schedule: str, told: str) -> None:
    """By the one number that its length comes from."""
    config = load_config(write_tiny(tmp_path, replace=((SCHEDULE, schedule),)))
    line = ConfigChanges(config).lasting()
    assert line.startswith(told) if told else not line
    if told:
        after = rates_of(load_config(config.path, [line.split()[-1]]))
        assert gone_at(after) is None
        assert max(after) == pytest.approx(0.05, rel=0.5)


def test_a_schedule_without_such_a_number_is_left_out(tmp_path: Path) -> None:
    """Then the rate is held at its peak."""
    decay = "          _target_: fvcore.common.param_scheduler.ExponentialParamScheduler\n          start_value: 0.01\n"
    config = load_config(write_tiny(tmp_path, replace=((SCHEDULE, decay + "          decay: 1e-9\n"),)))
    told = "--overfit-set optim.options.lr=null --overfit-set optim.optimizer.lr=0.01"
    assert ConfigChanges(config).lasting() in (told, "--overfit-set optim.options.lr.0.scheduler.decay=1")


def test_a_schedule_of_its_own_values_keeps_its_shape(tmp_path: Path) -> None:
    """All of them are scaled by one factor, so that the peak is the rate that works."""
    path = write_tiny(tmp_path, replace=((SCHEDULE, WARM.format(peak="6e-4")),))
    told = rate_overrides(load_config(path), 6e-4, 0.006)
    keys = "optim.options.lr.0.scheduler"
    assert told == f"--overfit-set {keys}.peak_value=0.006 --overfit-set {keys}.end_value=0.0006"
    after = rates_of(load_config(path, [text for text in told.split() if "=" in text]))
    assert max(after) == pytest.approx(0.006)
    assert after == pytest.approx([10 * r for r in rates_of(load_config(path))])


def test_keys_have_the_line_that_they_are_written_at(tmp_path: Path) -> None:
    """The nearest one above where there is none; quoted as a shell takes them."""
    clips = "optim:\n  gradient_clip:\n    configs:\n      - {module_name: [x], max_norm: 1e-9}\n"
    clips += "      - {module_name: [y], max_norm: 1.0}\n  frozen_module_names: ['*camera*']\n"
    weights = "MultitaskLoss, camera: {weight: 0.0}, depth: {weight: 1.0}}"
    path = write_tiny(tmp_path, replace=(("optim:\n", clips), ("MultitaskLoss}", weights)))
    changes = ConfigChanges(load_config(path))
    lines = path.read_text(encoding="utf-8").splitlines()
    line = 1 + next(at for at, text in enumerate(lines) if "AdamW" in text)
    assert changes.place("optim.optimizer.lr") == f"{path}:{line} optim.optimizer.lr"
    assert changes.place("nowhere.to.be.found") == ""
    assert changes.thawed() == "--overfit-set 'optim.frozen_module_names=[]'"
    assert changes.clip(1e-3, "10") == "--overfit-set optim.gradient_clip.configs.0.max_norm=10"
    assert changes.weight("loss_camera") == "--overfit-set loss.camera.weight=1.0"
    assert changes.weight("loss_depth") == changes.weight("loss_T") == ""
