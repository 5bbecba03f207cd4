"""torchmetrics: metrics that can be differentiated, as losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional import audio, image, regression

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal, uniform


def separator() -> nn.Module:
    """Convolutions over a mixture of two voices."""
    return nn.Sequential(
        nn.Conv1d(1, 32, 9, padding=4), nn.ReLU(), nn.Conv1d(32, 32, 9, padding=4), nn.ReLU(), nn.Conv1d(32, 2, 1)
    )


def voices() -> tuple[Tensor, Tensor]:
    """Two mixtures, and the two voices of each."""
    time = torch.arange(64.0)
    first = torch.stack([torch.sin(0.2 * time), torch.sin(0.3 * time)])
    second = torch.stack([torch.sin(1.1 * time), torch.sin(1.4 * time)])
    return (first + second)[:, None], torch.stack([first, second], 1)


def apart(model: nn.Module, batch: Any) -> Tensor:
    """Decibels below the voices, in the better of both orders."""
    told = model(batch[0])
    best, _ = audio.permutation_invariant_training(
        told, batch[1], audio.scale_invariant_signal_noise_ratio, eval_func="max"
    )
    return -best.mean()


def restorer() -> nn.Module:
    """Convolutions over noisy images."""
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid())


def noisy() -> tuple[Tensor, Tensor]:
    """Images with noise, and without."""
    clean = F.interpolate(uniform(2, 1, 4, 4), (24, 24), mode="bilinear")
    return clean + 0.1 * normal(2, 1, 24, 24), clean


def likeness(model: nn.Module, batch: Any) -> Tensor:
    """One minus the structural similarity."""
    similarity: Tensor = image.structural_similarity_index_measure(model(batch[0]), batch[1], data_range=1.0)
    return 1 - similarity


def rank(model: nn.Module, batch: Any) -> Tensor:
    """One minus the correlation."""
    correlation: Tensor = regression.concordance_corrcoef(model(batch[0])[:, 0], batch[1])
    return (1 - correlation).mean()  # of one element


def percentage(model: nn.Module, batch: Any) -> Tensor:
    """The error as a share of the target."""
    value: Tensor = regression.symmetric_mean_absolute_percentage_error(model(batch[0])[:, 0], batch[1])
    return value


def perceptron() -> nn.Module:
    """Numbers to one positive number."""
    return nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1), nn.Softplus())


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Any,
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A model, with a metric as its loss."""
    traits_of = frozenset(["regression", "tuple", *traits.split()])
    settings: dict[str, Any] = {"lr": 5e-3, **more}
    return Program(f"torchmetrics/{name}", "torchmetrics", model, batch, loss, limit, traits=traits_of, **settings)


def programs() -> Iterator[Program]:
    """Sound, images, numbers."""
    numbers = lambda: (normal(8, 5), 1 + uniform(8, seed=1))  # noqa: E731
    yield program(
        "permutation_invariant_training", separator, voices, apart, -20.0, "audio conv", given={"unbounded": True}
    )
    yield program("structural_similarity_index_measure", restorer, noisy, likeness, 0.2, "image conv")
    yield program("concordance_corrcoef", perceptron, numbers, rank, 0.01, "")
    yield program("symmetric_mean_absolute_percentage_error", perceptron, numbers, percentage, 0.01, "")
