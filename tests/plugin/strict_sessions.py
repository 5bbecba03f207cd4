"""Sessions under --overfit-strict, and the tests that they have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

CPU = ("--overfit-strict", "--overfit-device=cpu")
SHORT = "--overfit-set=overfit.budget.max_steps=20"
HEAD = """
import pytest
import torch

@pytest.fixture
def run(overfit):
    def run(**settings):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        batch = torch.randn(8, 4), torch.randn(8, 1)
        adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)
        return overfit(net, batch, torch.nn.functional.mse_loss, optimizer=adam, diagnose=False, **settings)
    return run
"""
LEARNS = "def test_learns(run): run()"
MISSES = "objective=1e-30, max_steps=20"


def session(
    pytester: pytest.Pytester, *tests: str, args: Sequence[str] = CPU, workers: bool = False
) -> pytest.RunResult:
    """A session on these tests, in this process; with workers in another."""
    pytester.makepyfile(test_it="\n\n".join([HEAD, *tests]))
    return (pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess)(*args)
