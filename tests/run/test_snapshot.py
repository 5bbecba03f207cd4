"""Modules, optimizers and whatever the user's callables hold come back bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pytest_overfit.run.reachable import reachable
from pytest_overfit.run.snapshot import Snapshot, preserved


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()


def test_a_model_comes_back_bit_for_bit() -> None:
    """Parameters, buffers, gradients, flags and modes."""
    torch.manual_seed(0)
    linear, norm, dropout = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
    net = nn.Sequential(linear, norm, dropout)
    linear.weight.grad = torch.ones_like(linear.weight)
    linear.bias.requires_grad_(False)
    dropout.eval()
    state = {name: bits(value) for name, value in net.state_dict().items()}
    with preserved(net):
        net.train()
        net.requires_grad_(True)
        train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert {name: bits(value) for name, value in net.state_dict().items()} == state
    assert torch.equal(linear.weight.grad, torch.ones_like(linear.weight))
    assert linear.bias.grad is None
    assert not linear.bias.requires_grad
    assert norm.training
    assert not dropout.training


def test_the_trained_state_can_be_kept() -> None:
    """keep_trained leaves parameters and optimizer, and still restores gradients and modes."""
    linear = nn.Linear(3, 1)
    net = nn.Sequential(linear)
    optimizer = torch.optim.Adam(net.parameters())
    before = bits(linear.weight)
    with preserved(net, optimizer, keep_trained=True):
        train(net, optimizer)
        net.eval()
    assert bits(linear.weight) != before
    assert optimizer.state
    assert net.training
    assert linear.weight.grad is None


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.LBFGS, torch.optim.SGD])
def test_an_optimizer_keeps_its_identity_and_gets_its_state_back(kind: Callable[..., Any]) -> None:
    """Also one that had been stepping before: its moments are those from before, and so is its learning rate."""
    net = nn.Linear(3, 1)
    optimizer = kind(net.parameters(), lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = net(torch.ones(2, 3)).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    group, state = optimizer.param_groups[0], repr(optimizer.state_dict())
    with preserved(net, optimizer):
        optimizer.step(closure)
        group["lr"] = 7.0
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert optimizer.param_groups[0] is group
    assert repr(optimizer.state_dict()) == state
    assert all(p in set(net.parameters()) for p in optimizer.state)


def test_a_lazy_module_is_lazy_again() -> None:
    """Class, uninitialised parameters and the hook that would initialise them; it works a second time."""
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh())
    for _ in range(2):
        with preserved(net):
            assert net(torch.ones(2, 3)).shape == (2, 4)
            assert type(net[0]) is nn.Linear
        assert type(net[0]) is nn.LazyLinear
        assert isinstance(net[0].weight, nn.UninitializedParameter)
    assert net(torch.ones(2, 5)).shape == (2, 4)


class Stateful(nn.Module):
    """Keeps things where no state dict looks."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.zeros(2)
        self.layers = [nn.Linear(2, 2)]
        self.history: list[float] = [1.0]
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(2.0)
        self.hidden.add_(1.0)
        self.added = x
        out: Tensor = self.layers[0](x)
        return out


def test_plain_attributes_and_hidden_layers_come_back() -> None:
    """Tensors, counters and lists that are neither parameters nor buffers, and modules in a plain list."""
    net = Stateful()
    weight = bits(net.layers[0].weight)
    with preserved(net):
        net(torch.ones(2)).sum().backward()
        with torch.no_grad():
            net.layers[0].weight.zero_()
    assert net.calls == 0
    assert net.history == [1.0]
    assert float(net.hidden.sum()) == 0.0
    assert not hasattr(net, "added")
    assert bits(net.layers[0].weight) == weight
    assert net.layers[0].weight.grad is None


def test_hooks_that_a_run_leaves_are_removed_and_the_users_stay() -> None:
    """Of modules at any depth."""
    net = nn.Sequential(nn.Linear(2, 2))
    heard: list[str] = []
    net[0].register_forward_hook(lambda *_: heard.append("mine"))
    with preserved(net):
        net[0].register_forward_hook(lambda *_: heard.append("left behind"))
    net(torch.ones(2))
    assert heard == ["mine"]


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_modules_come_back(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Their tensors refuse to be deep-copied."""
    net = wrap(nn.Linear(3, 2))
    state = {name: bits(value) for name, value in net.state_dict().items()}
    with preserved(net):
        train(net, torch.optim.SGD(net.parameters(), lr=0.1))
        assert {name: bits(value) for name, value in net.state_dict().items()} != state
    assert {name: bits(value) for name, value in net.state_dict().items()} == state


def test_tied_weights_stay_tied() -> None:
    """One tensor before, one after."""
    net = nn.ModuleDict({"inner": nn.Embedding(4, 3), "outer": nn.Linear(3, 4, bias=False)})
    net["outer"].weight = net["inner"].weight
    before = bits(net["inner"].weight)  # type: ignore[arg-type]
    with preserved(net), torch.no_grad():
        net["outer"].weight.add_(1.0)  # type: ignore[operator]
    assert net["outer"].weight is net["inner"].weight
    assert bits(net["inner"].weight) == before  # type: ignore[arg-type]


def test_what_a_step_holds_is_found() -> None:
    """In closures, partials, bound methods, globals it names and containers; nothing of the libraries."""
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    teacher = nn.Linear(2, 1)
    generator = torch.Generator()

    class Trainer:
        def __init__(self) -> None:
            self.parts = {"optimizer": optimizer, "schedulers": [scheduler]}

        def step(self, batch: Any) -> Any:
            return helper(batch)

    def helper(batch: Any) -> Any:
        return teacher(batch), torch.rand(1, generator=generator)

    found = list(reachable(Trainer().step))
    for thing in (optimizer, scheduler, teacher, generator):
        assert any(thing is other for other in found)
    assert not any(type(other).__module__.startswith("pytest") for other in found)


def test_schedulers_and_generators_come_back() -> None:
    """Of torch, NumPy and Python, held by the user."""
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    mine, numpys, pythons = torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1)

    def draws() -> tuple[float, float, float]:
        return float(torch.rand(1, generator=mine)), float(numpys.random()), pythons.random()

    with preserved(net, optimizer, scheduler, mine, numpys, pythons):
        first = draws()
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == 0.05
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.last_epoch == 0
    assert draws() == first


class Holder:
    """Holds what no module knows of."""

    def __init__(self) -> None:
        self.inner, self.centre, self.seen = nn.Linear(3, 4), torch.zeros(1), 0


def test_what_a_plain_object_on_a_model_holds_comes_back() -> None:
    """Layers, tensors and counters."""
    net, held = nn.Linear(3, 4), Holder()
    net.held = held  # type: ignore[assignment]
    weight = bits(held.inner.weight)
    with preserved(net):
        train(held.inner, torch.optim.SGD(held.inner.parameters(), lr=0.1))
        held.centre.add_(1.0)
        held.seen += 1
    assert (bits(held.inner.weight), float(held.centre), held.seen) == (weight, 0.0, 0)


def test_tensors_beside_the_model_come_back() -> None:
    """Changed in place or exchanged, of a closure or of an attribute; a parameter is one here too."""
    held, offset, latent = Holder(), torch.zeros(2), nn.Parameter(torch.zeros(2))
    mine = held.centre

    def loss() -> Tensor:
        return (latent + offset).sum() + held.centre

    snapshot = Snapshot()
    snapshot.add_reachable(loss)
    assert [tensor for tensor, _ in snapshot.parameters() if tensor is latent]
    offset.add_(1.0)
    held.centre = held.centre + 1.0
    latent.data.add_(1.0)
    snapshot.restore()
    assert (held.centre is mine, loss().item()) == (True, 0.0)


def test_the_inside_of_an_optimizer_around_another_comes_back() -> None:
    """Its state, and what the outer one counts with."""
    net = nn.Linear(3, 4)

    class Around(torch.optim.SGD):
        def __init__(self) -> None:
            super().__init__(net.parameters(), lr=0.1)
            self.inner, self.count = torch.optim.Adam(self.param_groups), 0

        def step(self, closure: Any = None) -> Any:
            self.count += 1
            return self.inner.step(closure)

    optimizer = Around()
    with preserved(optimizer):
        train(net, optimizer)
        assert (len(optimizer.inner.state), optimizer.count) == (2, 3)
    assert (len(optimizer.inner.state), optimizer.count) == (0, 0)
