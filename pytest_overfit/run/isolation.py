"""A run leaves the process as it found it: random generators, thread count, determinism switches, model state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn


@contextlib.contextmanager
def isolated(*, seed: int, threads: int, deterministic: bool) -> Iterator[None]:
    """Seeds every generator for the block and restores generators, threads and cuDNN switches afterwards.

    Example:
        >>> with isolated(seed=42, threads=1, deterministic=True):
        ...     noise = torch.randn(3)      # the same in every process
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    threads_before = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    switches = (cudnn.deterministic, cudnn.benchmark)
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        try:
            seed_everything(seed)
            torch.set_num_threads(threads)
            if deterministic:
                cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_num_threads(threads_before)
            cudnn.deterministic, cudnn.benchmark = switches


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices) alike."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


@contextlib.contextmanager
def preserved(model: nn.Module, *, keep_trained: bool = False) -> Iterator[None]:
    """Puts parameters, buffers, gradients, ``requires_grad`` and train/eval flags of a module back after the block."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    grads = {
        name: (p.requires_grad, None if p.grad is None else p.grad.detach().clone())
        for name, p in model.named_parameters()
    }
    modes = {name: module.training for name, module in model.named_modules()}
    homes: dict[str, Any] = {name: tensor.device for name, tensor in tensors.items()}
    try:
        yield
    finally:
        if not keep_trained:
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.data = tensor.data.to(homes[name])
                    tensor.copy_(values[name])
        for name, parameter in model.named_parameters():
            if name in grads:
                parameter.requires_grad_(grads[name][0])
                parameter.grad = grads[name][1]
        for name, module in model.named_modules():
            module.training = modes.get(name, module.training)
