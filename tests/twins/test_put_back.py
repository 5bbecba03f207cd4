"""A twin that breaks in the middle, by an exception or by Ctrl-C, leaves nothing behind; and what a twin costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TWINS
from tests.support.outside import python

STEPS, ROWS = 12, 6
# Calls and batches, of this process and of those that it forks.
COUNTED: Tensor = torch.zeros(2, dtype=torch.float64).share_memory_()  # type: ignore[no-untyped-call]
Batch = tuple[Tensor, Tensor]


class Breaking:
    """Counts how often it is called, and breaks at one of the calls."""

    def __init__(self, error: type[BaseException], at: float, *, elsewhere: bool = False) -> None:
        self.error, self.at, self.elsewhere, self.home = error, at, elsewhere, os.getpid()
        COUNTED.zero_()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, module: Any, args: Any) -> None:
        COUNTED[0] += 1
        COUNTED[1] += len(args[0]) / ROWS
        away = os.getpid() != self.home
        if away if self.elsewhere else not away and COUNTED[0] == self.at:
            raise self.error("in the middle")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.fused_attn = nn.Linear(8, 24), nn.LayerNorm(8), True

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        if self.fused_attn:
            made: Tensor = F.scaled_dot_product_attention(q, k, v)
        else:
            made = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1) @ v
        return x + made


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.blocks = nn.Linear(4, 8), nn.ModuleList([Block(), Block()])
        self.drop, self.last, self.seen = nn.Dropout(dropout), nn.Linear(8, 1), torch.zeros(())
        self.register_buffer("moved", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)[:, None] * torch.linspace(0.5, 1.5, 3)[:, None]
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.last(self.drop(x).mean(1))
        return out


class Rows(Dataset[Batch]):
    """Rows that break where the model of the others does."""

    def __init__(self, breaking: Breaking) -> None:
        self.breaking = breaking

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Batch:
        self.breaking(None, (torch.zeros(1),))
        return torch.full((4,), index / ROWS), torch.full((1,), index / ROWS)


def made(
    twin: str, breaking: Breaking, dropout: float = 0.0, *, asked: bool = True
) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """A model that has trained before, its optimizer, and a run of it, with the twin or without."""
    model, original = Net(dropout), Net(dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = torch.randn(ROWS, 4), torch.randn(ROWS, 1)
    for _ in range(2):
        optimizer.zero_grad()
        F.mse_loss(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    given: dict[str, Any] = {"twins": twin} if twin != "port" else {"port_of": (original, {})}
    data = DataLoader(Rows(breaking), batch_size=ROWS) if twin == "workers" else batch
    if twin != "workers":
        for net in (model, original):
            net.register_forward_pre_hook(breaking)
    trained = torch.compile(model, backend="eager") if twin == "compile" else model

    def run() -> Any:
        return run_overfit(
            trained, data, F.mse_loss, optimizer=optimizer, objective=1e9, max_steps=STEPS, hold_steps=STEPS,
            diagnose=False, supervised=False, constant_batch=twin != "workers", **(given if asked else {}),
        )  # fmt: skip

    return model, optimizer, run


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    """Every number, every object that a module holds, every switch of the process."""
    for tensor in (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())):
        yield tensor.detach().clone() if tensor is not None else None
    for each in optimizer.state.values():
        yield from (value.clone() for value in each.values())
    yield [{**group, "params": [id(p) for p in group["params"]]} for group in optimizer.param_groups]
    yield [(type(m), {name: id(value) for name, value in vars(m).items()}) for m in model.modules()]
    yield [[*m._forward_hooks.values(), *m._forward_pre_hooks.values()] for m in model.modules()]
    yield torch.is_autocast_enabled("cpu"), torch.get_num_threads()
    yield torch._dynamo.eval_frame._stance.stance
    yield torch.get_rng_state()


def counted(twin: str, dropout: float = 0.0) -> tuple[Tensor, Tensor, Any]:
    """Calls and batches of a run without its twin, and of one with it, which is returned."""
    made(twin, Breaking(RuntimeError, 0), dropout, asked=False)[2]()
    without = COUNTED.clone()
    result = made(twin, Breaking(RuntimeError, 0), dropout)[2]()
    return without, COUNTED.clone(), result


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("twin", [*(name for name in TWINS if name != "device"), "port"])
def test_what_breaks_in_the_middle_leaves_everything_as_it_was(twin: str, error: type[BaseException]) -> None:
    """At its first call, halfway, and at its last."""
    elsewhere = twin in ("resume", "ranks")
    plain, whole = (int(counts[0]) for counts in counted(twin)[:2])
    assert whole > plain
    for at in {plain + 1, plain + 2, whole if twin != "workers" else plain + ROWS}:  # the last are a worker's
        model, optimizer, run = made(twin, Breaking(error, at, elsewhere=elsewhere))
        before = list(state(model, optimizer))
        result = run()
        for was, now in zip(before, state(model, optimizer), strict=True):
            assert torch.equal(was, now) if isinstance(was, Tensor) else was == now
        told = [each.text() for each in result.record.twins]
        interrupted = error is KeyboardInterrupt and not elsewhere
        assert any(("interrupt" if error is KeyboardInterrupt else "in the middle") in each.lower() for each in told), (
            told
        )
        assert (result.record.stop == "interrupted") == interrupted


DEVICE = """
import torch
from tests.support import simulated
from tests.twins.test_put_back import Breaking, counted, made, state

simulated.register()
plain, whole = (int(counts[0]) for counts in counted("device")[:2])
for error in (RuntimeError, KeyboardInterrupt):
    for at in (plain + 1, whole):
        model, optimizer, run = made("device", Breaking(error, at))
        before, held = list(state(model, optimizer)), list(model.parameters())
        (twin,) = run().record.twins
        after = list(state(model, optimizer))
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, after))
        assert all(a is b and a.device.type == "cpu" for a, b in zip(held, model.parameters()))
        print(twin.outcome)
"""


def test_a_device_that_breaks_in_the_middle_gives_everything_back() -> None:
    """The very parameters, on the device that they were on."""
    assert python(Path(__file__).resolve().parents[2], DEVICE).split("\n")[:4] == ["not asked"] * 4


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("twin", [*(name for name in TWINS if name not in ("device", "workers")), "port"])
def test_a_twin_of_ten_steps_costs_at_most_twelve(twin: str, dropout: float) -> None:
    """In batches that a process computes, for each part; two ranks try first whether their shards are one batch."""
    without, made_with, result = counted(twin, dropout)
    parts = len(result.record.twins)
    processes, built = (2, 3) if twin == "ranks" else (1, 0)
    cost = float(made_with[1] - without[1]) / parts / processes
    assert 0 < cost <= 12 + built, [t.text() for t in result.record.twins]
