"""The fifth set, inside of models: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from benchmarks.wild.operators.operator import healthy
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_held_back import PIXELS, POINTS, TAGS


class Chain(nn.Module):
    """A loop over layers, each of which reads what the one before has made."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(x)
        return out


class Loop(nn.Module):
    """A cell in a loop over time, which returns its state beside its output."""

    class Cell(nn.Module):
        """An output, and a state."""

        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(6, 32)

        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            state = self.cell(x, state)
            return state * 2, state

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = self.Cell(), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 32)
        for moment in range(x.shape[1]):
            out, state = self.cell(x[:, moment], state)
        told: Tensor = self.head(out)
        return told


class Placed(nn.Module):
    """The mean of tokens, each of which is turned by its position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.linspace(0.1, 1, 32)
        out: Tensor = self.head((self.first(x) * angles.cos()).mean(1))
        return out


class Experts(nn.Module):
    """Two experts, weighed by a router."""

    class Router(nn.Module):
        """The probability of each expert."""

        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(self.scores(x), -1)

    def __init__(self) -> None:
        super().__init__()
        self.router = self.Router()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x)
        return torch.stack([weights[:, [n]] * each(x) for n, each in enumerate(self.experts)]).sum(0)


def read(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of a series."""
    return F.mse_loss(model(batch["x"]), batch["y"])


CHAIN = replace(POINTS, name="plain/Chain", model=Chain)
LOOP = replace(SERIES, name="plain/Loop", model=Loop, loss=read)
PLACED = replace(LOOP, name="plain/Placed", model=Placed)
EXPERTS = replace(POINTS, name="plain/Experts", model=Experts)
CASES = {
    "loop_reads_first_input": (CHAIN, "silent"),
    "state_detached_in_every_step": (SERIES, "silent"),
    "state_thrown_away": (SERIES, "silent"),
    "state_of_another_sample": (SERIES, "silent"),
    "positions_all_zero": (PLACED, "silent"),
    "choice_without_its_probability": (EXPERTS, "silent"),
    "causal_in_training_alone": (TOKENS, "silent"),
    "flips_not_taken_back": (PIXELS, "silent"),
    "time_first_by_view": (TAGS, "breaks"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("fifth_layers")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("loop_reads_first_input", EXPERTS),  # which are called beside each other
        ("state_detached_in_every_step", CHAIN),
        ("state_thrown_away", TOKENS),
        ("state_of_another_sample", POINTS),
        ("positions_all_zero", SERIES),
        ("choice_without_its_probability", SERIES),
        ("causal_in_training_alone", TAGS),
        ("flips_not_taken_back", IMAGES),  # nothing that is told for a place
        ("time_first_by_view", IMAGES),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_last_layer_alone_learns() -> None:
    """All layers between the first and the last have no gradient, and no other part is without."""
    setup = setup_of("loop_reads_first_input", CHAIN)
    setup.loss(setup.model, setup.batch).backward()  # type: ignore[no-untyped-call]
    without = {name for name, each in setup.model.named_parameters() if each.grad is None}
    assert without == {f"layers.{number}.0.{name}" for number in (0, 1) for name in ("weight", "bias")}


@pytest.mark.parametrize("program", [SERIES, LOOP], ids=lambda program: program.name)
def test_state_has_no_memory(program: Program) -> None:
    """What is told after the last step does not answer to the first one, in a layer and in a cell."""
    for setup, answers in ((healthy(program, 0), True), (setup_of("state_thrown_away", program), False)):
        x = setup.batch["x"].clone()
        with torch.no_grad():
            before = setup.model.eval()(x)
            x[:, 0] += 1
            assert torch.allclose(before, setup.model(x), atol=1e-6) != answers


@pytest.mark.parametrize("program", [SERIES, LOOP], ids=lambda program: program.name)
def test_state_is_the_neighbours(program: Program) -> None:
    """A sample answers to what its neighbour has read before the last step."""
    model = setup_of("state_of_another_sample", program).model.eval()
    x = program.batch()["x"]
    with torch.no_grad():
        before = model(x)
        x[0, -2] += 1
        after = model(x)
    moved = [not torch.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True)]
    assert moved == [False, True, False, False, False, False]


@pytest.mark.parametrize("program", [SERIES, LOOP], ids=lambda program: program.name)
def test_detached_state_is_the_same_one(program: Program) -> None:
    """The loss is what it was, and the gradient another one."""
    quiet = replace(program, steps=3)
    for_both = [healthy(program, 0), setup_of("state_detached_in_every_step", program)]
    for setup in for_both:
        for module in setup.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    runs = [train(quiet, setup, 0) for setup in for_both]
    assert runs[0].losses[0] == pytest.approx(runs[1].losses[0])
    name = next(each for each in runs[0].gradients if "weight_hh" in each)
    assert not torch.allclose(runs[0].gradients[name], runs[1].gradients[name], rtol=1e-2)


def test_order_counts_for_nothing() -> None:
    """Where all positions are the same one."""
    x = fixed(6, 7, 6)
    for setup, counts in ((healthy(PLACED, 0), True), (setup_of("positions_all_zero", PLACED), False)):
        assert torch.allclose(setup.model(x), setup.model(x.flip(1)), atol=1e-6) != counts


def test_future_is_seen_in_evaluation() -> None:
    """And not in training."""
    model, batch = setup_of("causal_in_training_alone", TOKENS).model, TOKENS.batch()
    other = {**batch, "ids": batch["ids"].clone()}
    other["ids"][:, -3] = (other["ids"][:, -3] + 1) % 20
    for training in (True, False):
        model.train(training)
        seen = [model(each["ids"], mask=each["mask"])[:, 0] for each in (batch, other)]
        assert torch.allclose(seen[0], seen[1], atol=1e-6) == training
