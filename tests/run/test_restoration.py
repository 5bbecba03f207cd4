"""After a run everything is as it was, whichever way it ended."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.run.small_runs import Batch, adam, batch, net, run


class World:
    """Everything that a run must leave as it was."""

    def __init__(self) -> None:
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 2), nn.LazyLinear(2)
        )
        first = self.model[0]
        assert isinstance(first, nn.Linear)
        self.model[2].eval()
        first.bias.requires_grad_(False)
        first.weight.grad = torch.ones_like(first.weight)
        self.model[3].register_forward_hook(lambda *_: None)
        self.batch = batch()
        self.teacher = nn.Linear(4, 2)
        self.optimizer = torch.optim.Adam([p for p in self.model[:4].parameters() if p.requires_grad], lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.05, total_steps=3000)
        self.scaler = torch.amp.GradScaler("cpu", enabled=True)
        self.generator = torch.Generator().manual_seed(3)
        self.calls = 0

    def step(self, model: nn.Module, data: Batch) -> Tensor:
        self.calls += 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss: Tensor = F.mse_loss(model(data[0] + 0 * torch.rand(1, generator=self.generator)), data[1])
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        with torch.no_grad():
            self.teacher.weight.lerp_(torch.ones_like(self.teacher.weight), 0.1)
        if self.calls == self.raises_at:
            torch.set_num_threads(1)
            torch.set_default_dtype(torch.float64)
            torch.use_deterministic_algorithms(True)
            model.eval()
            raise ZeroDivisionError("step 7")
        return loss.float()

    raises_at = -1

    def state(self) -> dict[str, Any]:
        """Every tensor as bytes, everything else as it prints."""
        modules = {"model": self.model, "teacher": self.teacher}
        named = {f"{n}.{k}": m for n, top in modules.items() for k, m in top.named_modules()}
        lazy = nn.parameter.is_lazy
        tensors = {
            f"{n}.{k}": None if lazy(t) else t.detach().numpy().tobytes()
            for n, top in modules.items()
            for k, t in (*top.named_parameters(), *top.named_buffers())
        }
        parameters = [p for top in modules.values() for p in top.parameters()]
        return {
            "tensors": tensors,
            "kinds": {name: type(m).__name__ for name, m in named.items()},
            "modes": {name: m.training for name, m in named.items()},
            "hooks": {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in named.items()},
            "requires_grad": [p.requires_grad for p in parameters],
            "grads": [None if lazy(p) or p.grad is None else p.grad.numpy().tobytes() for p in parameters],
            "optimizer": repr(self.optimizer.state_dict()),
            "scheduler": repr(self.scheduler.state_dict()),
            "scaler": repr(self.scaler.state_dict()),
            "batch": [t.numpy().tobytes() for t in self.batch],
            "generator": self.generator.get_state().numpy().tobytes(),
            "torch": torch.get_rng_state().numpy().tobytes(),
            "numpy": repr(np.random.get_state()),  # noqa: NPY002
            "python": random.getstate(),
            "threads": torch.get_num_threads(),
            "dtype": torch.get_default_dtype(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
            "grad": torch.is_grad_enabled(),
            "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
            "anomaly": torch.is_anomaly_enabled(),
        }


@pytest.mark.parametrize("ending", ["passing", "failing", "raising"])
@pytest.mark.parametrize("how", ["loss", "step"])
def test_everything_is_as_it_was(ending: str, how: str) -> None:
    """After a run that passes, one that fails, and one whose loss raises at step 7."""
    torch.manual_seed(5)
    world = World()
    before = world.state()
    calls = 0

    def loss(model: nn.Module, data: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if ending == "raising" and calls == 3 + 7:  # the probe calls it three times
            torch.set_default_dtype(torch.float64)
            model.eval()
            raise ZeroDivisionError("step 7")
        return F.mse_loss(model(data[0]), data[1])

    world.raises_at = 3 + 7 if ending == "raising" else -1
    limit = 1e9 if ending == "passing" else 1e-9
    rest: dict[str, Any] = {"step": world.step} if how == "step" else {"optimizer": world.optimizer}

    def go() -> OverfitResult:
        return run_overfit(
            world.model,
            world.batch,
            None if how == "step" else loss,
            objective=limit,
            max_steps=30,
            supervised=True,
            **rest,
        )

    if ending == "raising":
        with pytest.raises(ZeroDivisionError, match="step 7"):
            go()
    else:
        result = go()
        assert result.finding("objective").passed == (ending == "passing"), result.summary()
    after = world.state()
    assert {key for key in before if before[key] != after[key]} == set()


def test_the_trained_state_can_be_kept() -> None:
    """Parameters and optimizer stay trained; random state and gradients still come back."""
    model = net()
    optimizer = adam(model.parameters())
    state = torch.get_rng_state()
    result = run(model, optimizer=optimizer, keep_trained=True)
    assert result.passed
    assert F.mse_loss(model(batch()[0]), batch()[1]).item() < 0.02
    assert optimizer.state
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
