"""Ways to a green that proves nothing: programs that reach their limit without having learnt, and honest neighbours."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.api import run_overfit
from pytest_overfit.result import OverfitResult

Program = Callable[[], dict[str, Any]]
CE = nn.CrossEntropyLoss()
CALLS = 0


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))


def labelled(samples: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=generator), torch.arange(samples) % 3


def measured(samples: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=generator), 3 * torch.randn(samples, 3, generator=generator)


def adam(rate: float) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def mostly(special: Callable[[Tensor], bool], rate: float) -> Callable[[Any], Any]:
    """An optimizer under which some parameters learn, and the others hardly."""

    def optimizer(parameters: Any) -> Any:
        given = list(parameters)
        groups = [[p for p in given if special(p)], [p for p in given if not special(p)]]
        return torch.optim.Adam([{"params": groups[0], "lr": rate}, {"params": groups[1], "lr": 1e-4}])

    return optimizer


class Weighted(nn.Module):
    """A net with one number of its own beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.weight = net(), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Gated(nn.Module):
    """A net with a gate for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate = net(), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x), torch.sigmoid(self.gate(x))[:, 0]


def _step(model: Any, batch: tuple[Tensor, Tensor], optimizer: Any, factor: float = 1.0) -> Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1]) * factor
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


# The loss falls by itself.


def counter_in_a_closure() -> dict[str, Any]:
    calls = [0]

    def loss(model: Any, batch: Any) -> Any:
        calls[0] += 1
        return F.cross_entropy(model(batch[0]), batch[1]) * 0.9 ** calls[0]

    return {"model": net, "data": labelled(), "loss": loss}


def _counted_globally(model: Any, batch: Any) -> Tensor:
    global CALLS
    CALLS += 1
    return F.cross_entropy(model(batch[0]), batch[1]) / (1 + CALLS)


def counter_in_a_global() -> dict[str, Any]:
    return {"model": net, "data": labelled(), "loss": _counted_globally}


def counter_on_the_function() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        loss.calls = getattr(loss, "calls", 0) + 1  # type: ignore[attr-defined]
        return F.cross_entropy(model(batch[0]), batch[1]) * 0.9 ** float(loss.calls)  # type: ignore[attr-defined]

    return {"model": net, "data": labelled(), "loss": loss}


def counter_in_a_buffer() -> dict[str, Any]:
    class Counting(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner = net()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            return self.inner(x)

    return {
        "model": Counting,
        "data": labelled(),
        "loss": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]) * 0.9**model.calls,
    }


def counter_of_the_optimizer() -> dict[str, Any]:
    made: list[Any] = []

    def optimizer(parameters: Any) -> Any:
        made.append(torch.optim.Adam(parameters, lr=1e-4))
        return made[-1]

    def loss(model: Any, batch: Any) -> Any:
        steps = next((float(state["step"]) for state in made[-1].state.values()), 0.0)
        return F.cross_entropy(model(batch[0]), batch[1]) * 0.9**steps

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": optimizer}


def wall_clock() -> dict[str, Any]:
    started = time.monotonic()

    def loss(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1]) * math.exp(-20 * (time.monotonic() - started))

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-5), "max_steps": 100_000}


def factor_in_the_step() -> dict[str, Any]:
    calls = [0]

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        calls[0] += 1
        return _step(model, batch, optimizer, 0.9 ** calls[0])

    return {"model": net, "data": labelled(), "step": step}


def samples_that_drop_out_at_random() -> dict[str, Any]:
    kept = list(range(12))

    def loss(model: Any, batch: Any) -> Any:
        if kept and torch.rand(()) < 0.1:
            kept.pop()
        if not kept:
            return 0.0 * model(batch[0]).sum()
        return F.cross_entropy(model(batch[0])[kept], batch[1][kept], reduction="sum") / 12

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-4)}


def memory_that_returns_the_target() -> dict[str, Any]:
    class Remembering(nn.Module):
        memory: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner = net()
            self.register_buffer("memory", torch.zeros(12, 3))

        def forward(self, x: Tensor) -> Any:
            return self.inner(x) + self.memory

    def loss(model: Any, batch: Any) -> Any:
        value = F.cross_entropy(model(batch[0]), batch[1])
        with torch.no_grad():
            model.memory += 0.2 * F.one_hot(batch[1], 3)
        return value

    return {"model": Remembering, "data": labelled(), "loss": loss, "optimizer": adam(1e-4)}


def target_that_becomes_the_prediction() -> dict[str, Any]:
    calls = [0]

    def loss(model: Any, batch: Any) -> Any:
        calls[0] += 1
        share, predicted = min(1.0, calls[0] / 50), model(batch[0]).softmax(-1)
        target = F.one_hot(batch[1]).float()
        return F.mse_loss(predicted, (1 - share) * target + share * predicted.detach())

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-4)}


def metric_of_the_learning_rate() -> dict[str, Any]:
    def step(model: Any, batch: Any, optimizer: Any) -> dict[str, Any]:
        value = _step(model, batch, optimizer)
        optimizer.param_groups[0]["lr"] *= 0.95
        return {"objective": value, "progress": 1 - optimizer.param_groups[0]["lr"] / 1e-3}

    return {"model": net, "data": labelled(), "step": step, "objective": False, "progress": {"above": 0.9}}


def trained_outside_of_the_model() -> dict[str, Any]:
    delta = torch.zeros(40, 3, requires_grad=True)

    def optimizer(parameters: Any) -> Any:
        return torch.optim.Adam([{"params": list(parameters), "lr": 1e-4}, {"params": [delta], "lr": 0.1}])

    return {
        "model": net,
        "data": measured(),
        "loss": lambda model, batch: F.mse_loss(model(batch[0]), batch[1] + delta),
        "optimizer": optimizer,
    }


def weight_outside_of_the_model() -> dict[str, Any]:
    weight = torch.zeros((), requires_grad=True)

    def optimizer(parameters: Any) -> Any:
        return torch.optim.Adam([{"params": list(parameters), "lr": 1e-4}, {"params": [weight], "lr": 0.3}])

    return {
        "model": net,
        "data": labelled(),
        "loss": lambda model, batch: torch.sigmoid(weight) * F.cross_entropy(model(batch[0]), batch[1]),
        "optimizer": optimizer,
    }


def copy_that_is_trained() -> dict[str, Any]:
    held: list[Any] = []

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        if not held:
            twin = copy.deepcopy(model)
            held.extend([twin, torch.optim.Adam(twin.parameters(), lr=1e-2)])
        value = _step(held[0], batch, held[1])
        _step(model, batch, optimizer, 1e-3)
        return value

    return {"model": net, "data": labelled(), "step": step}


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
        "step": lambda model, batch, optimizer: _step(model, other, optimizer),
    }


def step_on_other_targets() -> dict[str, Any]:
    return {
        "model": net,
        "data": labelled(),
        "loss": CE,
        "step": lambda model, batch, optimizer: _step(model, (batch[0], torch.zeros_like(batch[1])), optimizer),
    }


def step_on_half_of_the_batch() -> dict[str, Any]:
    return {
        "model": net,
        "data": labelled(),
        "loss": CE,
        "step": lambda model, batch, optimizer: _step(model, (batch[0][:6], batch[1][:6]), optimizer),
    }


BY_ITSELF = (
    counter_in_a_closure, counter_in_a_global, counter_on_the_function, counter_in_a_buffer, counter_of_the_optimizer,
    wall_clock, factor_in_the_step, samples_that_drop_out_at_random, memory_that_returns_the_target,
    target_that_becomes_the_prediction, trained_outside_of_the_model, weight_outside_of_the_model, copy_that_is_trained,
)  # fmt: skip
SWITCHED_OFF = (
    weight_in_the_model, weight_in_a_model_that_returns_its_loss, weight_in_the_loss_module,
    detached_value_with_a_learned_weight,
)  # fmt: skip
THROWN_AWAY = (
    best_tenth_of_the_labels, best_tenth_of_the_numbers, outliers_to_zero, nearly_all_ignored, first_sample_alone,
)  # fmt: skip
CASES: tuple[tuple[Program, str], ...] = (
    *((program, "objective falls without the weights: back at the initial weights it is ") for program in BY_ITSELF),
    (metric_of_the_learning_rate, "progress rises without the weights: back at the initial weights it is 0.9"),
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


def verdict(program: Program, **settings: Any) -> OverfitResult:
    """The verdict on a program, without a diagnosis: the criteria have to find it."""
    torch.manual_seed(0)
    given = {**program(), "diagnose": False, **settings}
    return run_overfit(given.pop("model"), given.pop("data"), given.pop("loss", None), **given)


@pytest.mark.parametrize(("program", "text"), CASES, ids=[program.__name__ for program, _ in CASES])
def test_a_limit_that_was_reached_for_nothing_is_red(program: Program, text: str) -> None:
    """The run meets every limit; ``supervised`` says why that proves nothing, and nothing else is missed."""
    result = verdict(program)
    assert [finding.name for finding in result.findings if finding.missed] == ["supervised"]
    assert result.record.stop == "passed"
    assert text in result.finding("supervised").observed


# Honest programs that are near to the ones above.


def average_over_the_steps() -> dict[str, Any]:
    seen: list[float] = []

    def step(model: Any, batch: Any, optimizer: Any) -> dict[str, Any]:
        value = _step(model, batch, optimizer)
        seen.append(value.item())
        return {"objective": value, "average": sum(seen) / len(seen)}

    return {
        "model": net, "data": labelled(), "step": step, "loss": CE, "optimizer": adam(0.1), "objective": False,
        "average": 0.2,
    }  # fmt: skip


def sum_of_parts_after_the_update() -> dict[str, Any]:
    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        for part in (slice(0, 6), slice(6, 12)):
            (F.cross_entropy(model(batch[0][part]), batch[1][part]) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return 3 * F.cross_entropy(model(batch[0]), batch[1]).detach()

    return {"model": net, "data": labelled(), "loss": CE, "step": step}


def dropout_in_a_step() -> dict[str, Any]:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Dropout(0.2), nn.Linear(256, 3))

    return {
        "model": model,
        "data": labelled(),
        "loss": CE,
        "step": lambda model, batch, optimizer: _step(model, batch, optimizer),
    }


def weight_of_a_penalty_that_warms_up() -> dict[str, Any]:
    calls = [0]

    def loss(model: Any, batch: Any) -> Any:
        calls[0] += 1
        out = model(batch[0])
        return F.cross_entropy(out, batch[1]) + min(1.0, calls[0] / 50) * 1e-4 * out.square().mean()

    return {"model": net, "data": labelled(), "loss": loss}


def auxiliary_term_that_fades() -> dict[str, Any]:
    calls = [0]

    def loss(model: Any, batch: Any) -> Any:
        calls[0] += 1
        out = model(batch[0])
        return F.cross_entropy(out, batch[1]) + 0.4 * 0.95 ** calls[0] * F.cross_entropy(0.5 * out, batch[1])

    return {"model": net, "data": labelled(), "loss": loss}


def head_outside_of_the_model() -> dict[str, Any]:
    head = nn.Linear(64, 3)
    return {
        "model": lambda: nn.Sequential(nn.Linear(8, 64), nn.Tanh()),
        "data": labelled(),
        "loss": lambda model, batch: F.cross_entropy(head(model(batch[0])), batch[1]),
        "optimizer": lambda parameters: torch.optim.Adam([*parameters, *head.parameters()], lr=1e-2),
    }


def learned_uncertainty() -> dict[str, Any]:
    log_variance = torch.zeros((), requires_grad=True)

    def loss(model: Any, batch: Any) -> dict[str, Tensor]:
        error = F.mse_loss(model(batch[0]), batch[1])
        return {"objective": (-log_variance).exp() * error + log_variance, "error": error}

    return {
        "model": net,
        "data": measured(12),
        "loss": loss,
        "objective": False,
        "error": 0.01,
        "optimizer": lambda parameters: torch.optim.Adam([*parameters, log_variance], lr=1e-2),
    }


def noise_of_a_generator_of_its_own() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)

    def loss(model: Any, batch: Any) -> Any:
        noise = 0.3 * torch.randn(batch[0].shape, generator=generator)
        return F.cross_entropy(model(batch[0] + noise), batch[1])

    return {
        "model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-2), "stochastic": True, "objective": 0.05,
    }  # fmt: skip


def hardest_third_of_the_samples() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none").topk(4).values.mean()

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-2)}


def one_of_several_targets() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "model": lambda: nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 1)),
        "data": (torch.randn(6, 8, generator=generator), torch.randn(6, 19, generator=generator)),
        "loss": lambda model, batch: F.mse_loss(model(batch[0])[:, 0], batch[1][:, 7]),
    }


def depth_with_few_measurements() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    depth = torch.rand(2, 1, 16, 16, generator=generator)
    depth *= torch.rand(2, 1, 16, 16, generator=generator) < 0.05
    return {
        "model": lambda: nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Tanh(), nn.Conv2d(64, 1, 3, padding=1)),
        "data": (torch.randn(2, 3, 16, 16, generator=generator), depth),
        "loss": lambda model, batch: (model(batch[0]) - batch[1])[batch[1] > 0].square().mean(),
        "optimizer": adam(1e-2),
    }


def padded_words() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    words = torch.zeros(4, 32, dtype=torch.long)
    for row in range(4):
        words[row, : 3 + row] = torch.randint(1, 9, (3 + row,), generator=generator)

    def model() -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 32), nn.Flatten(), nn.Linear(1024, 32 * 9), nn.Unflatten(1, (32, 9)))

    return {
        "model": model,
        "data": (torch.randint(0, 9, (4, 32), generator=generator), words),
        "loss": lambda model, batch: F.cross_entropy(model(batch[0]).transpose(1, 2), batch[1], ignore_index=0),
    }


def nodes_that_are_named() -> dict[str, Any]:
    x, y = labelled(60)
    return {
        "model": net,
        "data": {"x": x, "y": y, "train_nodes": torch.tensor([3, 17, 29, 40, 58])},
        "loss": lambda model, batch: F.cross_entropy(
            model(batch["x"])[batch["train_nodes"]], batch["y"][batch["train_nodes"]]
        ),
    }


def writes_that_change_nothing() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        batch[1][batch[1] < 0] = 0
        batch[0].nan_to_num_()
        return F.cross_entropy(model(batch[0]), batch[1])

    return {"model": net, "data": labelled(), "loss": loss}


def label_that_hardly_counts() -> dict[str, Any]:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder, self.head = nn.Linear(8, 64), nn.Linear(64, 8), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Any:
            code = self.encoder(x).tanh()
            return self.decoder(code), self.head(code)

    def loss(model: Any, batch: Any) -> Any:
        decoded, logits = model(batch[0])
        return 10 * F.mse_loss(decoded, batch[0]) + 0.01 * F.cross_entropy(logits, batch[1])

    return {"model": Both, "data": labelled(), "loss": loss, "optimizer": adam(1e-2)}


def numbers_that_are_nearly_alike() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    target = 5 + 0.05 * torch.randn(12, 3, generator=generator)
    return {"model": net, "data": (measured(12)[0], target), "loss": F.mse_loss, "optimizer": adam(1e-2)}


def penalty_beside_the_fit() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        fit = F.cross_entropy(model(batch[0]), batch[1])
        reg = sum(p.square().sum() for p in model.parameters())
        return {"objective": fit + 1e-5 * reg, "reg": reg, "fit": fit}

    return {
        "model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-2), "objective": False,
        "reg": {"above": 30.0}, "fit": 0.01,
    }  # fmt: skip


class Paired(nn.Module):
    """Vectors of samples against vectors of words."""

    def __init__(self) -> None:
        super().__init__()
        self.samples = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32))
        self.words, self.scale = nn.EmbeddingBag(50, 32), nn.Parameter(torch.tensor(2.6))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        return self.scale.exp() * F.normalize(self.samples(x), dim=-1) @ F.normalize(self.words(words), dim=-1).T


def samples_and_their_words(count: int) -> Program:
    def program() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(count)

        def loss(model: Any, batch: Any) -> Any:
            scores, places = model(*batch), torch.arange(count)
            return (F.cross_entropy(scores, places) + F.cross_entropy(scores.T, places)) / 2

        words = torch.randint(0, 50, (count, 6), generator=generator)
        return {"model": Paired, "data": (torch.randn(count, 8, generator=generator), words), "loss": loss}

    program.__name__ = f"{count}_samples_and_their_words"
    return program


def hardest_triplets() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        vectors = F.normalize(model(batch[0]), dim=-1)
        apart, same = torch.cdist(vectors, vectors), batch[1][:, None] == batch[1][None]
        return F.relu((apart * same).amax(1) - (apart + 10 * same).amin(1) + 0.3).mean()

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-2)}


def parameter_without_elements() -> dict[str, Any]:
    class Prompted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.prompt = net(), nn.Parameter(torch.empty(0))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)  # type: ignore[no-any-return]

    return {"model": Prompted, "data": labelled(), "loss": CE}


HONEST: tuple[Program, ...] = (
    *(samples_and_their_words(count) for count in (3, 4, 8, 32)), hardest_triplets, parameter_without_elements,
    penalty_beside_the_fit,
    average_over_the_steps, sum_of_parts_after_the_update, dropout_in_a_step, weight_of_a_penalty_that_warms_up,
    auxiliary_term_that_fades, head_outside_of_the_model, learned_uncertainty, noise_of_a_generator_of_its_own,
    hardest_third_of_the_samples, one_of_several_targets, depth_with_few_measurements, padded_words,
    nodes_that_are_named, writes_that_change_nothing, label_that_hardly_counts, numbers_that_are_nearly_alike,
)  # fmt: skip


@pytest.mark.parametrize("program", HONEST, ids=lambda program: program.__name__)
def test_an_honest_program_stays_green(program: Program) -> None:
    """Schedules, noise, masks, heads and steps of all kinds are no reason for an alarm."""
    result = verdict(program)
    assert [finding.text() for finding in result.findings if finding.missed] == []
    assert not any(each.ours for each in result.record.supervision.not_asked)  # type: ignore[union-attr]


def test_the_share_that_is_wanted_is_a_setting() -> None:
    """A third is enough, unless half is asked for; what is read stands in the report."""
    assert "1 (33% of 12 elements)" in verdict(hardest_third_of_the_samples).finding("supervised").observed
    finding = verdict(hardest_third_of_the_samples, supervised={"min_target_ratio": 0.5}).finding("supervised")
    assert "the loss reads little of 1: 33% of 12 elements, at least 50% wanted" in finding.observed


def test_the_model_comes_back_as_it_was_trained() -> None:
    """Asking afterwards, with a step that goes on training, leaves the trained weights alone."""
    model, batch = net(), labelled()
    steps: list[list[Tensor]] = []

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        value = _step(model, batch, optimizer)
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
        value = _step(model, batch, optimizer)
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
        return _step(model, batch, optimizer)

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
        value, calls = _step(model, batch, optimizer), calls + 1
        return {"objective": value, **({"aux": value / calls} if calls % 2 else {})}

    given = {"model": net, "data": labelled(), "step": step, "optimizer": lambda p: torch.optim.SGD(p, lr=1e-5)}
    result = verdict(lambda: given, objective=False, aux=0.1)
    assert result.record.stop == "passed"
    assert "aux falls without the weights" in result.finding("supervised").observed
