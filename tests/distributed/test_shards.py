"""Which part of a batch a rank trains on."""

from __future__ import annotations

import pytest
import torch

from pytest_overfit.run.ranks.shards import aside, shard_of


def test_shards_make_up_the_batch() -> None:
    """In order; what has no axis of samples stays whole."""
    batch = {
        "x": torch.arange(12).reshape(6, 2),
        "y": torch.arange(6),
        "mean": torch.zeros(2),
        "scale": torch.tensor(1.0),
    }
    parts = [shard_of(batch, rank, 3) for rank in range(3)]
    assert all(part is not None and part["mean"].shape == (2,) and part["scale"].shape == () for part in parts)
    for name in ("x", "y"):
        assert torch.equal(torch.cat([part[name] for part in parts if part is not None]), batch[name])


@pytest.mark.parametrize("batch", [torch.zeros(3, 2), torch.zeros(1, 2), torch.tensor(1.0), "no tensor"])
def test_a_batch_that_does_not_divide_is_not_sharded(batch: object) -> None:
    """A single sample, an odd number of samples over two ranks, no axis at all."""
    assert shard_of(batch, 0, 2) is None


def test_a_look_aside_leaves_nothing_behind() -> None:
    """Buffers, modes, generators and gradients."""
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    net[1].eval()
    before, state = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    with aside(net, 0):
        net(torch.randn(4, 2)).sum().backward()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert not net[1].training
    assert all(p.grad is None for p in net.parameters())
