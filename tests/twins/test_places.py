"""Another device, exported programs, loader workers, two ranks, a port, compilation: right ones and broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from tests.support.outside import python
from tests.twins.small_twins import Batch, batch, net, twins

DEVICE = """
import torch
from torch import nn
from torch.nn import functional as F
from pytest_overfit import run_overfit
from tests.support import simulated

simulated.register()
for broken in ({}, {"aten::tanh": lambda t: t + 0.1 * t**2}, {"aten::tanh_backward": lambda t: t * 0},
               {"aten::native_layer_norm_backward": lambda ts: (ts[0] * 1.5, *ts[1:])}):
    simulated.device.breaks = broken
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))
    before = [p for p in model.parameters()]
    batch = torch.randn(6, 4), torch.randn(6, 1)
    run = run_overfit(model, batch, F.mse_loss, twins="device", max_steps=8, diagnose=False)
    (twin,) = run.record.twins
    assert all(a is b for a, b in zip(before, model.parameters())) and before[0].device.type == "cpu"
    print(twin.outcome, twin.step, twin.outputs or "-", twin.gradients or "-")
"""


def test_the_accelerator_against_the_cpu() -> None:
    """A simulated one; what its kernels break is found and placed, and the very parameters come back."""
    done = python(Path(__file__).resolve().parents[2], DEVICE)
    assert done.splitlines() == ["agreed None - -", "disagreed 1 1 3", "disagreed 1 - 0", "disagreed 1 - 0"]


def test_without_an_accelerator_it_is_not_asked() -> None:
    """As on this machine."""
    (found,) = twins(net(), batch(), twins="device")
    assert (found.outcome, found.why) == ("not asked", "there is no accelerator here")


class Exported(nn.Module):
    """A layer whose exported program is another."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault, self.scale = fault, 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "compiling" and torch.compiler.is_exporting():
            return x * 1.01
        if self.fault == "noise":
            x = x + torch.zeros(()).uniform_(0.0, 0.5)
        if self.fault == "count":
            self.scale += 1.0
        if self.fault == "turn":
            self.scale = -self.scale
        return x * self.scale


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        *(("", "agreed"), ("noise", "agreed")),
        *(("compiling", "disagreed"), ("count", "disagreed"), ("turn", "disagreed")),
    ],
)
def test_the_exported_program_is_the_model(fault: str, outcome: str) -> None:
    """Noise in evaluation mode is the same noise; a branch of its own and a number that is baked in are found."""
    (found,) = twins(nn.Sequential(net(), Exported(fault)), batch(), twins="export")
    assert found.outcome == outcome, found.text()


def test_what_cannot_be_exported_is_not_asked(capfd: pytest.CaptureFixture[str]) -> None:
    """With what torch says, there and nowhere else."""

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if bool(x.sum() > 0) else x

    capfd.readouterr()
    (found,) = twins(net(Branching()), batch(), twins="export")
    assert found.outcome == "not asked"
    assert "data-dependent" in found.why
    assert capfd.readouterr() == ("", "")


class Rows(Dataset[Batch]):
    """Rows with noise from one source."""

    def __init__(self, noise: str = "") -> None:
        self.noise, self.own = noise, np.random.default_rng(0)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Batch:
        x = torch.full((4,), float(index)) / 8
        if self.noise == "torch":
            x = x + torch.randn(4)
        if self.noise == "numpy":
            x = x + torch.from_numpy(np.random.randn(4)).float()  # noqa: NPY002
        if self.noise == "own":
            x = x + torch.from_numpy(self.own.normal(size=4)).float()
        if self.noise == "worker" and get_worker_info() is not None:
            x = x + 1
        return x, x[:1]


def same_seed(worker: int) -> None:
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)


@pytest.mark.parametrize(
    ("noise", "start", "outcomes"),
    [
        ("", None, ["agreed", "not asked"]),
        ("torch", None, ["not asked", "agreed"]),
        ("numpy", None, ["not asked", "agreed"]),
        ("worker", None, ["disagreed", "not asked"]),
        ("numpy", same_seed, ["not asked", "disagreed"]),
        ("torch", same_seed, ["not asked", "disagreed"]),
        ("own", None, ["not asked", "disagreed"]),
    ],
)
def test_workers_of_a_loader(noise: str, start: Callable[[int], None] | None, outcomes: Sequence[str]) -> None:
    """The same batch; other random numbers in each worker: equal seeds, and a generator that was copied, are found."""
    loader = DataLoader(Rows(noise), batch_size=4, worker_init_fn=start)
    found = twins(net(), loader, twins="workers", constant_batch=False)
    assert [each.outcome for each in found] == outcomes, [each.text() for each in found]


class Stream(IterableDataset[Batch]):
    """A stream that its workers share, or do not."""

    def __init__(self, shared: bool) -> None:
        self.shared = shared

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info is not None and self.shared else (0, 1)
        for index in range(first * 2, 64, 2 * step):
            for row in (index, index + 1):
                yield torch.full((4,), row / 64), torch.full((1,), row / 64)


@pytest.mark.parametrize(("shared", "outcome"), [(True, "agreed"), (False, "disagreed")])
def test_workers_of_a_stream(shared: bool, outcome: str) -> None:
    """Each row once."""
    (found,) = twins(net(), DataLoader(Stream(shared), batch_size=2), twins="workers")
    assert found.outcome == outcome, found.text()


class Stale(nn.Module):
    """What is compiled has another constant in it than what is written, or no gradient."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        if self.cut:
            return x.detach() + 0.5 * (x - x.detach()) if torch.compiler.is_compiling() else x
        return x * (0.5 if torch.compiler.is_compiling() else 1.0)


def test_a_compiled_run_is_held_against_eager() -> None:
    """The user's own compilation, by whatever backend."""
    (found,) = twins(torch.compile(net(), backend="eager"), batch(), twins="compile")
    assert (found.outcome, found.exchanged) == ("agreed", "eager in place of compiled")
    for cut in (False, True):
        (found,) = twins(torch.compile(nn.Sequential(net(), Stale(cut)), backend="eager"), batch(), twins="compile")
        assert (found.outcome, found.step) == ("disagreed", 1), found.text()


@pytest.mark.filterwarnings("ignore")
def test_a_stale_compiled_step_is_found() -> None:
    """What was compiled has a number in it that has changed since."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x), y) * (2.0 if torch.compiler.is_compiling() else 1.0)

    compiled = torch.compile(loss_of, backend="eager")

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = compiled(*batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    (found,) = twins(model, batch(), None, step=step, twins="compile")
    assert (found.outcome, found.step) == ("disagreed", 1), found.text()


def test_torch_compile_agrees_with_eager() -> None:
    """With the C++ compiler that there is; without one it is not asked."""
    (found,) = twins(nn.Linear(4, 1), batch(), twins={"names": ["compile"], "steps": 2})
    assert found.outcome == "agreed" or found.why == "there is no C++ compiler here", found.text()


class Autoencoder(nn.Module):
    """Is trained through a method of its own: nobody calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(self.inner(x), y)


@pytest.mark.parametrize("twin", ["ranks", "export", "compile"])
def test_what_nobody_calls_cannot_be_wrapped(twin: str) -> None:
    """DDP, FSDP2, an exported program and a compiled one stand around a forward pass."""
    (found,) = twins(Autoencoder(), batch(), lambda model, batch: model.distance(*batch), twins=twin)
    assert found.why == "Autoencoder is not called itself", found.text()
