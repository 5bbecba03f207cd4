"""A run leaves the process as it found it: random generators, thread count, precision and determinism switches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pytest_overfit.run.device import accelerators, backend_of
from pytest_overfit.run.numpy_generator import numpy_state, put_numpy_back, seed_numpy

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
STATES = (("get_rng_state_all", "set_rng_state_all"), ("get_rng_state", "set_rng_state"))


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
    switches = [(read, write, read()) for read, write in (*SWITCHES, *_backend_switches())]
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
    seed_numpy(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed() formats three stacks where there is no GPU
    for kind in _there():
        backend = backend_of(kind)
        seeded = getattr(backend, "manual_seed_all", None) or getattr(backend, "manual_seed", None)
        if seeded is not None:
            seeded(seed)


def _generators() -> Iterator[Switch]:
    yield random.getstate, random.setstate
    yield numpy_state, put_numpy_back
    yield torch.get_rng_state, torch.set_rng_state
    yield from generators_of_devices()


def generators_of_devices() -> Iterator[Switch]:
    """(read, write) of the random generators of every accelerator."""
    for kind in _there():
        backend = backend_of(kind)
        read, write = next((names for names in STATES if hasattr(backend, names[0])), ("", ""))
        if read:
            yield getattr(backend, read), getattr(backend, write)


def _backend_switches() -> Iterator[Switch]:
    for kind in _there():
        if kind != "cuda":
            yield from _autocast(kind)


def _there() -> Iterator[str]:
    return (kind for kind, count in accelerators().items() if count)
