"""What a checkpoint leaves out is found by the curve of the run that was not interrupted, and named."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TwinResult

SEEN = {"batches": 0}


class Hidden(nn.Module):
    """A layer that remembers what no state dict has: in itself, and in a global of its module."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 8)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 1
            SEEN["batches"] += 1
        made: Tensor = self.linear(x) * (1 + 0.1 * self.seen + 0.01 * SEEN["batches"])
        return made


class Program:
    """A training program with everything that a checkpoint may forget; ``lost`` is what this one forgets."""

    def __init__(self, lost: str = "") -> None:
        torch.manual_seed(0)
        self.lost = lost
        SEEN["batches"] = 0
        self.model = nn.Sequential(Hidden(), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        groups: Any = [{"params": self.model[0].parameters()}, {"params": self.model[3].parameters(), "lr": 0.02}]
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        self.average = copy.deepcopy(self.model)
        self.generator = torch.Generator().manual_seed(1)
        self.steps, self.cursor = 0, 0
        self.rows = torch.randn(7, generator=torch.Generator().manual_seed(2))
        self.batch = torch.randn(6, 4), torch.randn(6, 1)

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Every generator is drawn from, the data go on, and the average follows."""
        x, y = batch
        noise = random.random() + float(np.random.rand()) + float(torch.rand((), generator=self.generator))  # noqa: NPY002
        target = y + 0.01 * noise + 0.01 * self.rows[self.cursor % 7] + 0.001 * self.steps
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(x), target)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.steps, self.cursor = self.steps + 1, self.cursor + 1
        with torch.no_grad():
            for average, parameter in zip(self.average.parameters(), self.model.parameters(), strict=True):
                average.lerp_(parameter, 0.1)
        return loss.detach()

    def parts(self) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
        """Name -> (what is saved, what takes it back)."""

        def counted(name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
            return lambda: getattr(self, name), lambda value: setattr(self, name, value)

        def of(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
            return lambda: copy.deepcopy(thing.state_dict()), thing.load_state_dict

        hidden: Any = self.model[0]
        return {
            "model": of(self.model),
            "optimizer": of(self.optimizer),
            "scheduler": of(self.scheduler),
            "scaler": of(self.scaler),
            "average": of(self.average),
            "global": (lambda: dict(SEEN), SEEN.update),
            "hidden": (lambda: hidden.seen.clone(), lambda value: setattr(hidden, "seen", value)),
            "python": (random.getstate, random.setstate),
            "numpy": (np.random.get_state, np.random.set_state),
            "torch": (torch.get_rng_state, torch.set_rng_state),
            "generator": (self.generator.get_state, self.generator.set_state),
            "steps": counted("steps"),
            "cursor": counted("cursor"),
        }

    def save(self, path: Path) -> None:
        """All parts but the lost one."""
        torch.save({name: read() for name, (read, _) in self.parts().items() if name != self.lost}, path)

    def load(self, path: Path) -> None:
        """Puts back what is there."""
        saved = torch.load(path, weights_only=False)
        if self.lost == "momentum":
            for state in saved["optimizer"]["state"].values():
                state["momentum_buffer"] = None
        if self.lost == "group":  # the rate of the second group is taken for that of all
            for group in saved["optimizer"]["param_groups"]:
                group["lr"] = saved["optimizer"]["param_groups"][1]["lr"]
        if self.lost == "bias":
            saved["model"].pop("3.bias")
        if self.lost == "order":  # of the groups: each gets the momentum of the other's shapes where they fit
            saved["optimizer"]["state"][1], saved["optimizer"]["state"][3] = (
                {"momentum_buffer": torch.zeros(8)},
                {"momentum_buffer": torch.zeros(1)},
            )
        for name, (_, write) in self.parts().items():
            if name in saved:
                state = saved[name]
                write(state) if name != "model" else self.model.load_state_dict(state, strict=False)
        if self.lost == "one step more":  # as a loop that counts from the step that was saved
            self.steps += 1
        if self.lost == "next row":
            self.cursor += 1
        if self.lost == "stepped anew":
            self.scheduler.step()

    def twin(self, **more: Any) -> TwinResult:
        """The result of resuming it."""
        settings: dict[str, Any] = {"save": self.save, "load": self.load, **more}
        result = run_overfit(
            self.model, self.batch, step=self.step, twins=["resume"], max_steps=12, diagnose=False, **settings
        )
        (twin,) = result.record.twins
        assert result.finding("twins").missed == (twin.outcome == "disagreed")
        return twin


def test_a_checkpoint_that_has_everything_gives_the_uninterrupted_curve() -> None:
    """Bit for bit; the second half is trained by a process that has never trained before."""
    twin = Program().twin()
    assert (twin.outcome, twin.steps, twin.first, twin.allowed) == ("agreed", 6, 5, 0.0), twin.text()


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("model", "3.weight"),
        ("bias", "3.bias"),
        ("hidden", "0.seen"),
        ("optimizer", "momentum_buffer of SGD"),
        ("momentum", "momentum_buffer of SGD"),
        ("order", "momentum_buffer of SGD"),
        ("group", "lr of SGD, group 0"),
        ("scheduler", "ExponentialLR"),
        ("scaler", "GradScaler"),
        ("average", "average (Sequential)"),
        ("python", "random generators"),
        ("numpy", "random generators"),
        ("torch", "random generators"),
        ("generator", "generator"),
        ("steps", "the counter steps"),
        ("cursor", "the counter cursor"),
        ("global", ""),
        ("one step more", "the counter steps"),
        ("next row", "the counter cursor"),
        ("stepped anew", "ExponentialLR"),
    ],
)
def test_what_a_checkpoint_forgets_is_found_and_named(lost: str, named: str) -> None:
    """The kinds that trainparity 0.1.0 lists, and those beside them, written anew."""
    twin = Program(lost).twin()
    assert twin.outcome == "disagreed", twin.text()
    assert any(named in each for each in twin.missing), twin.missing
    assert twin.step is not None
    assert 4 <= twin.step <= 10


def test_without_save_and_load_every_state_dict_is_saved() -> None:
    """What no state dict has is lost all the same, and named."""
    program = Program()
    twin = program.twin(save=None, load=None)
    assert twin.outcome == "disagreed"
    assert any("seen" in each for each in twin.missing), twin.missing
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    loss = F.mse_loss
    result = run_overfit(net, program.batch, loss, twins=["resume"], max_steps=12, schedule=lambda at: 0.01 * (1 - at))
    assert result.record.twins[0].outcome == "agreed", result.record.twins[0].text()


def test_a_save_that_raises_costs_no_verdict() -> None:
    """It is not asked, and why is said; the run is judged as ever."""

    def refuse(path: Path) -> None:
        raise OSError("disk full")

    program = Program()
    assert "disk full" in program.twin(save=refuse).why
    assert "disk full" in Program().twin(load=refuse).why


class Logging(Program):
    """What it writes down for people to read is no state that a checkpoint has to bring back."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []
        self.last = 0.0

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().step(batch)
        self.losses.append(loss)
        self.last = float(loss)
        return loss


def test_a_log_is_no_state() -> None:
    """It grows in one process and begins anew in the other."""
    assert Logging().twin().outcome == "agreed"


def test_an_average_in_a_mapping_is_state() -> None:
    """Kept by hand, as many do."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, p in model.named_parameters():
            shadow[name].lerp_(p.detach(), 0.1)
        return loss.detach()

    batch = torch.randn(6, 4), torch.randn(6, 1)
    result = run_overfit(model, batch, step=step, twins="resume", max_steps=12, diagnose=False)
    (twin,) = result.record.twins
    assert twin.outcome == "disagreed", twin.text()
    assert any("shadow (dict)" in each for each in twin.missing), twin.missing


class Counting(torch.optim.Optimizer):
    """Counts its steps in a number that comes back as a tensor in single precision."""

    def __init__(self, parameters: Any, forgets: bool) -> None:
        super().__init__(parameters, {"lr": 0.01})
        self.forgets = forgets

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["step"] = torch.tensor(0.0 if self.forgets else float(state["step"]))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state["step"] = state.get("step", 0) + 1
            p.sub_(p.grad * self.param_groups[0]["lr"] * (1 - 0.9 ** state["step"]))


@pytest.mark.parametrize("forgets", [False, True])
def test_a_count_that_comes_back_as_a_tensor_rounds(forgets: bool) -> None:
    """All is there: what is left is rounding, and no fault of the checkpoint's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    batch = torch.randn(6, 4), torch.randn(6, 1)
    result = run_overfit(
        model,
        batch,
        F.mse_loss,
        optimizer=lambda parameters: Counting(parameters, forgets),
        twins="resume",
        max_steps=12,
        diagnose=False,
    )
    (twin,) = result.record.twins
    assert twin.outcome == ("disagreed" if forgets else "agreed"), twin.text()
    assert forgets or twin.allowed > 0
    assert not forgets or any("step of Counting" in each for each in twin.missing), twin.missing
