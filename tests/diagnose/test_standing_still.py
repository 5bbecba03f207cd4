"""What stands still, or moves alone, while a run passes: idle parts, idle steps, free scalars, passes that write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tests.diagnose.test_silent_updates import learn, net, rows
from tests.support.told import told

if TYPE_CHECKING:
    from typing_extensions import Self


class Heads(nn.Module):
    """Two heads of attention with one projection for queries, keys and values."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.mistake = mistake
        self.embed, self.qkv, self.out = nn.Linear(6, 16), nn.Linear(16, 48), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        if self.mistake == "keys":
            v = k
        seen = F.scaled_dot_product_attention(q, k, v)
        if self.mistake == "first":
            seen = seen[:, :1].expand_as(seen)
        return self.out(seen.transpose(1, 2).flatten(2) + x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("mistake", "idle", "first"), [("", 0, 0), ("keys", 16, 32), ("first", 24, 8)])
def test_heads_and_chunks_that_nothing_reads(mistake: str, idle: int, first: int) -> None:
    batch = tuple(each.reshape(2, 4, -1) for each in rows())
    result = learn(lambda: Heads(mistake), batch, F.mse_loss)
    assert told(result) == ("zero-gradient" if mistake else "")
    if mistake:
        assert f"{idle} of 48 output features of qkv.weight, in whole parts of" in result.causes[0].observed
        assert result.causes[0].where.startswith(f"qkv.weight[{first}:")
        assert told(learn(lambda: Heads(mistake), batch, F.mse_loss, allow=["zero-gradient:qkv.weight*"])) == ""


def test_units_that_die_alone_are_no_part() -> None:
    def build() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))
        with torch.no_grad():
            bias = model.get_parameter("0.bias")
            bias[[3, 4, 9, 17, 30, 31]] = -100.0
        return model

    assert told(learn(build, rows(), F.mse_loss)) == ""


@pytest.mark.parametrize("whole", [False, True])
def test_a_rate_of_zero_for_many_steps(whole: bool) -> None:
    def warm_up(count: int) -> float:
        return min(1, count // 40) if whole else min(1.0, count / 40)

    schedules: list[LambdaLR] = []

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        if not schedules:
            schedules.append(LambdaLR(optimizer, warm_up))
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedules[0].step()
        return loss

    result = learn(net, rows(), step=step)
    assert told(result) == ("lr-schedule" if whole else "")
    if whole:
        assert "exactly 0 in the first" in result.causes[0].observed


@pytest.mark.parametrize(("times", "cause"), [(0, "loss-scale"), (1, ""), (2, "loss-scale")])
def test_a_scale_by_hand_is_divided_out_once(times: int, cause: str) -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        (loss * 1024).backward()  # type: ignore[no-untyped-call]
        for p in model.parameters():
            assert p.grad is not None
            p.grad /= 1024**times
        optimizer.step()
        return loss

    result = learn(net, rows(), step=step)
    assert told(result) == cause
    if cause:
        assert ("nothing divides" if times == 0 else "twice") in result.causes[0].observed


class Weighed(nn.Module):
    """A model beside an uncertainty that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.log_variance = net(), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("held", [True, False])
def test_a_scalar_that_weighs_the_objective_down(held: bool) -> None:
    def loss(model: Weighed, batch: tuple[Tensor, Tensor]) -> Tensor:
        s = model.log_variance
        return F.mse_loss(model(batch[0]), batch[1]) * torch.exp(-s) + (s.clamp_min(-3) + 3 if held else 0)

    limits = {"objective": 0.2} if held else {}
    result = learn(Weighed, rows(), loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.03), max_steps=800, **limits)
    assert told(result) == ("" if held else "vacuous"), result.summary()
    if not held:
        assert "log_variance" in result.causes[0].where


def test_a_temperature_is_no_weight_of_the_objective() -> None:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 16), nn.Linear(2, 16)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return F.normalize(self.one(x), dim=-1), F.normalize(self.other(y), dim=-1)

    def loss(model: Clip, batch: tuple[Tensor, Tensor]) -> Tensor:
        one, other = model(*batch)
        return F.cross_entropy(model.scale.exp() * one @ other.T, torch.arange(8))

    assert told(learn(Clip, rows(), loss, objective=0.2)) == ""


class Merged(nn.Module):
    """A model with something that is added to a weight in evaluation mode."""

    def __init__(self, *, back: bool = False, length: bool = False) -> None:
        super().__init__()
        self.net, self.back, self.length = net(), back, length
        self.delta = torch.full((2, 32), 0.01)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_parameter("net.2.weight")
        if not self.training:
            with torch.no_grad():
                weight.copy_(F.normalize(weight) * 3) if self.length else weight.add_(self.delta)
        out: Tensor = self.net(x)
        if self.back and not self.training:
            with torch.no_grad():
                weight.sub_(self.delta)
        return out


def test_an_evaluation_that_writes_into_a_weight() -> None:
    result = learn(Merged, rows(), F.mse_loss)
    assert told(result) == "drift"
    assert result.causes[0].where == "net.2.weight"


def test_an_evaluation_that_takes_back_what_it_writes() -> None:
    assert told(learn(lambda: Merged(back=True), rows(), F.mse_loss, allow=["mode-gap"])) == ""


def test_a_weight_that_is_brought_to_a_length_stays_there() -> None:
    assert "drift" not in told(learn(lambda: Merged(length=True), rows(), F.mse_loss))


def test_an_input_that_is_handed_over_as_zeros() -> None:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 16), nn.Linear(2, 16)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return F.normalize(self.one(x), dim=-1), F.normalize(self.other(y), dim=-1)

    def loss(model: Clip, batch: dict[str, Tensor], *, zeros: bool) -> Tensor:
        given = torch.zeros_like(batch["text"]) if zeros else batch["text"]
        one, other = model(batch["image"], given)
        return F.cross_entropy(10 * one @ other.T, torch.arange(8))

    x, y = rows()
    for zeros in (False, True):
        result = learn(Clip, {"image": x, "text": y}, lambda m, b, z=zeros: loss(m, b, zeros=z), objective=0.5)
        assert told(result) == ("input-ignored" if zeros else "")
        assert not zeros or result.causes[0].where == "text"


@pytest.mark.parametrize("stochastic", [True, False])
def test_evaluation_that_undoes_all_is_a_gap_whatever_is_declared(stochastic: bool) -> None:
    class Averaged(nn.Module):
        """Evaluation swaps in other running statistics."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.norm, self.head = nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Linear(32, 2)
            self.other = torch.full((32,), 5.0)

        def train(self, mode: bool = True) -> Self:
            if mode != self.training:
                mean = self.norm.running_mean
                assert mean is not None
                kept = mean.clone()
                mean.copy_(self.other)
                self.other.copy_(kept)
            return super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.net(x)).tanh())  # type: ignore[no-any-return]

    result = learn(Averaged, rows(), F.mse_loss, stochastic=stochastic)
    assert told(result) == "mode-gap"
