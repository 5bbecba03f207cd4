"""A process group of one process, without a launcher, a port or anything that stays."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler, TensorDataset

from pytest_overfit.trainer.build import LAUNCH, alone


def test_a_sampler_that_insists_on_a_group_gets_one() -> None:
    """Rank 0 of 1 for the block; afterwards neither group nor variables."""
    with alone():
        assert [*DistributedSampler(TensorDataset(torch.arange(3)), shuffle=False)] == [0, 1, 2]
        assert {name: os.environ[name] for name in LAUNCH} == LAUNCH
        assert "MASTER_ADDR" not in os.environ
    assert not dist.is_initialized()
    assert not LAUNCH.keys() & os.environ.keys()


def test_a_group_that_is_there_is_left_alone() -> None:
    """One block inside the other: the outer one takes its group down."""
    with alone():
        with alone():
            pass
        assert dist.is_initialized()
    assert not dist.is_initialized()


def test_an_error_takes_the_group_down_too() -> None:
    """Whatever is raised inside."""
    try:
        with alone():
            raise RuntimeError
    except RuntimeError:
        assert not dist.is_initialized()


def test_not_wanted_means_nothing_happens() -> None:
    """A run without a trainer has no group."""
    with alone(False):
        assert not dist.is_initialized()
