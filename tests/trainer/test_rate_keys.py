"""Advice on a learning rate names the key that is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer.config_subject import rate_overrides
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
