"""What a model keeps from call to call: hidden states, caches and averages, and what is reset or kept on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Keep = Callable[["Recurrent", Tensor], Tensor]


class Recurrent(nn.Module):
    """A recurrent network that may keep something: ``keep`` is asked for its first state."""

    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self.keep, self.rnn, self.head = keep, nn.GRU(4, 32, batch_first=True), nn.Linear(32, 3)
        self.hidden: Tensor | None = None
        self.tables: dict[int, Tensor] = {}
        self.register_buffer("queue", torch.zeros(8, 32))

    def forward(self, x: Tensor) -> Tensor:
        states, hidden = self.rnn(x, self.keep(self, x))
        self.hidden = hidden.detach()
        return self.head(states[:, -1])  # type: ignore[no-any-return]

    def reset(self) -> None:
        self.hidden = None


def nothing(model: Recurrent, x: Tensor) -> Tensor:
    return torch.zeros(1, len(x), 32)


def the_last_state(model: Recurrent, x: Tensor) -> Tensor:
    return nothing(model, x) if model.hidden is None else model.hidden


def a_table(model: Recurrent, x: Tensor) -> Tensor:
    """The same for every call of this length."""
    return model.tables.setdefault(x.shape[1], nothing(model, x) + 0.5)


def a_queue(model: Recurrent, x: Tensor) -> Tensor:
    """A memory that is a buffer, and saved with the model."""
    with torch.no_grad():
        queue = model.get_buffer("queue")
        start = queue.mean(0).expand(1, len(x), 32).clone()
        queue.copy_(torch.cat([queue[1:], x.mean((0, 1)).repeat(8)[None]]))
    return start


def another_queue(model: Recurrent, x: Tensor) -> Tensor:
    """The same, that is another tensor after every call."""
    start = model.get_buffer("queue").mean(0).expand(1, len(x), 32)
    model.queue = torch.cat([model.get_buffer("queue")[1:], x.detach().mean((0, 1)).repeat(8)[None]])
    return start


class Centred(nn.Module):
    """Subtracts a mean of its own that follows, in ``modes`` alone."""

    def __init__(self, modes: tuple[bool, ...]) -> None:
        super().__init__()
        self.modes, self.mean = modes, torch.zeros(4)
        self.net = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training in self.modes:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean((0, 1))
        return self.net(x - self.mean).mean(1)  # type: ignore[no-any-return]


def learn(model: Any, **settings: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 400, "objective": 0.1, **settings}
    if "step" not in settings:
        settings.setdefault("loss", nn.CrossEntropyLoss())
    return run_overfit(model, (torch.randn(6, 2, 4) + 1, torch.arange(6) % 3), **settings)


def found(result: OverfitResult) -> list[tuple[str, str]]:
    return [(cause.id, cause.where) for cause in result.causes if cause.certain]


def test_a_hidden_state_that_is_kept() -> None:
    result = learn(lambda: Recurrent(the_last_state))
    assert found(result) == [("stochastic", "module Recurrent (Recurrent)")]
    assert "evaluated again under the same seed after another one" in result.causes[0].observed


def test_an_average_of_the_inputs_that_evaluation_moves() -> None:
    assert found(learn(lambda: Centred((True, False)))) == [("stochastic", "module Centred (Centred)")]
    assert found(learn(lambda: Centred((True,)))) == []


@pytest.mark.parametrize("keep", [nothing, a_table, a_queue, another_queue])
def test_what_is_kept_on_purpose(keep: Keep) -> None:
    assert found(learn(lambda: Recurrent(keep))) == []


def before(model: Any, batch: Any) -> Tensor:
    model.reset()
    return F.cross_entropy(model(batch[0]), batch[1])


def after(model: Any, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """As loops of spiking networks do: the state is taken back once the step is over."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    model.reset()
    return loss


def never(model: Any, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


@pytest.mark.parametrize("how", [{"loss": before}, {"step": after}], ids=["before", "after"])
def test_a_state_that_is_reset_in_time(how: dict[str, Any]) -> None:
    assert found(learn(lambda: Recurrent(the_last_state), **how)) == []


def test_a_step_that_resets_nothing() -> None:
    assert found(learn(lambda: Recurrent(the_last_state), step=never)) == [
        ("stochastic", "module Recurrent (Recurrent)")
    ]
