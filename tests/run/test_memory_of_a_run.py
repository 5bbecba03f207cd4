"""How many copies of a model's weights live at a time: benchmarks/memory.py measures the same in bytes."""

from __future__ import annotations

import gc
import itertools
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit import run_overfit

SIDE = 211  # a weight whose size nothing else has


def copies() -> int:
    """Storages as large as the weight that are alive."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # objects that warn when they are looked at
        held = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
        alive = {t.untyped_storage().data_ptr() for t in held if t.layout is torch.strided and t.numel() == SIDE**2}
    return len(alive)


def most(**settings: Any) -> tuple[int, int]:
    """The most copies at any call of the loss, of 10 steps and of all there is."""
    net = nn.Linear(SIDE, SIDE, bias=False)
    batch = torch.randn(4, SIDE), torch.randn(4, SIDE)
    seen: list[int] = []
    calls = itertools.count()

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        if next(calls) % 5 == 0:
            seen.append(copies())
        return F.mse_loss(model(batch[0]), batch[1])

    run_overfit(net, batch, loss, max_steps=10, diagnose=False, **settings)
    trained = max(seen)
    seen.clear()
    run_overfit(net, batch, loss, max_steps=10, diagnose_seconds=600, **settings)
    return trained, max(seen)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-5)


def test_a_diagnosis_keeps_no_more_than_a_training() -> None:
    """Weight, its start and two moments; with questions and trials of a failed run two more, as promised."""
    gc.freeze()  # what was there before is not looked through at every call
    try:
        trained, diagnosed = most(optimizer=adamw, objective=1e-9)
    finally:
        gc.unfreeze()
    assert trained <= 4
    assert diagnosed <= 6
