"""Mistakes of the kinds that trackers report, each beside its sound relative."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 400, **settings}
    return run_overfit(model, batch, loss, **settings)


def names(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes]


def mlp(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, 48), nn.Tanh(), nn.Linear(48, made))


@pytest.mark.parametrize(("squeezed", "first"), [(False, "broadcast"), (True, "")])
def test_a_baseline_that_is_detached_meets_every_return(squeezed: bool, first: str) -> None:
    """Neither side of the difference has a gradient, and what it weighs has."""
    torch.manual_seed(0)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        out = model(batch["x"])
        chosen, value = out[:, :3].log_softmax(1).gather(1, batch["a"][:, None])[:, 0], out[:, 3:]
        baseline = value.detach()
        gain = batch["r"] - (baseline[:, 0] if squeezed else baseline)
        fit = F.mse_loss(value[:, 0], batch["r"])
        return {"objective": fit - 0.01 * (gain * chosen).mean(), "fit": fit}

    batch = {"x": torch.randn(8, 5), "a": torch.randint(0, 3, (8,)), "r": torch.randn(8)}
    found = names(learn(mlp(5, 4), batch, loss, objective=False, fit=0.02))
    assert (found or [""])[0] == first


class Weighed(nn.Module):
    """Its own loss, with a weight for every sample."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.net = way, mlp(6, 2)

    def forward(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        error = (self.net(x) - y).square().mean(1)
        if self.way == "all with all":
            return (w[:, None] * error).mean()  # type: ignore[no-any-return]
        if self.way == "in pairs":
            return (w * error).mean() + 0.0 * (error[:, None] - error).square().mean()  # type: ignore[no-any-return]
        if self.way == "two by two":
            return (w * error).mean() + 0.0 * (self.net(x)[:, :1] + error).tanh().mean()  # type: ignore[no-any-return]
        return (w * error).mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("way", "found"), [("all with all", ["broadcast"]), ("in pairs", []), ("two by two", []), ("own", [])]
)
def test_weights_of_samples_inside_of_a_model(way: str, found: list[str]) -> None:
    """What meets itself is compared in pairs on purpose."""
    torch.manual_seed(0)
    batch = {"x": torch.randn(8, 6), "y": torch.randn(8, 2), "w": torch.rand(8) + 0.5}
    assert names(learn(Weighed(way), batch)) == found


@pytest.mark.parametrize(("log", "found"), [(False, ["loss-sign"]), (True, [])])
def test_a_divergence_of_what_is_no_logarithm(log: bool, found: list[str]) -> None:
    """Over whichever axis the probabilities add up."""
    torch.manual_seed(0)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        student = model(batch[0]).mT
        return F.kl_div(student.log_softmax(1) if log else student.softmax(1), batch[1], reduction="batchmean")

    assert names(learn(mlp(5, 3), (torch.randn(4, 6, 5), torch.randn(4, 3, 6).softmax(1)), loss)) == found


@pytest.mark.parametrize("slip", ["a module", "a parameter", None])
def test_a_slip_in_the_name_of_requires_grad(slip: str | None) -> None:
    """It sets an attribute that torch never reads."""
    torch.manual_seed(0)
    model = nn.Sequential(mlp(4, 32), mlp(32, 3))
    if slip == "a module":
        model[0].requires_grad = False  # type: ignore[assignment]
    elif slip:
        for p in model[0].parameters():
            p.require_grad = False  # type: ignore[attr-defined]
    result = learn(model, (torch.randn(6, 4), torch.arange(6) % 3), nn.CrossEntropyLoss())
    assert names(result) == (["not-frozen"] if slip else [])
    assert all(cause.where.startswith("0.") for cause in result.causes)


@pytest.mark.parametrize(("copied", "found"), [(False, ["ema"]), (True, [])])
def test_an_average_without_its_statistics(copied: bool, found: list[str]) -> None:
    """Its weights follow, and it is evaluated with the mean of the start."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    ema = copy.deepcopy(model).eval().requires_grad_(False)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for mean, p in zip(ema.parameters(), model.parameters(), strict=True):
                mean.lerp_(p, 0.1)
            for mean, b in zip(ema.buffers(), model.buffers(), strict=True):  # type: ignore[assignment]
                mean.copy_(b if copied else mean)
        return loss

    assert names(learn(model, (3 + torch.randn(6, 4), torch.arange(6) % 3), step=step)) == found


class Quantised(nn.Module):
    """A code in place of every vector, passed straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = mlp(6, 4), mlp(4, 6)
        self.book = nn.Linear(16, 4, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        codes = self.book(F.one_hot(torch.cdist(z, self.book.weight.mT).argmin(1), 16).float())
        fit = F.mse_loss(codes, z.detach()) + 0.25 * F.mse_loss(z, codes.detach())
        recon = F.mse_loss(self.decode(z + (codes - z).detach()), x)
        return {"objective": recon + fit, "recon": recon, "fit": fit}


def test_a_term_behind_a_straight_through_estimator() -> None:
    """It moves with the codes, which learn from another term on purpose."""
    torch.manual_seed(0)
    found = learn(Quantised(), torch.randn(6, 6), lambda model, x: model(x), objective=False, recon=0.4)
    assert (found.passed, names(found)) == (True, [])


@pytest.mark.parametrize(("which", "found"), [("d", []), ("g", ["no-step"])])
def test_one_of_two_optimizers_is_never_stepped(which: str, found: list[str]) -> None:
    """Its gradients come, and go to nobody."""
    torch.manual_seed(0)
    parts = {"g": mlp(3, 4), "d": mlp(4, 1)}
    optimizers = {name: torch.optim.Adam(part.parameters(), 5e-3) for name, part in parts.items()}

    def step(model: Any, batch: tuple[Tensor, Tensor], optimizer: Any) -> dict[str, Tensor]:
        fake = model["g"](batch[0])
        near = (fake - batch[1]).abs().mean()
        optimizer["g"].zero_grad()
        (near - 1e-3 * model["d"](fake).mean()).backward()
        optimizer["g"].step()
        optimizer["d"].zero_grad()
        told = F.softplus(-model["d"](batch[1])).mean() + F.softplus(model["d"](fake.detach())).mean()
        told.backward()  # type: ignore[no-untyped-call]
        optimizer[which].step()
        return {"objective": near, "near": near, "told": told}

    batch = torch.randn(6, 3), torch.randn(6, 4)
    result = learn(parts, batch, step=step, optimizer=optimizers, objective=False, near=0.2)
    assert names(result)[:1] == found


class Flattened(nn.Module):
    """Messages between the places of a sample, by indices into all samples laid end to end."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset, self.read, self.head = offset, nn.Linear(3, 24), nn.Linear(24, 2)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        samples, places, _ = batch["x"].shape
        flat = self.read(batch["x"]).tanh().reshape(samples * places, -1)
        beside = (torch.arange(places) + 1) % places + self.offset * torch.arange(samples)[:, None]
        return self.head(flat + flat[beside.reshape(-1)]).view(samples, places, 2)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("offset", "found"), [(5, []), (0, ["batch-mixing"]), (4, ["batch-mixing"])])
def test_indices_into_flattened_samples(offset: int, found: list[str]) -> None:
    """Of a sample that gets its batch as a mapping, whose targets it does not read."""
    torch.manual_seed(0)
    batch = {"x": torch.randn(4, 5, 3), "y": torch.randn(4, 5, 2)}
    loss = lambda model, b: F.mse_loss(model(b), b["y"])  # noqa: E731
    assert names(learn(Flattened(offset), batch, loss, objective=0.8)) == found


class Alone(nn.Module):
    """Only the first sample's places are told of each other."""

    def __init__(self, all_of_them: bool) -> None:
        super().__init__()
        self.all_of_them, self.net = all_of_them, mlp(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        beside = torch.cat([x[:1].roll(1, 1), x.roll(1, 1)[1:] if self.all_of_them else 0 * x[1:]])
        return self.net(x + beside)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("all_of_them", "found"), [(True, []), (False, ["batch-mixing"])])
def test_a_sample_whose_outputs_depend_on_its_place_in_the_batch(all_of_them: bool, found: list[str]) -> None:
    """No sample moves another one, and in another order they get other outputs."""
    torch.manual_seed(0)
    result = learn(Alone(all_of_them), (torch.randn(4, 5, 3), torch.randn(4, 5, 2)), nn.MSELoss(), objective=0.3)
    assert names(result) == found


@pytest.mark.parametrize(("of", "found"), [("student", []), ("teacher", ["term-missing"]), ("logged", [])])
def test_a_summand_that_has_no_gradient(of: str, found: list[str]) -> None:
    """What is only reported needs none."""
    torch.manual_seed(0)
    teacher = mlp(5, 3)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            soft = teacher(batch[0])
        out = model(batch[0])
        term = F.mse_loss((out if of == "student" else soft) / 4, soft / 4)
        hard = F.cross_entropy(out, batch[1])
        return {"objective": hard + (0.0 if of == "logged" else 0.01 * term), "soft": term, "hard": hard}

    batch = torch.randn(6, 5), torch.arange(6) % 3
    assert names(learn(mlp(5, 3), batch, loss, objective=False, hard=0.1)) == found


@pytest.mark.parametrize(("graph", "found"), [(True, []), (False, ["term-missing"])])
def test_a_penalty_of_a_derivative_without_its_graph(graph: bool, found: list[str]) -> None:
    """It is a number like any other then."""
    torch.manual_seed(0)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0].clone().requires_grad_()
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=graph, retain_graph=True)
        return F.mse_loss(out, batch[1]) + 1e-5 * slope.square().sum(1).mean()

    assert names(learn(mlp(5, 3), (torch.randn(6, 5), torch.randn(6, 3)), loss)) == found


@pytest.mark.parametrize("scaled", [True, False])
def test_gradients_that_are_clipped_while_they_are_scaled(scaled: bool) -> None:
    """The limit is right for what unscale_ leaves of them."""
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 if scaled else 1e-4)
        scaler.step(optimizer)
        scaler.update()
        return loss

    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    result = learn(mlp(4, 2), (torch.randn(6, 4), 3 * torch.randn(6, 2)), step=step, optimizer=sgd, max_steps=150)
    assert names(result)[:1] == ["grad-clip"]
    assert ("scaler.unscale_(optimizer) before it" in result.causes[0].advice) == scaled
