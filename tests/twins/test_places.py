"""Another device, exported programs, loader workers, two ranks, a port, compilation: right ones and broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from pytest_overfit import run_overfit
from pytest_overfit.errors import OverfitError
from pytest_overfit.run.twin_record import TwinResult
from tests.support.outside import python

Batch = tuple[Tensor, Tensor]


def twins(model: Any, batch: Any, loss: Any = F.mse_loss, **more: Any) -> list[TwinResult]:
    """The results of one twin."""
    result = run_overfit(model, batch, loss, max_steps=10, diagnose=False, **more)
    return list(result.record.twins)


def net(layer: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), layer or nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=generator), torch.randn(6, 1, generator=generator)


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


class Step:
    """A step of the user's own, with a fault that shows on several ranks alone."""

    def __init__(self, fault: str) -> None:
        self.fault, self.model = fault, net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, model: nn.Module, batch: Batch) -> Tensor:
        rank = int(dist.get_rank()) if dist.is_initialized() else 0
        x, y = batch
        if self.fault == "seed":
            x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(rank))
        self.optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.fault == "summed" and dist.is_initialized():
            for p in self.model.parameters():
                if p.grad is not None:
                    dist.all_reduce(p.grad)
        if self.fault == "scaled" and dist.is_initialized():
            for group in self.optimizer.param_groups:
                group["lr"] = 0.1 * dist.get_world_size()
        self.optimizer.step()
        return loss.detach()


@pytest.mark.parametrize("fault", ["", "seed", "summed", "scaled"])
def test_two_ranks_of_a_step_of_ones_own(fault: str) -> None:
    """Other numbers per rank, gradients that are added twice, a rate that grows with the ranks."""
    made = Step(fault)
    first, second = twins(made.model, batch(), None, step=made.step, twins="ranks")
    assert first.name == "ranks (ddp)"
    assert first.outcome == ("disagreed" if fault else "agreed"), first.text()
    line = "optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)"  # its optimizer has the model's own
    assert second.why.endswith(f"write def step(model, batch, optimizer), and {line}"), second.text()


def test_what_ranks_cannot_share_says_what_to_write() -> None:
    """An optimizer that was built is none of a sharded model; a step that holds its model trains no wrapped one."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, sharded = twins(model, batch(), optimizer=optimizer, twins="ranks")
    assert sharded.why.endswith("optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)"), sharded.text()

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    found = twins(model, batch(), None, step=step, twins="ranks")
    assert all("what it holds itself" in each.why for each in found), [each.text() for each in found]


class Held(nn.Module):
    """Keeps its weight in a list as well: FSDP2 shards the parameter, and the list goes on with the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.held = [self.linear.weight]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + F.linear(x, self.held[0])
        return out


class Ranked(nn.Module):
    """Does on each rank something else."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.linear, self.fault = nn.Linear(4, 1), fault

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        if dist.is_initialized() and self.fault == "rank":
            return out * (1 + dist.get_rank())
        return out / 2 if dist.is_initialized() and self.fault == "size" else out


@pytest.mark.parametrize(
    ("model", "outcomes"),
    [
        (Held(), ["agreed", "disagreed"]),
        (Ranked("rank"), ["disagreed", "disagreed"]),
        (Ranked("size"), ["disagreed", "disagreed"]),
        (Ranked(""), ["agreed", "agreed"]),
    ],
)
def test_two_ranks_of_a_model_that_is_another_there(model: nn.Module, outcomes: Sequence[str]) -> None:
    """A parameter that is held twice, an output that depends on the rank or on the number of ranks."""
    found = twins(model, batch(), twins="ranks", optimizer=sgd)
    assert [each.outcome for each in found] == outcomes, [each.text() for each in found]
    assert all(each.step in (1, 2) and each.gradients for each in found if each.outcome == "disagreed")


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def test_two_ranks_share_a_batch() -> None:
    """DDP and FSDP2, each started here; no process stays."""
    before = children()
    found = twins(net(), batch(), twins="ranks")
    assert [(each.name, each.outcome) for each in found] == [("ranks (ddp)", "agreed"), ("ranks (fsdp)", "agreed")]
    assert "the batch is sharded" in found[0].exchanged
    assert children() <= before


def children() -> set[str]:
    """The processes that this one has started and that are there."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


class Ported(nn.Module):
    """The net under other names."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.inner, self.norm, self.head = (
            nn.Linear(4, 8),
            nn.LayerNorm(8, 1e-3 if fault == "eps" else 1e-5),
            nn.Linear(8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        made = torch.tanh(self.inner(x))
        if self.fault == "cut":
            made = made.detach() / 2 + made / 2
        if self.fault == "act":
            made = F.softsign(self.inner(x))
        out: Tensor = self.head(self.norm(made))
        return out


NAMES = {"inner.*": "0.*", "norm.*": "2.*", "head.*": "3.*"}


@pytest.mark.parametrize(
    ("fault", "outputs", "gradients"), [("", "", ""), ("eps", "norm", ""), ("act", "norm", ""), ("cut", "", "inner")]
)
def test_a_port_against_its_original(fault: str, outputs: str, gradients: str) -> None:
    """The first module whose outputs, or gradients, differ; the original stays as it was."""
    torch.manual_seed(0)
    original = net()
    before = [p.detach().clone() for p in original.parameters()]
    (found,) = twins(Ported(fault), batch(), port_of=(original, NAMES))
    assert found.outcome == ("disagreed" if fault else "agreed"), found.text()
    assert found.outputs == outputs or not outputs
    assert found.gradients == gradients or not gradients
    assert all(torch.equal(a, b) for a, b in zip(before, original.parameters(), strict=True))


def test_tensors_that_are_turned_and_names_by_a_function() -> None:
    """A convolution for a linear layer."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.bias

    (found,) = twins(nn.Linear(4, 1), batch(), port_of=(Turned, {"weight": ("weight", lambda w: w.T)}))
    assert found.outcome == "agreed", found.text()
    (found,) = twins(nn.Linear(4, 1), batch(), port_of=(lambda: nn.Linear(4, 1), lambda name: name))
    assert found.outcome == "agreed", found.text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((net, {"inner.*": "1.*", **NAMES, "head.*": "9.*"}), "has no such tensor"),
        ((lambda: nn.Linear(4, 1), {"inner.*": "*", "norm.*": "*", "head.*": "*"}), "has the shape"),
        ((lambda: 3, {}), "a int"),
        (net, "no pair"),
    ],
)
def test_a_map_that_does_not_fit_is_an_error_at_once(given: Any, told: str) -> None:
    """Before anything is trained."""
    with pytest.raises(OverfitError, match=told):
        twins(Ported(), batch(), port_of=given)


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
