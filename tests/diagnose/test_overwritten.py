"""Values that one call writes to one place, and calls that write every value to a place of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from tests.support.told import told

FROM, TO = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2]), torch.tensor([1, 1, 3, 3, 5, 5, 2, 4])
SOURCE = torch.Generator().manual_seed(5)
X, Y = torch.randn(6, 4, generator=SOURCE), torch.randn(6, 2, generator=SOURCE)
Messages = Callable[[Tensor], Tensor]


class Graph(nn.Module):
    """One layer of messages along edges, which a function brings together at their nodes."""

    def __init__(self, together: Messages) -> None:
        super().__init__()
        self.together, self.own, self.sent, self.head = together, nn.Linear(4, 32), nn.Linear(4, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.own(x) + self.together(self.sent(x)[FROM])).tanh())  # type: ignore[no-any-return]


def assigned(messages: Tensor) -> Tensor:
    out = torch.zeros(6, messages.shape[1])
    out[TO] = messages
    return out


def put(messages: Tensor) -> Tensor:
    return torch.zeros(6, messages.shape[1]).index_put((TO,), messages)


def scattered(messages: Tensor) -> Tensor:
    return torch.zeros(6, messages.shape[1]).scatter(0, TO[:, None].expand_as(messages), messages)


def added(messages: Tensor) -> Tensor:
    return torch.zeros(6, messages.shape[1]).index_add(0, TO, messages)


def accumulated(messages: Tensor) -> Tensor:
    return torch.zeros(6, messages.shape[1]).index_put((TO,), messages, accumulate=True)


def largest(messages: Tensor) -> Tensor:
    zeros = torch.zeros(6, messages.shape[1])
    return zeros.scatter_reduce(0, TO[:, None].expand_as(messages), messages, "amax", include_self=False)


def in_another_order(messages: Tensor) -> Tensor:
    out = torch.zeros(8, messages.shape[1])
    out[torch.arange(8).flip(0)] = messages
    return out[:6]


def masked(messages: Tensor) -> Tensor:
    out = torch.zeros(6, messages.shape[1])
    out[torch.arange(6) < 4] = messages[:4]
    return out


def learn(together: Messages) -> str:
    torch.manual_seed(0)
    result = run_overfit(
        Graph(together), (X, Y), F.mse_loss, lr=1e-2, objective=0.01, max_steps=600, allow=["batch-mixing"]
    )
    if result.causes:
        assert result.causes[0].certain
        assert "of them are lost" in result.causes[0].observed
    return told(result)


@pytest.mark.parametrize("together", [assigned, put, scattered])
def test_of_several_values_for_one_place_one_stays(together: Messages) -> None:
    assert learn(together) == "wrong-backward"


@pytest.mark.parametrize("together", [added, accumulated, largest, in_another_order, masked])
def test_what_is_added_up_or_stands_alone_is_not_lost(together: Messages) -> None:
    assert learn(together) == ""
