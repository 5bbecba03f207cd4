"""A run leaves the process and the model as it found them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from pytest_overfit.run.isolation import isolated, preserved


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


def test_a_model_comes_back_bit_for_bit() -> None:
    """Parameters, buffers, gradients, flags and modes."""
    torch.manual_seed(0)
    linear, norm, dropout = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
    net = nn.Sequential(linear, norm, dropout)
    linear.weight.grad = torch.ones_like(linear.weight)
    linear.bias.requires_grad_(False)
    dropout.eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with preserved(net):
        net.train()
        net.requires_grad_(True)
        net(torch.randn(8, 3)).sum().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(1.0)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert torch.equal(linear.weight.grad, torch.ones_like(linear.weight))
    assert linear.bias.grad is None
    assert not linear.bias.requires_grad
    assert norm.training
    assert not dropout.training


def test_the_trained_state_can_be_kept() -> None:
    """keep_trained leaves the values, and still restores flags."""
    net = nn.Linear(2, 1)
    with preserved(net, keep_trained=True), torch.no_grad():
        net.weight.fill_(3.0)
    assert bool((net.weight == 3.0).all())
