"""Kernels, precision, checkpointing, fused optimizers: healthy ones agree, broken ones are found and placed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TwinResult

Batch = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """One layer of causal attention with a switch between two forms; ``wrong`` breaks the second."""

    def __init__(self, wrong: str = "", dropout: float = 0.0) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.fused_attn, self.wrong, self.dropout = True, wrong, dropout

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
        dropped = self.dropout if self.training else 0.0
        if self.fused_attn:
            made = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropped)
        else:
            scores = q @ k.transpose(-1, -2) * (1.0 if self.wrong == "scale" else 8**-0.5)
            allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(1 if self.wrong == "mask" else 0)
            weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
            if self.wrong == "gradient":
                weights = weights.detach()
            made = F.dropout(weights, dropped) @ v
        added: Tensor = x + self.out(made.transpose(1, 2).flatten(2))
        return added


def decoder(**more: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 16), Attention(**more), nn.Linear(16, 7))


def tokens() -> Batch:
    return torch.arange(24).reshape(4, 6) % 7, torch.arange(24).reshape(4, 6) * 3 % 7


def token_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def twins(model: nn.Module, batch: Any, loss: Any = None, *, twin: str, **more: Any) -> list[TwinResult]:
    """The results of one twin."""
    result = run_overfit(model, batch, loss, twins=twin, max_steps=10, diagnose=False, **more)
    return list(result.record.twins)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_forms_of_attention_that_are_the_same_agree(dropout: float) -> None:
    """The model's own switch, and the kernels of torch."""
    found = twins(decoder(dropout=dropout), tokens(), token_loss, twin="attention")
    assert [each.name for each in found] == ["attention (fused_attn)", "attention (math)"]
    assert all(each.outcome == "agreed" for each in found), [each.text() for each in found]


@pytest.mark.parametrize("wrong", ["mask", "scale", "gradient"])
def test_a_wrong_form_of_attention_is_found_and_placed(wrong: str) -> None:
    """By its outputs where they differ, else by its gradients."""
    first, _ = twins(decoder(wrong=wrong), tokens(), token_loss, twin="attention")
    assert (first.outcome, first.step) == ("disagreed", 1), first.text()
    assert first.outputs == ("" if wrong == "gradient" else "1"), first.text()
    assert wrong != "gradient" or first.gradients == "1.qkv"


def test_without_attention_it_is_not_asked() -> None:
    """And why."""
    (found,) = twins(nn.Linear(3, 1), (torch.randn(4, 3), torch.randn(4, 1)), F.mse_loss, twin="attention")
    assert found.outcome == "not asked"


def dense(*layers: nn.Module) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), *layers, nn.Linear(16, 1)), (torch.randn(5, 3), torch.randn(5, 1))


class Cast(nn.Module):
    """Whatever it is handed, it computes in one precision."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        if self.change == "small":  # what is left of a gradient that came down in half precision
            return x * 1e-5 * 1e5 if x.dtype is torch.float32 else (x.float() * 1e-30).half().float() * 1e30
        if self.change == "cancelled":
            return (x + 4096) - 4096
        return x.detach() if x.dtype is not torch.float32 else x


@pytest.mark.parametrize("twin", ["bfloat16", "float16"])
def test_a_healthy_model_stays_within_the_band(twin: str) -> None:
    """Dropout included: both in evaluation mode then."""
    for layers in ([nn.Tanh()], [nn.GELU(), nn.Dropout(0.2)], [nn.LayerNorm(16), nn.SiLU()]):
        model, batch = dense(*layers)
        (found,) = twins(model, batch, F.mse_loss, twin=twin)
        assert found.outcome == "agreed", found.text()


@pytest.mark.parametrize("change", ["small", "cancelled", "cut"])
@pytest.mark.parametrize("twin", ["bfloat16", "float16"])
def test_what_breaks_in_half_precision_is_found(twin: str, change: str) -> None:
    """Underflow, cancellation, a path that is cut there."""
    model, batch = dense(Cast(change), nn.Tanh())
    (found,) = twins(model, batch, F.mse_loss, twin=twin, lr=0.05)
    assert found.outcome == "disagreed", found.text()


@pytest.mark.parametrize("twin", ["bfloat16", "float16"])
def test_a_step_of_ones_own_is_cast_at_every_step(twin: str) -> None:
    """Autocast keeps the weights that it has cast for as long as it is on."""
    model, batch = dense(nn.Tanh())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    (found,) = twins(model, batch, step=step, twin=twin)
    assert found.outcome == "agreed", found.text()
    assert found.curve[-1] < 0.8 * found.curve[0]


def test_a_run_in_half_precision_is_held_against_a_full_one() -> None:
    """What is exchanged is what the run has."""
    model, batch = dense(nn.Tanh())
    (found,) = twins(model, batch, F.mse_loss, twin="bfloat16", amp="bfloat16")
    assert (found.outcome, found.exchanged) == ("agreed", "full precision in place of bfloat16")


class Sgd(torch.optim.Optimizer):
    """An optimizer with a second form of its own, which has a fault."""

    def __init__(self, parameters: Iterable[Tensor], fault: str) -> None:
        super().__init__(parameters, {"lr": 0.05, "momentum": 0.9, "foreach": False})
        self.fault = fault

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            together, fault = group["foreach"], self.fault
            for index, p in enumerate(p for p in group["params"] if p.grad is not None):
                if together and fault == "last" and index == len(group["params"]) - 1:
                    continue
                old = self.state[p].get("momentum", torch.zeros_like(p))
                new = old * (0.0 if together and fault == "momentum" else group["momentum"]) + p.grad
                self.state[p]["momentum"] = new
                p.sub_(new * group["lr"] * (1.01 if together and fault == "rate" else 1.0))


@pytest.mark.parametrize("fault", ["", "last", "momentum", "rate"])
def test_forms_of_an_optimizer(fault: str) -> None:
    """Right, or with a tensor left out, no momentum, another rate."""
    model, batch = dense(nn.Tanh())
    (found, rest) = twins(model, batch, F.mse_loss, twin="fused", optimizer=lambda p: Sgd(p, fault))
    assert found.outcome == ("disagreed" if fault else "agreed"), found.text()
    assert rest.outcome == "not asked"
    assert not fault or (found.step or 0) >= 2


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_forms_of_the_optimizers_of_torch_agree(make: Any) -> None:
    """foreach and fused."""
    model, batch = dense(nn.Tanh())
    found = twins(model, batch, F.mse_loss, twin="fused", optimizer=lambda p: make(p, lr=0.01))
    assert [each.outcome for each in found] == ["agreed", "agreed"], [each.text() for each in found]


class Block(nn.Module):
    """What is made a second time under checkpointing may not be the same."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.linear, self.fault, self.calls = nn.Linear(16, 16), fault, 0
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.fault == "buffer":
            self.seen += 1
            x = x * (1 + 0.1 * self.seen)
        if self.fault == "calls":
            x = x * (1 + 0.1 * (self.calls % 2))
        return x + torch.tanh(self.linear(x))


class Switched(nn.Module):
    """A model with a switch of its own, whose checkpointed path forgets a block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.on = nn.ModuleList([Block(), Block()]), False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.on = enable

    def forward(self, x: Tensor) -> Tensor:
        for block in list(self.blocks)[: 1 if self.on else 2]:
            x = block(x)
        return x


def test_checkpointing_around_blocks_agrees() -> None:
    """Dropout included: its numbers are kept."""
    model, batch = dense(nn.Sequential(Block(), nn.Dropout(0.2), Block()))
    (found,) = twins(model, batch, F.mse_loss, twin="checkpointing")
    assert found.outcome == "agreed", found.text()


@pytest.mark.parametrize("block", [Block("buffer"), Block("calls"), Switched()])
def test_checkpointing_that_changes_the_training_is_found(block: nn.Module) -> None:
    """State that moves with every forward pass, and a path of its own."""
    model, batch = dense(block)
    (found,) = twins(model, batch, F.mse_loss, twin="checkpointing")
    assert (found.outcome, found.step) == ("disagreed", 1), found.text()


class Own(nn.Module):
    """A model with a switch of its own, which is on, off, or wired to nothing."""

    def __init__(self, on: bool = False, wired: bool = True, skips: bool = False) -> None:
        super().__init__()
        self.block, self.on, self.wired, self.skips = Block(), on, wired, skips

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.on = enable

    def forward(self, x: Tensor) -> Tensor:
        if self.on and self.wired:
            made: Tensor = checkpoint(self.block, x, use_reentrant=False)
            return made
        return x * 1.1 if self.skips else self.block(x)


def test_checkpointing_that_is_on_is_switched_off() -> None:
    """What a twin exchanges is what the run has; the switch is afterwards where it was."""
    for own, outcome in ((Own(on=True), "agreed"), (Own(on=True, skips=True), "disagreed"), (Own(), "agreed")):
        model, batch = dense(own)
        was = own.on
        (found,) = twins(model, batch, F.mse_loss, twin="checkpointing")
        assert (found.outcome, own.on) == (outcome, was), found.text()
        assert ("without" in found.exchanged) == was


@pytest.mark.parametrize("on", [True, False])
def test_a_switch_that_does_nothing_is_no_agreement(on: bool) -> None:
    """No module runs again in the backward pass."""
    model, batch = dense(Own(on, wired=False))
    (found,) = twins(model, batch, F.mse_loss, twin="checkpointing")
    assert "changes nothing" in found.why, found.text()


def test_blocks_without_modules_inside_are_checkpointed() -> None:
    """Their own forward pass runs again."""
    model, batch = dense(nn.Sequential(nn.Linear(16, 16), nn.Tanh()))
    (found,) = twins(model, batch, F.mse_loss, twin="checkpointing")
    assert found.outcome == "agreed", found.text()
