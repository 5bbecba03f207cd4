"""Any model, any loss, any optimizer, any step: what is trained, and what is left behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.run.small_runs import Batch, batch, net, run


@dataclasses.dataclass
class Sample:
    inputs: Tensor
    target: Tensor
    name: str = "a"


class Graph:
    """A batch that only knows how to move as a whole."""

    def __init__(self) -> None:
        self.inputs, self.target = batch()

    def to(self, device: Any) -> Graph:
        self.inputs, self.target = self.inputs.to(device), self.target.to(device)
        return self


def of(sample: Any) -> Callable[[Any, Any], Tensor]:
    return lambda model, data: F.mse_loss(model(data.inputs), data.target)


@pytest.mark.parametrize(
    ("data", "loss"),
    [
        (batch(), F.mse_loss),
        (list(batch()), nn.MSELoss()),
        (batch(), lambda output, target: (output - target).square().mean()),
        (batch(), lambda output, target: F.mse_loss(output, target)),
        (dict(zip(("x", "y"), batch(), strict=True)), lambda m, b: F.mse_loss(m(b["x"]), b["y"])),
        (
            {"in": [batch()[0]], "out": {"y": batch()[1]}, "id": "a"},
            lambda m, b: F.mse_loss(m(b["in"][0]), b["out"]["y"]),
        ),
        (Sample(*batch()), of(Sample)),
        (Graph(), of(Graph)),
        (DataLoader(TensorDataset(*batch()), batch_size=6), F.mse_loss),
        (lambda: batch(), F.mse_loss),
        (iter([batch()]), F.mse_loss),
    ],
    ids=[
        "tuple",
        "list",
        "output",
        "target",
        "mapping",
        "nest",
        "dataclass",
        "carrier",
        "loader",
        "callable",
        "iterator",
    ],
)
def test_data_may_be_a_batch_of_any_kind_or_hand_one_out(data: Any, loss: Any) -> None:
    """All of them are trained on as one frozen batch."""
    result = run(data=data, loss=loss)
    assert result.passed, result.summary()
    assert result.record.supervision is not None
    assert not result.record.supervision.unread


def test_a_shuffling_loader_is_caught_and_declared() -> None:
    """Its two draws differ, by key and amount; declared, the difference shows and does not fail."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*batch()), batch_size=2, shuffle=True)
    finding = run(data=loader).finding("constant_batch")
    assert not finding.passed
    assert finding.observed.startswith("two draws differ: 0: 8 of 8 elements differ, by up to ")
    declared = run(data=loader, stochastic=True)
    assert declared.passed, declared.summary()
    assert declared.finding("constant_batch").observed.endswith("two draws differ, declared stochastic")


@pytest.mark.parametrize(
    ("loss", "terms"),
    [
        (lambda m, b: F.mse_loss(m(b[0]), b[1]), ["objective"]),
        (
            lambda m, b: {"objective": (e := F.mse_loss(m(b[0]), b[1])), "half": e / 2, "map": m(b[0])},
            ["objective", "half"],
        ),
        (lambda m, b: {"loss": F.mse_loss(m(b[0]), b[1])}, ["objective"]),
        (lambda m, b: ((e := F.mse_loss(m(b[0]), b[1])), {"mae": e.sqrt(), "count": 6}), ["objective", "mae", "count"]),
        (lambda m, b: (F.mse_loss(m(b[0]), b[1]), m(b[0])), ["objective"]),
    ],
)
def test_a_loss_may_return_what_losses_return(loss: Any, terms: list[str]) -> None:
    """A scalar, a mapping, (scalar, mapping), (scalar, logits); what is no scalar is no term."""
    assert list(run(loss=loss, max_steps=5).record.curves) == terms


class OwnLoss(nn.Module):
    """Returns its loss as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor, y: Tensor) -> Any:
        @dataclasses.dataclass
        class Output:
            loss: Tensor
            logits: Tensor

        logits = self.body(x)
        return Output(F.mse_loss(logits, y), logits)


@pytest.mark.parametrize("data", [batch(), dict(zip(("x", "y"), batch(), strict=True))])
def test_a_model_may_return_its_own_loss(data: Any) -> None:
    """Called with the batch as arguments or keywords."""
    result = run(OwnLoss(), data, None)
    assert result.passed, result.summary()
    assert result.record.supervision is not None
    assert len(result.record.supervision.inputs) == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        None,
        torch.optim.Adagrad,
        lambda p: torch.optim.LBFGS(p, lr=0.5),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: {"first": torch.optim.Adam(p[:2], lr=0.01), "second": torch.optim.RMSprop(p[2:], lr=0.003)},
    ],
)
def test_optimizers_of_every_kind(optimizer: Any) -> None:
    """The default, a class, one with a closure, a factory, several."""
    result = run(optimizer=optimizer, objective=0.1)
    assert result.passed, result.summary()


def test_a_gan_step_with_two_models_and_two_optimizers() -> None:
    """Parameters have the names of their models, and both are seen to learn."""
    models = {"g": net(), "d": nn.Linear(2, 1)}
    optimizers = {name: torch.optim.Adam(model.parameters(), lr=0.01) for name, model in models.items()}

    def step(models: Mapping[str, nn.Module], data: Batch, optimizers: Mapping[str, torch.optim.Optimizer]) -> Any:
        fake = models["g"](data[0])
        optimizers["d"].zero_grad()
        d_loss = (models["d"](fake.detach()) - 1).square().mean() + models["d"](data[1]).square().mean()
        d_loss.backward()
        optimizers["d"].step()
        optimizers["g"].zero_grad()
        g_loss = F.mse_loss(fake, data[1])
        g_loss.backward()  # type: ignore[no-untyped-call]
        optimizers["g"].step()
        return {"objective": g_loss, "discriminator": d_loss}

    result = run(models, loss=None, optimizer=optimizers, step=step)
    assert result.passed, result.summary()
    assert {p.name.split(".")[0] for p in result.record.parameters} == {"g", "d"}
    assert set(result.record.grad_norms) == {"g", "d"}


def test_a_criterion_with_parameters_is_trained_and_restored() -> None:
    """As a module of its own beside the model."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (
                F.mse_loss(prediction, target) * (1 + self.log_scale.square()) + 0.1 * (self.log_scale - 0.5).square()
            )

    criterion = Weighted()
    result = run(loss=criterion)
    assert [p.moved > 0 for p in result.record.parameters if p.name == "loss.log_scale"] == [True]
    assert criterion.log_scale.item() == 0.0


def test_the_generator_of_validation_data_comes_back() -> None:
    """As that of the data."""
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    loader = DataLoader(TensorDataset(*batch()), batch_size=6, shuffle=True, generator=generator)
    assert run(val_data=loader, objective=0.05).passed
    assert torch.equal(generator.get_state(), before)


class Loader:
    """Hands out batches, and moves to a device."""

    def __init__(self) -> None:
        self.device = "cpu"

    def to(self, device: str) -> Loader:
        self.device = device
        return self

    def __iter__(self) -> Iterator[Batch]:
        yield batch()


class OfAModel(nn.Module):
    """A loss of the user's own that calls the model itself."""

    def forward(self, model: Any, data: Batch) -> Tensor:
        inputs, targets = data
        return F.mse_loss(model(inputs), targets)


@pytest.mark.parametrize(
    "given",
    [
        {"data": Loader()},
        {"data": iter([batch()]), "seeds": [0, 1]},
        {"loss": OfAModel()},
        {"schedule": lambda progress: np.float32(0.01)},
        {"seeds": np.arange(2)},
        {"criteria": {"objective": False, "terms": {"clip": 0.05}}, "loss": lambda m, b: {
            "objective": F.mse_loss(m(b[0]), b[1]), "clip": F.mse_loss(m(b[0]), b[1])}},
    ],
    ids=["loader", "iterator", "loss", "schedule", "seeds", "term"],
)  # fmt: skip
def test_more_ways_to_say_the_same(given: dict[str, Any]) -> None:
    """Each was refused, or taken for something else."""
    limit = {} if "criteria" in given else {"objective": 0.05}
    result = run(**given, **limit)
    assert result.passed, result.summary()
