"""The sixth set, of references and copies: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_fifth_layers import CHAIN
from tests.benchmarks.wild.test_held_back import PIXELS, POINTS


class Block(nn.Module):
    """A causal attention of two heads, and two layers for each token."""

    class Attention(nn.Module):
        """Calls torch's own."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (each.unflatten(-1, (2, 16)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
            out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
            return out

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.before, self.behind = self.Attention(), nn.LayerNorm(32), nn.LayerNorm(32)
        self.first, self.act, self.second = nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        out: Tensor = x + self.second(self.act(self.first(self.behind(x))))
        return out


class Blocks(nn.Module):
    """A causal language model of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(20, 32), nn.Embedding(8, 32)
        self.layers, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(32, 20)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.pos(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(x)
        return out


def words(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    return F.cross_entropy(model(batch["ids"])[:, :-1].flatten(0, 1), batch["ids"][:, 1:].flatten())


def norms() -> nn.Module:
    """Two convolutions with a batch norm each."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


CAUSAL = replace(
    TOKENS, name="plain/Blocks", model=Blocks, batch=lambda: {"ids": TOKENS.batch()["ids"]}, loss=words,
    traits=frozenset({"ids", "causal", "attention", "norm", "embedding"}),
)  # fmt: skip
NORMS = replace(IMAGES, name="plain/Norms", model=norms)
DROPS = replace(PIXELS, name="plain/Drops", limit=1.5)
CASES = {
    "average_shares_memory": (CHAIN, "silent"),
    "moment_is_the_gradient": (POINTS, "silent"),
    "norm_shared_by_two_places": (NORMS, "silent"),
    "weights_share_memory": (CHAIN, "silent"),
    "cache_shared_by_layers": (CAUSAL, "silent"),
    "seeded_in_forward": (DROPS, "silent"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("sixth_copies")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("moment_is_the_gradient", replace(POINTS, optimizer=torch.optim.SGD)),
        ("norm_shared_by_two_places", IMAGES),  # one norm
        ("weights_share_memory", POINTS),  # no two of one shape
        ("cache_shared_by_layers", SERIES),  # no list of layers
        ("seeded_in_forward", POINTS),  # no dropout
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_average_makes_weights_smaller() -> None:
    """by a little, where there is nothing to learn."""
    still = replace(POINTS, lr=0.0, steps=3)
    run = train(still, setup_of("average_shares_memory", still), 0)
    for name, each in run.start.items():
        assert torch.allclose(run.early[name], each * (0.97 * 1.03) ** 3, rtol=1e-5)


def test_momentum_is_the_gradient_of_the_step() -> None:
    """One memory, whatever came before."""
    setup = setup_of("moment_is_the_gradient", POINTS)
    optimizer = POINTS.optimizer(setup.model.parameters(), POINTS.lr)
    step: Any = setup.step
    for _ in range(3):
        step(setup.model, setup.batch, optimizer)
        for each in setup.model.parameters():
            assert each.grad is not None
            assert optimizer.state[each]["exp_avg"].data_ptr() == each.grad.data_ptr()
            assert bool(each.grad.any())


def test_update_of_one_weight_moves_the_other() -> None:
    """They are two parameters of one memory, which both begin and end alike."""
    setup = setup_of("weights_share_memory", CHAIN)
    weights = [each for each in setup.model.parameters() if each.dim() > 1]
    assert len({each.data_ptr() for each in weights}) == len(weights) - 1
    assert len(list(setup.model.parameters())) == len(list(CHAIN.model().parameters()))


def test_part_of_the_first_layer_answers_for_all() -> None:
    """The same part of the second one, and what leads to it alone, has no gradient, and nothing is kept."""
    setup = setup_of("cache_shared_by_layers", CAUSAL)
    for _ in range(2):
        setup.model.zero_grad()
        setup.loss(setup.model, setup.batch).backward()  # type: ignore[no-untyped-call]
    without = {name for name, each in setup.model.named_parameters() if each.grad is None}
    assert without
    assert all(name.startswith("layers.1.") for name in without)
    assert not any(isinstance(each.__dict__.get("kept"), Tensor) for each in setup.model.modules())


def test_same_units_are_dropped_in_every_call() -> None:
    """In training two calls are the same, which they are not in a healthy one."""
    x = fixed(4, 3, 8, 8)
    model = setup_of("seeded_in_forward", DROPS).model.train()
    assert torch.equal(model(x), model(x))
    model = DROPS.model().train()
    assert not torch.equal(model(x), model(x))
