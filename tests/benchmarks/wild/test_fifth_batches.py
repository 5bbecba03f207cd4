"""The fifth set, in what is read of a batch: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.operators.operator import healthy
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_fifth import TWINS, assert_no_place, setup_of
from tests.benchmarks.wild.test_held_back import POINTS, TAGS


class Denoiser(nn.Module):
    """Tells noise by a timestep between 0 and 1000."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.time, self.leave = nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(16) / 16)
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        out: Tensor = self.leave(torch.relu(self.enter(x) + time[:, None, None]))
        return out


@dataclass
class Graphs:
    """Two rings of three nodes."""

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    y: Tensor


def rings() -> Graphs:
    """What they are made of: each node is told a number."""
    ring = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])
    return Graphs(fixed(6, 6), torch.cat([ring, ring + 3], 1), torch.arange(6) // 3, fixed(6, 2))


class Messages(nn.Module):
    """The sum of what the neighbours say."""

    def __init__(self) -> None:
        super().__init__()
        self.say, self.own, self.head = nn.Linear(6, 32), nn.Linear(6, 32), nn.Linear(32, 2)

    def forward(self, data: Any) -> Tensor:
        source, goal = data.edge_index
        heard = torch.zeros(len(data.x), 32).index_add(0, goal, self.say(data.x)[source])
        out: Tensor = self.head(torch.tanh(heard + self.own(data.x)))
        return out


NOISE = Program(
    "plain/Denoiser", "plain", Denoiser,
    lambda: (fixed(4, 3, 3, 4), torch.tensor([100, 300, 500, 700]), fixed(4, 3, 3, 4).roll(1, 0)),
    lambda model, batch: F.mse_loss(model(batch[0], batch[1]), batch[2]), 1.0, 200, 1e-2,
    traits=frozenset({"image", "regression"}),
)  # fmt: skip
RINGS = replace(
    POINTS, name="plain/Messages", model=Messages, batch=rings, traits=frozenset({"graph"}),
    loss=lambda model, batch: F.mse_loss(model(batch), batch.y),
)  # fmt: skip
CASES = {
    "ids_clamped_to_other_vocabulary": (TOKENS, "silent"),
    "condition_of_first_for_all": (NOISE, "silent"),
    "timesteps_between_zero_and_one": (NOISE, "silent"),
    "first_channel_for_all": (IMAGES, "silent"),
    "noise_added_in_place": (IMAGES, "silent"),
    "first_view_read_twice": (TWINS, "silent"),
    "messages_overwritten": (RINGS, "silent"),
    "edges_without_offset": (RINGS, "silent"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("fifth_batches")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("ids_clamped_to_other_vocabulary", POINTS),
        ("condition_of_first_for_all", SERIES),  # one input
        ("timesteps_between_zero_and_one", TAGS),
        ("first_channel_for_all", POINTS),  # columns of a table
        ("noise_added_in_place", TAGS),
        ("first_view_read_twice", POINTS),
        ("messages_overwritten", SERIES),
        ("edges_without_offset", replace(RINGS, batch=lambda: replace(rings(), batch=torch.zeros(6)))),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_batch_has_more_noise_with_every_call() -> None:
    """In training, and not in evaluation."""
    setup = setup_of("noise_added_in_place", IMAGES)
    right, far = IMAGES.batch()[0], []
    for _ in range(3):
        setup.loss(setup.model.train(), setup.batch)
        far.append(float((setup.batch[0] - right).norm()))
    setup.loss(setup.model.eval(), setup.batch)
    assert far[0] < far[1] < far[2] == float((setup.batch[0] - right).norm())


def test_second_view_is_not_read() -> None:
    """The loss is the same one without it."""
    setup = setup_of("first_view_read_twice", TWINS)
    first, second = setup.batch
    values = [float(setup.loss(setup.model, (first, other)).detach()) for other in (second, second + 1)]
    assert values[0] == values[1]
    assert float(setup.loss(setup.model, (first + 1, second)).detach()) != values[0]


def test_edges_lie_in_the_first_graph() -> None:
    """All of them, those of the first one as they were."""
    edges = setup_of("edges_without_offset", RINGS).batch.edge_index
    assert torch.equal(edges[:, 6:], edges[:, :6])
    assert torch.equal(edges[:, :6], rings().edge_index[:, :6])


def test_one_neighbour_is_heard() -> None:
    """Of the two that the first node has; the second graph is none of them."""
    for setup, answers in (
        (healthy(RINGS, 0), [True, True, True, False, False, False]),
        (setup_of("messages_overwritten", RINGS), [True, True, False, False, False, False]),
    ):
        told: list[Tensor] = []
        setup.model.register_forward_hook(lambda module, args, out, told=told: told.append(out[0].detach()))
        setup.loss(setup.model, setup.batch)
        for node in range(6):
            other = replace(setup.batch, x=setup.batch.x.clone())
            other.x[node] += 1
            setup.loss(setup.model, other)
        assert [not torch.equal(each, told[0]) for each in told[1:]] == answers
