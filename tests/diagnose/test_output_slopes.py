"""Parts that move the outputs otherwise than their gradient says, where the rest of the network goes around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.output_slopes import CONFIRMED, measure_output_slopes
from pytest_overfit.run.task import Heard

X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 3
Within = Callable[["Block", Tensor], Tensor]


class Block(nn.Module):
    """What is added to what goes around it."""

    def __init__(self, within: Within) -> None:
        super().__init__()
        self.within = within
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.within(self, x)


class Net(nn.Module):
    def __init__(self, within: Within) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(6, 16), Block(within), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)).tanh())  # type: ignore[no-any-return]


def plain(block: Block, x: Tensor) -> Tensor:
    return block.down(block.up(block.norm(x)).relu())  # type: ignore[no-any-return]


def of_data(block: Block, x: Tensor) -> Tensor:
    return plain(block, x.data)


def by_numpy(block: Block, x: Tensor) -> Tensor:
    return plain(block, torch.from_numpy(x.detach().numpy().copy()))


def weights_without_gradient(block: Block, x: Tensor) -> Tensor:
    """An attention over features whose weights nobody differentiates."""
    hidden = block.up(block.norm(x))
    with torch.no_grad():
        weights = (3 * hidden).softmax(-1) * 32
    return block.down(hidden * weights)  # type: ignore[no-any-return]


def statistics_without_gradient(block: Block, x: Tensor) -> Tensor:
    """Two cuts in one line are no rounds of a refinement."""
    mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return block.down(block.up((x - mean.detach()) / (deviation.detach() + 0.1)).relu())  # type: ignore[no-any-return]


def gate_of_whole_numbers(block: Block, x: Tensor) -> Tensor:
    hidden = block.up(block.norm(x))
    return block.down(hidden * ((hidden * 4096).int() / 4096).sigmoid())  # type: ignore[no-any-return]


def shifted_by_a_constant(block: Block, x: Tensor) -> Tensor:
    """A softmax is the same whatever is taken off: the detached largest changes nothing."""
    hidden = block.up(block.norm(x))
    return block.down((hidden - hidden.amax(-1, keepdim=True).detach()).softmax(-1))  # type: ignore[no-any-return]


def straight_through(block: Block, x: Tensor) -> Tensor:
    hidden = block.up(block.norm(x)).tanh()
    return block.down(hidden + (hidden.round() - hidden).detach())  # type: ignore[no-any-return]


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 0.2 * gradient


def turned_down(block: Block, x: Tensor) -> Tensor:
    return plain(block, Reversed.apply(x))  # type: ignore[no-untyped-call]


def dropped(block: Block, x: Tensor) -> Tensor:
    return F.dropout(plain(block, x), 0.1, block.training)


def learn(model: nn.Module, **more: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 1e-2), "max_steps": 500, "objective": 0.1}
    return run_overfit(model, (X, Y), nn.CrossEntropyLoss(), **{**settings, **more})


@pytest.mark.parametrize(
    "within",
    [of_data, by_numpy, weights_without_gradient, gate_of_whole_numbers, statistics_without_gradient],
)
def test_a_part_whose_gradient_leaves_something_out(within: Within) -> None:
    torch.manual_seed(0)
    result = learn(Net(within))
    assert not result.passed
    assert result.causes[0].id == "no-gradient", result.failure_text()
    assert result.causes[0].where.startswith(("module embed", "module block.up", "module block.norm"))
    if within in (of_data, by_numpy, weights_without_gradient):
        line = within.__code__.co_firstlineno
        named = range(line + 1, line + 6)
        assert any(f"test_output_slopes.py:{each}" in result.causes[0].advice for each in named), result.causes[
            0
        ].text()


@pytest.mark.parametrize("within", [plain, shifted_by_a_constant, straight_through, turned_down, dropped])
def test_what_is_whole_or_meant(within: Within) -> None:
    torch.manual_seed(0)
    result = learn(Net(within), stochastic=within is dropped)
    assert [cause.id for cause in result.causes] == [], result.failure_text()


class Codes(nn.Module):
    """Vectors of a book, passed straight through; the book learns by a term of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.book, self.head = nn.Linear(6, 8), nn.Embedding(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(x)
        nearest = self.book(torch.cdist(x, self.book.weight).argmin(1))
        terms = F.mse_loss(nearest, x.detach()) + 0.25 * F.mse_loss(x, nearest.detach())
        out: Tensor = self.head(x - x.detach() + nearest.detach())
        return out, terms


def test_a_codebook_learns_by_a_term_of_its_own() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        out, term = model(batch[0])
        whole: Tensor = F.cross_entropy(out, batch[1]) + term
        return whole

    torch.manual_seed(0)
    result = run_overfit(
        Codes(), (X, Y), loss, optimizer=lambda p: torch.optim.Adam(p, 1e-2), max_steps=500, objective=0.2
    )
    assert "no-gradient" not in [cause.id for cause in result.causes], result.failure_text()


def test_a_rectifier_at_its_kink_is_no_cut() -> None:
    """Some unit of some sample lies nearly at 0 when it is asked: its slope is the mean of both sides."""
    for seed in (3, 30):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
        batch = torch.randn(8, 8), torch.arange(8) % 3
        adamw = lambda p: torch.optim.AdamW(p, lr=3e-3)  # noqa: E731
        result = run_overfit(net, batch, nn.CrossEntropyLoss(), optimizer=adamw, seeds=(seed,))
        assert result.passed, result.failure_text()


class Guessing(nn.Module):
    """A part of what is added has no gradient; beside it the model notes its guess, or takes features by it."""

    def __init__(self, leads: bool) -> None:
        super().__init__()
        self.leads, self.embed, self.head = leads, nn.Linear(6, 16), nn.Linear(16, 3)
        self.guess = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x)
        self.guess = hidden.argmax(-1, keepdim=True)
        if self.leads:
            return self.head(hidden + hidden.gather(1, self.guess).detach())  # type: ignore[no-any-return]
        return self.head(hidden + 3 * hidden.detach().tanh())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("leads", "found"), [(False, ["no-gradient"]), (True, [])])
def test_a_choice_that_leads_nowhere_hides_no_cut(leads: bool, found: list[str]) -> None:
    assert [cause.id for cause in learn(Guessing(leads)).causes] == found


@pytest.mark.parametrize(("share", "close", "found"), [(0.04, 0.05, []), (0.04, CONFIRMED, ["0"]), (0, CONFIRMED, [])])
def test_what_is_seen_elsewhere_is_confirmed_by_less(share: float, close: float, found: list[str]) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3)).double()

    def forward() -> tuple[Heard, dict[str, Tensor]]:
        hidden = model[0](X.double())
        output = model[1](hidden + share * hidden.data)
        return Heard([("output", output)]), {"objective": output.square().mean()}

    assert [slope.where for slope in measure_output_slopes(forward, model, close=close)] == found
