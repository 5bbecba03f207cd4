"""No library is imported before one of its objects is handed over."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_overfit.integrations.adapt import home_of, may_bring_data

RUN = """
import sys, torch
from pytest_overfit import run_overfit
run_overfit(torch.nn.Linear(2, 1), (torch.ones(3, 2), torch.ones(3, 1)), torch.nn.functional.mse_loss, max_steps=2)
print([name for name in ("pytorch_lightning", "lightning", "transformers", "accelerate") if name in sys.modules])
"""


def test_a_run_of_a_plain_model_imports_neither() -> None:
    """Nor does what adapts them, at start-up or during a run."""
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stranger_has_no_home() -> None:
    """Classes of the same name from elsewhere are none of them."""
    assert home_of(type("Trainer", (), {})()) is None
    assert not may_bring_data([])


@pytest.mark.parametrize("model", [lambda: None, dict])
def test_a_factory_may_bring_data(model: object) -> None:
    """What it builds is not known yet."""
    assert may_bring_data(model)
