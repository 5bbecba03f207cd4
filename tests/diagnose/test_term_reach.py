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
    """It has a limit, which it misses. A probe is written so, and one that meets its limit is what it is to be."""
    assert run(lambda hidden: hidden.detach(), second=0.01).passed
    result = run(lambda hidden: hidden.detach(), second=1e-20)
    cause = result.causes[0]
    assert (cause.id, cause.certain) == ("no-gradient", False)
    assert cause.where == "term second, module trunk"
    assert cause.advice.endswith(": result = run(lambda hidden: hidden, second=1e-20)")
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


class Rounds(nn.Module):
    """Three rounds of a guess, cut from each other; and what weighs its error, by a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.round, self.weigh = nn.Linear(6, 32), nn.Linear(34, 2), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden, guess = self.trunk(x).tanh(), x.new_zeros(len(x), 2)
        for _ in range(3):
            before = guess.detach()
            guess = before + self.round(torch.cat([hidden, before.tanh()], 1))
        return {"guess": guess, "doubt": self.weigh(hidden).exp()}


class OneHead(nn.Module):
    """Both by one head, which has a gradient from either."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.net(x)
        return {"guess": found[:, :2], "doubt": found[:, 2:].exp()}


def weighed(guess: Tensor, doubt: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    error = (guess - wanted).abs()
    return {"objective": (error * doubt + 0.1 * doubt.square()).mean(), "error": error.detach().mean()}


def run_short(model: type[nn.Module], loss: Any, **criteria: Any) -> OverfitResult:
    torch.manual_seed(0)
    batch = (torch.randn(5, 6), torch.randn(5, 2))
    adam = lambda p: torch.optim.Adam(p, lr=0.02)  # noqa: E731
    return run_overfit(model, batch, loss, optimizer=adam, max_steps=60, objective=0.01, error=0.05, **criteria)


@pytest.mark.parametrize("model", [Rounds, OneHead])
def test_an_output_that_the_loss_detaches_is_named_with_the_line_of_the_loss(model: type[nn.Module]) -> None:
    """Rounds of a model are detached too: without that line alone a gradient gets there."""

    def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        found = model(batch[0])
        return weighed(found["guess"].detach(), found["doubt"], batch[1])

    first = run_short(model, loss).causes[0]
    line = loss.__code__.co_firstlineno + 2
    assert first.id == "no-gradient"
    assert f"test_term_reach.py:{line}" in f"{first.where} {first.observed}"
    assert first.where.startswith("round." if model is Rounds else "output guess")


def test_a_term_of_an_output_that_the_objective_does_not_answer_to_is_missing() -> None:
    """The terms are numbers without a graph: what moves them is asked by exchange."""

    def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        found = model(batch[0])
        near, far = ((each - batch[1]).square().mean() for each in (found["guess"], found["doubt"]))
        return {"objective": near, "error": near.detach(), "far": far.detach()}

    first = run_short(OneHead, loss, far=0.01).causes[0]
    assert (first.id, first.where) == ("term-missing", "term far")


@pytest.mark.parametrize("model", [Rounds, OneHead])
def test_outputs_that_nothing_reads_are_no_finding(model: type[nn.Module]) -> None:
    """Healthy but for its steps, and one output is for looking at alone."""

    def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        error = (model(batch[0])["guess"] - batch[1]).abs().mean()
        return {"objective": error, "error": error.detach()}

    result = run_short(model, loss, unused=["weigh.*"] if model is Rounds else [])
    assert not result.passed
    assert not {"no-gradient", "term-missing"} & {cause.id for cause in result.causes}, result.causes


def test_a_target_that_is_detached_on_purpose_is_no_finding() -> None:
    """Of an only term: each of two outputs is held against the other one as it is, as in BYOL; the run is too short."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        found = model(batch[0])
        first: Tensor = found["guess"]
        second: Tensor = found["doubt"]
        gap: Tensor = (first - second.detach()).square() + (first - batch[1]).square()
        return gap.mean()

    torch.manual_seed(0)
    slow = lambda p: torch.optim.Adam(p, lr=1e-5)  # noqa: E731
    batch = (torch.randn(5, 6), torch.randn(5, 2))
    result = run_overfit(OneHead, batch, loss, optimizer=slow, max_steps=60, objective=0.01)
    assert not result.passed
    assert "no-gradient" not in [cause.id for cause in result.causes]
