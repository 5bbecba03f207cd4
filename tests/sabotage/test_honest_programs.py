"""Honest programs that are near to those that prove nothing: schedules, noise, masks, heads and steps of all kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.sabotage.small_programs import CE, Program, adam, labelled, measured, net, one_step, verdict


def average_over_the_steps() -> dict[str, Any]:
    seen: list[float] = []

    def step(model: Any, batch: Any, optimizer: Any) -> dict[str, Any]:
        value = one_step(model, batch, optimizer)
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
        "step": lambda model, batch, optimizer: one_step(model, batch, optimizer),
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
