"""The sixth set, of initial weights and optimizers: each does what it says to a program of torch alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_fifth_layers import CHAIN
from tests.benchmarks.wild.test_held_back import POINTS
from tests.benchmarks.wild.test_sixth_copies import CAUSAL


class Scaled(nn.Module):
    """Two layers, and one number that multiplies what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * self.layers(x)
        return out


SCALED = replace(POINTS, name="plain/Scaled", model=Scaled)
CASES = {
    "layers_start_as_copies": (CHAIN, "silent"),
    "widened_without_noise": (POINTS, "silent"),
    "gains_drawn_like_weights": (CAUSAL, "silent"),
    "drawn_with_deviation_one": (POINTS, "silent"),
    "factor_for_rate_in_group": (POINTS, "silent"),
    "frozen_part_decays": (SERIES, "silent"),
    "mean_taken_out_of_gradients": (SCALED, "silent"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("sixth_starts")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("layers_start_as_copies", POINTS),  # no two of one shape
        ("widened_without_noise", SERIES),  # what follows on the first layer is a recurrent one
        ("gains_drawn_like_weights", POINTS),  # no norm
        ("drawn_with_deviation_one", replace(POINTS, model=lambda: nn.Sequential(nn.Bilinear(6, 6, 2)))),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    if "deviation" in name:
        program = replace(program, loss=lambda model, batch: model[0](batch[0], batch[0]).square().mean())  # type: ignore[index]
    assert_no_place(name, program)


def test_layers_start_alike_and_part() -> None:
    """All of a list have the same weights, which are parameters of their own and learn apart."""
    setup = setup_of("layers_start_as_copies", CHAIN)
    run = train(replace(CHAIN, steps=3), setup, 0)
    names = [f"layers.{number}.0.weight" for number in range(3)]
    assert all(torch.equal(run.start[names[0]], run.start[name]) for name in names)
    assert not torch.equal(run.early[names[0]], run.early[names[1]])


def test_copied_units_stay_copies() -> None:
    """After all steps the two halves are the same."""
    setup = setup_of("widened_without_noise", POINTS)
    train(POINTS, setup, 0)
    weight = setup.model.get_parameter("0.weight")
    assert torch.allclose(weight[:16], weight[16:], atol=1e-5)
    assert not torch.allclose(
        weight[:16], setup_of("widened_without_noise", POINTS).model.get_parameter("0.weight")[:16]
    )


def test_all_gains_are_small() -> None:
    """Of every norm, and its shifts are no zeros."""
    model = setup_of("gains_drawn_like_weights", IMAGES).model
    gain, shift = model.get_parameter("norm.weight"), model.get_parameter("norm.bias")
    assert 0 < float(gain.detach().abs().max()) < 0.1
    assert shift.any()


def test_frozen_part_decays() -> None:
    """By its share in every step, and its gradient is zero."""
    setup = setup_of("frozen_part_decays", SERIES)
    (pattern,) = setup.given["frozen"]
    run = train(replace(SERIES, steps=3), setup, 0)
    inside = [name for name in run.start if name.startswith(pattern[:-1])]
    assert inside
    for name in inside:
        assert torch.allclose(run.early[name], run.start[name] * (1 - 0.001) ** 3, rtol=1e-5, atol=1e-7)


def test_number_alone_never_moves() -> None:
    """A gradient of one element is its own mean."""
    run = train(replace(SCALED, steps=3), setup_of("mean_taken_out_of_gradients", SCALED), 0)
    assert torch.equal(run.start["scale"], run.early["scale"])
    assert not torch.equal(run.start["layers.0.weight"], run.early["layers.0.weight"])
