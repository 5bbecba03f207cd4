"""Runs on an accelerator, a simulated one: ``test_accelerator.py`` runs these in a process of their own.

What is found there is what is found on the CPU, everything comes back, and the host hardly waits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.errors import OverfitError
from pytest_overfit.run import host_copies
from pytest_overfit.run.device import accelerators, choose_device
from pytest_overfit.run.snapshot import Snapshot, preserved
from pytest_overfit.run.task import Precision
from tests.support import simulated

simulated.register()
SIM = simulated.NAME


def batch(classes: int = 0) -> tuple[Tensor, Tensor]:
    """Eight samples; with classes of them as targets."""
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(8) % classes if classes else torch.randn(8, 2, generator=generator)
    return torch.randn(8, 6, generator=generator), target


class Gated(nn.Module):
    """Two branches of which one is cut off from the loss, by a mistake."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.first, self.second, self.cut = nn.Linear(6, 16), nn.Linear(16, 2), cut

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        return self.second(hidden.detach() if self.cut else hidden)  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """An embedding and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 16), nn.Linear(16, 11)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.table(x))).transpose(1, 2)  # type: ignore[no-any-return]


class Normed(nn.Sequential):
    """Buffers that every step writes."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


def tokens() -> tuple[Tensor, Tensor]:
    """Rows of words and the words that follow them."""
    text = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(2))
    return text[:, :-1], text[:, 1:]


def mlp(last: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, last))


def adam(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


class Hostile(nn.Module):
    """A loss that is no number as soon as it is small."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        error = F.mse_loss(predicted, target)
        return error + 0.0 * torch.log(error - 0.2)


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, dict[str, Any]]] = {
    "passes": (mlp, batch(), F.mse_loss, {"optimizer": adam(1e-2), "objective": 0.05}),
    "classes": (lambda: mlp(4), batch(4), F.cross_entropy, {"optimizer": adam(1e-2), "objective": 0.05}),
    "buffers": (Normed, batch(), F.mse_loss, {"optimizer": adam(1e-2), "objective": 0.3}),
    "tokens": (Tokens, tokens(), F.cross_entropy, {"optimizer": adam(1e-2), "objective": 0.1}),
    "rate too low": (mlp, batch(), F.mse_loss, {"optimizer": adam(1e-6), "objective": 0.05}),
    "rate too high": (mlp, batch(), F.mse_loss, {"optimizer": adam(3.0), "objective": 1e-3}),
    "cut": (lambda: Gated(cut=True), batch(), F.mse_loss, {"optimizer": adam(1e-2), "objective": 1e-3}),
    "frozen": (lambda: Gated(cut=False), batch(), F.mse_loss, {"freeze": ["first"], "objective": 1e-4}),
    "no number": (mlp, batch(), Hostile(), {"optimizer": adam(1e-2), "objective": 0.01}),
    "scheduled": (mlp, batch(), F.mse_loss, {"schedule": lambda p: 1e-2 * (1 - p), "objective": 0.05}),
    "clipped": (mlp, batch(), F.mse_loss, {"clip_grad_norm": 1e-4, "objective": 0.05, "lr": 1e-2}),
}


def told(result: OverfitResult) -> dict[str, Any]:
    """What a run says, but for the digits of another order of summing."""
    supervision = result.record.supervision
    assert supervision is not None
    return {
        "stop": result.record.stop,
        "findings": [(finding.name, finding.passed) for finding in result.findings],
        "causes": [cause.id for cause in result.causes],
        "not asked": [asked.question for asked in result.not_asked if asked.ours],
        "answers": {key: list(told) for key, told in supervision.answers.items()},
        "unread": supervision.unread,
        "no number": result.record.non_finite,
        "moved": [(p.name, p.moved > 0, p.trainable, p.in_optimizer) for p in result.record.parameters],
    }


@pytest.mark.parametrize("case", CASES)
def test_it_finds_there_what_it_finds_on_the_cpu(case: str) -> None:
    """The verdict, the causes, what the loss answers to; every parameter is itself, and what it was."""
    build, data, loss, settings = CASES[case]
    found = []
    for device in ("cpu", SIM):
        torch.manual_seed(0)
        model = build()
        before, kept = list(model.parameters()), copy.deepcopy(model.state_dict())
        result = run_overfit(model, data, loss, **{"max_steps": 120, "device": device, **settings})
        assert torch.device(result.record.device).type == device
        assert all(now is old for now, old in zip(model.parameters(), before, strict=True))
        assert all(value.equal(kept[name]) for name, value in model.state_dict().items())
        found.append(result)
    assert told(found[1]) == told(found[0])
    here, there = (result.record.curves["objective"] for result in found)
    assert there[: len(here)] == pytest.approx(here, rel=0.05, nan_ok=True)  # which is read less often


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> None:
    """Two steps, so that the optimizer remembers something."""
    for _ in range(2):
        optimizer.zero_grad()
        F.mse_loss(model(data[0]), data[1]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_what_is_there_already_comes_back_bit_for_bit() -> None:
    """A model on the device, its gradients, the state of its optimizer and of a scheduler, an average beside it."""
    model, data = mlp().to(SIM), tuple(tensor.to(SIM) for tensor in batch())
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    trained(model, optimizer, data)

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
        return loss

    things = (model, average, optimizer, scheduler)
    before = [copy.deepcopy(thing.state_dict()) for thing in things]
    start = Snapshot()
    start.add(model)
    assert {value.device.type for _, value in start.parameters()} == {"cpu"}  # the accelerator's memory is the model's
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    result = run_overfit(model, data, step=step, optimizer=optimizer, max_steps=12, objective=1e-9)
    assert result.record.device == f"{SIM}:0"
    assert result.record.steps == 12
    assert [same(now, then) for now, then in zip((t.state_dict() for t in things), before, strict=True)] == [True] * 4
    held = zip(model.parameters(), gradients, strict=True)
    assert all(p.grad is grad and grad.equal(value) for p, (grad, value) in held)


def same(now: Any, then: Any) -> bool:
    """Two state dicts, bit for bit and each on the device of the other."""
    if isinstance(then, Tensor):
        return bool(now.device == then.device and now.equal(then))
    if isinstance(then, dict):
        return now.keys() == then.keys() and all(same(now[key], value) for key, value in then.items())
    if isinstance(then, (list, tuple)):
        return len(now) == len(then) and all(map(same, now, then))
    return bool(now == then)


def test_an_optimizer_of_the_host_follows_the_model() -> None:
    """Model and optimizer are given on the CPU, the run is asked for on the device; both are the host's again."""
    model, data = mlp(), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    trained(model, optimizer, data)
    before, kept = list(model.parameters()), [copy.deepcopy(t.state_dict()) for t in (model, optimizer)]
    result = run_overfit(model, data, F.mse_loss, optimizer=optimizer, device=SIM, max_steps=100, objective=0.1)
    assert result.passed, result.findings
    assert torch.device(result.record.device).type == SIM
    assert same([t.state_dict() for t in (model, optimizer)], kept)
    assert all(now is old for now, old in zip(model.parameters(), before, strict=True))


@dataclass
class Nested:
    """A batch of the user's."""

    inputs: dict[str, Tensor]
    targets: tuple[Tensor, ...]


def test_every_tensor_of_a_batch_is_there() -> None:
    """Nested ones too; what was given stays on the host."""
    inputs, target = batch()
    given, seen = Nested({"x": inputs}, (target,)), set[str]()

    def loss(model: nn.Module, batch: Nested) -> Tensor:
        seen.update(tensor.device.type for tensor in (batch.inputs["x"], *batch.targets, *model.parameters()))
        return F.mse_loss(model(batch.inputs["x"]), batch.targets[0])

    assert run_overfit(mlp(), given, loss, device=SIM, lr=1e-2, objective=0.1, max_steps=200).passed
    assert seen == {SIM}
    assert {given.inputs["x"].device.type, given.targets[0].device.type} == {"cpu"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_and_its_scaler(dtype: str) -> None:
    """A scaler acts for float16 wherever there is an accelerator."""
    result = run_overfit(mlp(), batch(), F.mse_loss, device=SIM, amp=dtype, lr=1e-2, objective=0.1, max_steps=200)
    assert (result.passed, result.record.environment["precision"]) == (True, dtype), result.findings
    scaler = Precision(True, getattr(torch, dtype)).scaler(torch.device(SIM))
    assert scaler.is_enabled() == (dtype == "float16")


TWINS = ["resume", "accumulation", "batch", "bfloat16", "checkpointing", "fused", "device"]


def test_the_same_run_executed_otherwise() -> None:
    """Twins agree there as they do on the CPU."""
    found = []
    for device in ("cpu", SIM):
        torch.manual_seed(0)
        run = run_overfit(mlp(), batch(), F.mse_loss, twins=TWINS, device=device, max_steps=10, diagnose=False)
        found.append({twin.name: (twin.outcome, twin.why) for twin in run.record.twins})
    assert found[1] == found[0]


def test_it_is_the_device_that_is_taken() -> None:
    """By itself, by name, by number; a second one is not there."""
    assert accelerators()[SIM] == 1
    assert [choose_device(asked).device.type for asked in ("auto", SIM, f"{SIM}:0")] == [SIM] * 3
    assert choose_device("auto", require_gpu=True).note is None
    with pytest.raises(OverfitError, match=f"'{SIM}:1' is not there: torch .* counts 1 {SIM}"):
        choose_device(f"{SIM}:1")


def counted(steps: int) -> dict[str, list[int]]:
    """What a bare loop and a passing run with its diagnosis take of the device."""
    data, found = tuple(tensor.to(SIM) for tensor in batch(4)), {}
    for name in ("bare", "run"):
        model = mlp(4).to(SIM)
        with simulated.device.counted() as count:
            if name == "bare":
                optimizer = adam(1e-3)(model.parameters())
                for _ in range(steps):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(data[0]), data[1])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    loss.item()
            else:
                within: dict[str, Any] = {"objective": 100.0, "hold_steps": steps, "max_steps": steps}
                assert run_overfit(model, data, F.cross_entropy, optimizer=adam(1e-3), **within).record.steps == steps
        found[name] = [count.operations, count.waits, count.copies]
    return found


def test_a_step_waits_copies_and_computes_hardly_more_than_a_bare_one() -> None:
    """What more steps cost: the questions that are asked of a run are the same ones, however long it is."""
    short, long = counted(100), counted(400)
    cost = {name: [(b - a) / 300 for a, b in zip(short[name], long[name], strict=True)] for name in short}
    assert cost["bare"][1] == 1.0
    assert cost["run"][0] <= 1.05 * cost["bare"][0], cost
    assert cost["run"][1] <= 0.1, cost
    assert cost["run"][2] <= 0.05, cost


def test_the_record_says_how_often_the_host_looks() -> None:
    """On the CPU it looks at every step, and says nothing."""
    runs = [run_overfit(mlp(), batch(), F.mse_loss, device=each, max_steps=3, diagnose=False) for each in ("cpu", SIM)]
    assert [run.record.environment.get("losses read") for run in runs] == [None, "every 25 steps"]


def test_out_of_memory_there_is_one_clear_error() -> None:
    """Of the run's own step; everything is back."""
    model, data = mlp(), batch()
    before = copy.deepcopy(model.state_dict())
    simulated.device.memory = 4 * 8 * 15  # the hidden units take one column more
    try:
        with pytest.raises(OverfitError, match=f"out of memory on {SIM}, 512 bytes more were asked for"):
            run_overfit(model, data, F.mse_loss, device=SIM)
    finally:
        simulated.device.memory = None
    assert same(model.state_dict(), before)


def test_what_is_kept_is_under_way_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned copies: all are asked for before one wait, which comes when the first is read; training goes on before."""
    monkeypatch.setattr(host_copies, "pinned_like", lambda tensor: torch.empty_like(tensor, device="cpu"))
    model = mlp().to(SIM)
    values = [p.detach().to("cpu", copy=True) for p in model.parameters()]
    start = Snapshot()
    with simulated.device.counted() as taken:
        start.add(model)
    assert (taken.copies, taken.waits) == (len(values), 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    with simulated.device.counted() as read:
        kept = [start.value(p) for p in model.parameters()]
    assert (read.copies, read.waits) == (0, 1)
    assert all(a is not None and a.equal(b) for a, b in zip(kept, values, strict=True))
    start.restore()
    assert all(p.detach().cpu().equal(value) for p, value in zip(model.parameters(), values, strict=True))


def test_what_is_restored_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has read it before."""
    monkeypatch.setattr(host_copies, "pinned_like", lambda tensor: torch.empty_like(tensor, device="cpu"))
    model, data = mlp().to(SIM), batch()
    values = [p.detach().to("cpu", copy=True) for p in model.parameters()]
    with preserved(model):
        F.mse_loss(model(data[0].to(SIM)), data[1].to(SIM)).backward()  # type: ignore[no-untyped-call]
        torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(p.detach().cpu().equal(value) for p, value in zip(model.parameters(), values, strict=True))


def test_without_pinned_memory_a_copy_is_there_at_once() -> None:
    """This device has none."""
    assert host_copies.pinned_like(value := torch.ones(3).to(SIM)) is None
    assert host_copies.HostCopies().of(value).tolist() == [1.0, 1.0, 1.0]


def test_pinned_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what is free; the rest is copied as ever."""
    asked: list[int] = []
    monkeypatch.setattr(host_copies, "pinned_like", lambda tensor: asked.append(tensor.numel()))
    monkeypatch.setattr(host_copies, "free_bytes", lambda device: 4 * 4 * 10)
    copies = host_copies.HostCopies()
    assert [copies.of(torch.ones(count).to(SIM)).tolist() for count in (10, 11)] == [[1.0] * 10, [1.0] * 11]
    assert asked == [10]
