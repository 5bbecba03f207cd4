"""Terms by modules: who has a gradient where, and who reads without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.reached_modules import Reach


class Two(nn.Module):
    """A trunk, and two heads, of which the second reads the trunk as ``between`` has it."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.trunk, self.near, self.far = nn.Linear(6, 32), nn.Linear(32, 2), nn.Linear(32, 2)
        self.between = between

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x).tanh()
        return self.near(hidden), self.far(self.between(hidden))


def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    near, far = model(batch[0])
    first, second = (near - batch[1]).square().mean(), (far - batch[2]).square().mean()
    return {"objective": first + second, "first": first, "second": second}


def run(between: Any, **criteria: Any) -> OverfitResult:
    torch.manual_seed(0)
    batch = (torch.randn(5, 6), torch.randn(5, 2), torch.randn(5, 2))
    adam = lambda p: torch.optim.Adam(p, lr=0.02)  # noqa: E731
    return run_overfit(Two(between), batch, loss, optimizer=adam, max_steps=300, **criteria)


def cell(result: OverfitResult, term: str, module: str) -> Reach:
    return next(each for each in result.influence if (each.term, each.module) == (term, module))


def test_a_term_that_reads_a_module_without_a_gradient_is_named_with_its_line() -> None:
    """It has a limit, so it is meant to teach what it reads."""
    result = run(lambda hidden: hidden.detach(), second=0.01)
    (cause,) = result.causes
    assert (cause.id, cause.certain) == ("no-gradient", True)
    assert cause.where == "term second, module trunk"
    assert cause.advice.endswith(": result = run(lambda hidden: hidden, second=0.01)")
    assert not result.passed
    lost = cell(result, "second", "trunk")
    assert (lost.gradient, bool(lost.moved)) == (None, True)


@pytest.mark.parametrize("how", ["no_grad", "numpy"])
def test_other_ways_out_of_the_graph_count_too(how: str) -> None:
    """What the term does is measured, not the call that cuts it."""

    def between(hidden: Tensor) -> Tensor:
        if how == "numpy":
            return torch.from_numpy(hidden.detach().numpy().copy())
        with torch.no_grad():
            return hidden * 1

    assert [cause.id for cause in run(between, second=0.01).causes] == ["no-gradient"]


def test_heads_that_do_not_read_each_other_are_no_zeros() -> None:
    """Healthy: the table has a dash where a term neither reads nor teaches a module."""
    result = run(lambda hidden: hidden, second=0.01)
    assert result.passed, result.failure_text()
    assert cell(result, "second", "near").text == "-"
    assert cell(result, "first", "trunk").gradient


def test_what_is_meant_is_allowed() -> None:
    """One word of the advice; the table has it all the same."""
    result = run(lambda hidden: hidden.detach(), second=0.01, allow=["no-gradient"])
    assert result.passed, result.failure_text()
    assert cell(result, "second", "trunk").text.startswith("none, reads it")


def test_a_cut_between_the_rounds_of_a_refinement_is_meant() -> None:
    """One line detaches what the last round made, again and again: outputs slope otherwise than gradients."""

    class Refined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.round = nn.Linear(6, 32), nn.Linear(34, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden, guess = self.trunk(x).tanh(), x.new_zeros(len(x), 2)
            for _ in range(3):
                guess = guess.detach()
                guess = guess + self.round(torch.cat([hidden, guess.tanh()], 1))
            return guess

    torch.manual_seed(0)
    result = run_overfit(
        Refined(),
        (torch.randn(5, 6), torch.randn(5, 2)),
        nn.MSELoss(),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        max_steps=400,
    )
    assert result.passed, result.failure_text()
