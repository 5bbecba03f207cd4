"""A run leaves the process and the model as it found them."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from pytest_overfit.run.isolation import isolated


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_every_generator_comes_back() -> None:
    """Numbers drawn after the block are those that would have come without it."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    with isolated(seed=7, threads=1, deterministic=True):
        inside = draw()
    assert draw() == expected
    with isolated(seed=7, threads=1, deterministic=True):
        assert draw() == inside
    assert inside != expected


def test_threads_and_switches_come_back_after_an_error() -> None:
    """Also when the run raises."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)

    def run() -> None:
        with isolated(seed=0, threads=threads + 1, deterministic=True):
            assert torch.get_num_threads() == threads + 1
            raise RuntimeError("step 7")

    with pytest.raises(RuntimeError, match="step 7"):
        run()
    assert torch.get_num_threads() == threads
    assert (cudnn.deterministic, cudnn.benchmark) == before


def test_switches_that_the_block_has_turned_come_back() -> None:
    """Those that it has not are left alone: to write torch's determinism imports the compiler, a second each time."""
    with isolated(seed=0):
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.set_default_dtype(torch.float64)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_default_dtype() is torch.float32
    code = (
        "import sys; from pytest_overfit.run.isolation import isolated\n"
        "with isolated(seed=0, deterministic=True): pass\nprint('torch._inductor' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
