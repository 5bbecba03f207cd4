"""A run leaves the process as it found it: random generators, thread count, precision and determinism switches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

Switch = tuple[Callable[[], Any], Callable[[Any], Any]]


def _cudnn(name: str) -> Switch:
    return lambda: getattr(torch.backends.cudnn, name), lambda on: setattr(torch.backends.cudnn, name, on)


def _autocast(kind: str) -> tuple[Switch, Switch]:
    enabled = lambda: torch.is_autocast_enabled(kind), lambda on: torch.set_autocast_enabled(kind, on)
    dtype = lambda: torch.get_autocast_dtype(kind), lambda dtype: torch.set_autocast_dtype(kind, dtype)
    return enabled, dtype


# (read, write) of every global switch that a model, a loss or a train step may turn.
SWITCHES: tuple[Switch, ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda state: torch.use_deterministic_algorithms(state[0], warn_only=state[1]),
    ),
    *map(_cudnn, ("deterministic", "benchmark", "enabled", "allow_tf32")),
    *_autocast("cpu"),
    *_autocast("cuda"),
)


@contextlib.contextmanager
def isolated(*, seed: int, threads: int | None = None, deterministic: bool = False) -> Iterator[None]:
    """Seeds every generator for the block; generators and global switches come back afterwards.

    Example:
        >>> with isolated(seed=42, threads=1, deterministic=True):
        ...     noise = torch.randn(3)      # the same in every process

    Args:
        threads: CPU threads within the block; None leaves them alone.
        deterministic: cuDNN's deterministic kernels, without its benchmark.
    """
    with restored_process():
        seed_everything(seed)
        if threads is not None:
            torch.set_num_threads(threads)
        if deterministic:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        yield


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Random generators of Python, NumPy and torch (all devices) and global switches come back after the block."""
    switches = [(read, write, read()) for read, write in SWITCHES]
    generators = [(write, read()) for read, write in _generators()]
    try:
        yield
    finally:
        for write, state in generators:
            write(state)
        for read, write, state in switches:
            if read() != state:  # torch.use_deterministic_algorithms() imports its compiler: a second
                write(state)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices) alike."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed() formats three stacks where there is no GPU
    if torch.cuda.device_count():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    if getattr(torch, "xpu", None) is not None and torch.xpu.device_count():
        torch.xpu.manual_seed_all(seed)


def _generators() -> Iterator[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    yield random.getstate, random.setstate
    yield np.random.get_state, np.random.set_state
    yield torch.get_rng_state, torch.set_rng_state
    if torch.cuda.device_count():
        yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
    if torch.backends.mps.is_available():
        yield torch.mps.get_rng_state, torch.mps.set_rng_state
    if getattr(torch, "xpu", None) is not None and torch.xpu.device_count():
        yield torch.xpu.get_rng_state_all, torch.xpu.set_rng_state_all
