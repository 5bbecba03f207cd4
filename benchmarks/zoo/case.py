"""What a case of the zoo is: a name, a family, and a function from a seed to the pieces of a training run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from pytest_overfit.result import OverfitResult


@dataclass(frozen=True)
class Setup:
    """The pieces of one training run, as a user of PyTorch would write them.

    ``model`` is a module or name -> module; ``data`` one batch of any nest; ``loss`` a function of (model, batch) or a
    criterion on (prediction, target), ``None`` where the model returns its own loss; ``optimizer`` an instance, a
    function of the parameters or name -> instance, ``None`` for AdamW(lr=1e-3, weight_decay=0); ``step`` the user's
    own train step of (model, batch[, optimizer]); ``settings`` what has to be declared about the run.
    """

    model: Any
    data: Any
    loss: Any = None
    optimizer: Any = None
    step: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def run(setup: Setup, seed: int) -> OverfitResult:
    """The setup under the plugin, with everything that is on by default."""
    from pytest_overfit.api import run_overfit

    return run_overfit(
        setup.model,
        setup.data,
        setup.loss,
        optimizer=setup.optimizer,
        step=setup.step,
        **setup.settings,
        seeds=(seed,),
    )


@dataclass(frozen=True)
class Case:
    """One healthy model: ``build(seed)`` seeds torch, then builds the model; the batch does not depend on the seed."""

    name: str
    family: str
    build: Callable[[int], Setup]


def cases(family: str, *builders: Callable[[], Setup]) -> list[Case]:
    """The cases of a family, named after the functions that build them."""
    return [Case(builder.__name__, family, _seeded(builder)) for builder in builders]


def _seeded(builder: Callable[[], Setup]) -> Callable[[int], Setup]:
    def build(seed: int) -> Setup:
        torch.manual_seed(seed)
        return builder()

    return build


def fixed(seed: int = 7) -> torch.Generator:
    """The source of a batch: the same whatever the seed of the model is."""
    return torch.Generator().manual_seed(seed)


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def smooth_images(count: int, channels: int, size: int, source: torch.Generator) -> Tensor:
    """Images (count, channels, size, size) of about zero mean and unit variance: smooth blobs and a little grain."""
    coarse = torch.randn(count, channels, 4, 4, generator=source)
    images = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    images = images + 0.1 * torch.randn(images.shape, generator=source)
    return (images - images.mean()) / images.std()
