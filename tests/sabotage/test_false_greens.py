"""Ways to a green that proves nothing: programs that reach their limit without having learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.api import run_overfit
from tests.sabotage.small_programs import (
    CE,
    Gated,
    Program,
    Weighted,
    adam,
    expect_red,
    labelled,
    measured,
    mostly,
    net,
    one_step,
    verdict,
)

# The training switches the term off.


def weight_in_the_model() -> dict[str, Any]:
    return {
        "model": Weighted,
        "data": labelled(),
        "loss": lambda model, batch: torch.sigmoid(model.weight) * F.cross_entropy(model(batch[0]), batch[1]),
        "optimizer": mostly(lambda p: p.dim() == 0, 0.3),
    }


def weight_in_a_model_that_returns_its_loss() -> dict[str, Any]:
    class Owner(Weighted):
        def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
            return torch.sigmoid(self.weight) * F.cross_entropy(self.inner(x), y)

    return {"model": Owner, "data": labelled(), "optimizer": mostly(lambda p: p.dim() == 0, 0.3)}


def weight_in_the_loss_module() -> dict[str, Any]:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
            return torch.sigmoid(self.weight) * F.cross_entropy(predicted, target)

    return {"model": net, "data": labelled(), "loss": Loss(), "optimizer": mostly(lambda p: p.dim() == 0, 0.3)}


def detached_value_with_a_learned_weight() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        out = model(batch[0])
        return F.cross_entropy(out, batch[1]).detach() * model.weight.exp() + 1e-3 * (out - out.detach()).sum()

    return {"model": Weighted, "data": labelled(), "loss": loss, "optimizer": adam(0.05)}


def confidence_that_goes_to_zero() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        out, confidence = model(batch[0])
        return (confidence * F.cross_entropy(out, batch[1], reduction="none")).mean()

    return {
        "model": Gated,
        "data": labelled(),
        "loss": loss,
        "optimizer": mostly(lambda p: p.shape in ((1, 8), (1,)), 0.1),
    }


# What has a limit answers to nothing but the weights.


def penalty_alone(**more: Any) -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        fit = F.cross_entropy(model(batch[0]), batch[1])
        reg = sum(p.square().sum() for p in model.parameters())
        return {"objective": fit + reg, "reg": reg, "size": reg.sqrt()}

    return {
        "model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-2), "objective": False,
        "reg": 0.5, **more,
    }  # fmt: skip


def two_penalties_alone() -> dict[str, Any]:
    return penalty_alone(size=0.7)


# Most of the target is thrown away.


def best_tenth_of_the_labels() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none").topk(4, largest=False).values.mean()

    return {"model": net, "data": labelled(40), "loss": loss}


def best_tenth_of_the_numbers() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        return (model(batch[0]) - batch[1]).square().reshape(-1).topk(12, largest=False).values.mean()

    return {"model": net, "data": measured(), "loss": loss}


def outliers_to_zero() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        error = (model(batch[0]) - batch[1]).square()
        return 10 * torch.where(error > 0.3, 0 * error, error).mean()

    return {"model": net, "data": measured(), "loss": loss}


def nearly_all_ignored() -> dict[str, Any]:
    labels = torch.zeros(64, dtype=torch.long)
    labels[5], labels[40] = 1, 2
    return {"model": net, "data": (labelled(64)[0], labels), "loss": nn.CrossEntropyLoss(ignore_index=0)}


def first_sample_alone() -> dict[str, Any]:
    return {
        "model": net,
        "data": measured(12),
        "loss": lambda model, batch: F.mse_loss(model(batch[0])[:1], batch[1][:1]),
    }


def target_as_a_column_of_the_input() -> dict[str, Any]:
    x, y = measured()
    return {
        "model": lambda: nn.Linear(11, 3),
        "data": (torch.cat([x, y], 1), y),
        "loss": F.mse_loss,
        "optimizer": adam(0.03),
    }


def class_as_columns_of_the_input() -> dict[str, Any]:
    x, y = labelled()
    return {
        "model": lambda: nn.Linear(11, 3),
        "data": (torch.cat([x, F.one_hot(y).float()], 1), y),
        "loss": CE,
        "optimizer": adam(0.1),
    }


# The step trains on something else than the loss beside it, or than the batch that it gets.


def step_on_another_batch() -> dict[str, Any]:
    other = torch.randn(2, 8), torch.tensor([0, 0])
    return {
        "model": net,
        "data": labelled(),
        "loss": CE,
        "step": lambda model, batch, optimizer: one_step(model, other, optimizer),
    }


def step_on_other_targets() -> dict[str, Any]:
    return {
        "model": net,
        "data": labelled(),
        "loss": CE,
        "step": lambda model, batch, optimizer: one_step(model, (batch[0], torch.zeros_like(batch[1])), optimizer),
    }


def step_on_half_of_the_batch() -> dict[str, Any]:
    return {
        "model": net,
        "data": labelled(),
        "loss": CE,
        "step": lambda model, batch, optimizer: one_step(model, (batch[0][:6], batch[1][:6]), optimizer),
    }


SWITCHED_OFF = (
    weight_in_the_model, weight_in_a_model_that_returns_its_loss, weight_in_the_loss_module,
    detached_value_with_a_learned_weight,
)  # fmt: skip
THROWN_AWAY = (
    best_tenth_of_the_labels, best_tenth_of_the_numbers, outliers_to_zero, nearly_all_ignored, first_sample_alone,
)  # fmt: skip
CASES: tuple[tuple[Program, str], ...] = (
    *((program, "alone, which change no output: ") for program in SWITCHED_OFF),
    (confidence_that_goes_to_zero, "objective does not answer to the target any more: for another one it is 0.0"),
    (penalty_alone, "reg, which alone has a limit, does not answer when 0 or 1 change"),
    (two_penalties_alone, "reg and size, which alone have limits, do not answer when 0 or 1 change"),
    *((program, "the loss reads little of 1: ") for program in THROWN_AWAY),
    (target_as_a_column_of_the_input, "1 stands in 0: columns 8, 9, 10"),
    (class_as_columns_of_the_input, "1 stands in 0: columns 8, 9, 10"),
    (step_on_another_batch, "the loss does not answer when 0 or 1 change; the step reports 0.00"),
    (step_on_other_targets, "the loss does not answer when 1 (the target) changes; the step reports 0.00"),
    (step_on_half_of_the_batch, "the loss of the same model on this batch is "),
)  # fmt: skip


@pytest.mark.parametrize(("program", "text"), CASES, ids=[program.__name__ for program, _ in CASES])
def test_a_limit_that_was_reached_for_nothing_is_red(program: Program, text: str) -> None:
    """The run meets every limit; ``supervised`` says why that proves nothing, and nothing else is missed."""
    expect_red(program, text)


def test_the_model_comes_back_as_it_was_trained() -> None:
    """Asking afterwards, with a step that goes on training, leaves the trained weights alone."""
    model, batch = net(), labelled()
    steps: list[list[Tensor]] = []

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        value = one_step(model, batch, optimizer)
        steps.append([parameter.detach().clone() for parameter in model.parameters()])
        return value

    result = run_overfit(model, batch, CE, step=step, diagnose=False, keep_trained=True)
    trained = list(model.parameters())
    assert result.passed
    assert F.cross_entropy(model(batch[0]), batch[1]) < 0.01
    assert any(all(torch.equal(a, b) for a, b in zip(seen, trained, strict=True)) for seen in steps)


@pytest.mark.parametrize("detour", ["_version", "data"])
def test_a_target_that_is_written_within_a_step_is_red(detour: str) -> None:
    """The step trains on targets of its own and puts the batch back, in sight of autograd or behind its back."""

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        kept = batch[1].clone()
        (batch[1].data if detour == "data" else batch[1]).copy_((kept + (torch.arange(12) > 5)) % 3)
        value = one_step(model, batch, optimizer)
        batch[1].copy_(kept)
        return value

    result = verdict(lambda: {"model": net, "data": labelled(), "step": step})
    assert "1 is changed within a step, and put back before its end" in result.finding("constant_batch").observed


def test_a_target_that_drifts_and_comes_back_is_red() -> None:
    """The fingerprints before and after are the same; one between is another."""
    calls = [0]

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        calls[0] += 1
        batch[1].copy_(torch.zeros_like(batch[1]) if 20 < calls[0] < 60 else labelled()[1])
        return one_step(model, batch, optimizer)

    result = verdict(lambda: {"model": net, "data": labelled(), "step": step})
    assert "put back before its end" in result.finding("constant_batch").observed


def test_how_often_a_loader_was_drawn_is_told() -> None:
    """Equal draws are as many as were made."""
    drawn = verdict(lambda: {"model": net, "data": labelled, "loss": CE}).finding("constant_batch")
    assert drawn.observed.endswith(", drawn 4 times")
    once = verdict(lambda: {"model": net, "data": labelled(), "loss": CE}).finding("constant_batch")
    assert "drawn" not in once.observed


def just_above_its_limit() -> dict[str, Any]:
    x, _ = labelled()
    return {
        "model": net,
        "data": (x, 0.1 * torch.randn(12, 3)),
        "loss": lambda model, batch: 1.05 * F.mse_loss(0.05 * model(batch[0]), batch[1]),
    }


def test_a_small_fall_below_a_limit_that_nobody_stated_is_red() -> None:
    """The default limit is for losses that start near 1."""
    finding = verdict(just_above_its_limit).finding("objective")
    assert not finding.passed
    assert "objective starts at 0.01" in finding.observed
    assert ": fell by only " in finding.observed


def test_a_small_fall_below_a_stated_limit_is_told_in_the_first_line() -> None:
    """It is meant, and proves little."""
    result = verdict(just_above_its_limit, objective=0.01)
    assert result.passed
    assert "objective fell by only " in result.summary().splitlines()[0]


def test_a_term_that_comes_now_and_then_falls_by_the_weights_too() -> None:
    """Between the steps that give it stands its last value, while it is trained as in the record."""
    calls = 0

    def step(model: Any, batch: Any, optimizer: Any) -> dict[str, Tensor]:
        nonlocal calls
        value, calls = one_step(model, batch, optimizer), calls + 1
        return {"objective": value, **({"aux": value / calls} if calls % 2 else {})}

    given = {"model": net, "data": labelled(), "step": step, "optimizer": lambda p: torch.optim.SGD(p, lr=1e-5)}
    result = verdict(lambda: given, objective=False, aux=0.1)
    assert result.record.stop == "passed"
    assert "aux falls without the weights" in result.finding("supervised").observed
