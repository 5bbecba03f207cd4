"""What FSDP2 cannot take, said before anything is sharded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.run.ranks.sharding import blocks_of, refuse_instances
from pytest_overfit.settings.settings import Distributed


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.head = nn.Linear(2, 1)


def test_an_optimizer_that_was_built_is_refused() -> None:
    """It holds the parameters of the model that is not trained."""
    with pytest.raises(OverfitError, match="built already") as error:
        refuse_instances(torch.optim.AdamW(Net().parameters()))
    assert "a factory called with the sharded parameters" in str(error.value)
    refuse_instances(None)
    refuse_instances(torch.optim.AdamW)


def test_the_blocks_of_a_model() -> None:
    """The elements of its lists, or what the setting names; inner modules before outer ones."""
    net = Net()
    net.places = nn.ModuleList([None])  # type: ignore[list-item]  # one that is left empty
    assert list(blocks_of(net, ())) == [net.blocks[1], net.blocks[0]]
    assert list(blocks_of(net, Distributed(modules=("head",)).modules)) == [net.head]


def test_a_pattern_that_matches_no_module() -> None:
    """In the house form."""
    with pytest.raises(ConfigError, match="matches no module") as error:
        list(blocks_of(Net(), ("layers.*",)))
    assert "blocks.0" in str(error.value)
