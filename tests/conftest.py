"""Every test starts from the same random numbers, in whatever order and process it runs."""

from __future__ import annotations

import contextlib
import os
import random
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors on a busy machine: two threads are ten times slower
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # nor do those of a test that wants several spin while they wait
os.environ.setdefault("PYTEST_OVERFIT_RAISE", "1")  # a mistake of ours ends the test, and is not one more note

pytest_plugins = ["pytester"]

SEED = int(os.environ.get("TESTS_SEED", "0"))  # another one finds tests that hold for this one alone

with contextlib.suppress(ImportError):  # the main job of README reads this file too, where no test is to run
    from hypothesis import HealthCheck, settings

    # The same examples in every run, however slow the machine is; with a seed of one's own others.
    settings.register_profile(
        "suite", deadline=None, derandomize="TESTS_SEED" not in os.environ, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Of fixtures too, which may be a module's."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Whichever fixtures were made before."""
    _seed()


def _seed() -> None:
    """A test without torch stays one."""
    random.seed(SEED)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(SEED)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(SEED)
