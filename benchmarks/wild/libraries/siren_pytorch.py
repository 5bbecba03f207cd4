"""siren-pytorch: one image as a function of its coordinates, in sines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from siren_pytorch import SirenNet
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import squared_error, uniform


def coordinates(size: int) -> Tensor:
    """Places of all pixels, from -1 to 1."""
    line = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def picture() -> tuple[Tensor, Tensor]:
    """Coordinates, and the colours that are there."""
    image = F.interpolate(uniform(1, 3, 6, 6), (20, 20), mode="bicubic")
    return coordinates(20), image[0].permute(1, 2, 0).reshape(-1, 3)


def poisson() -> tuple[Tensor, Tensor]:
    """Coordinates, and the slopes of a field that is itself not given."""
    place = coordinates(12).requires_grad_()
    field = torch.sin(3 * place[:, :1]) * torch.cos(2 * place[:, 1:])
    (slope,) = torch.autograd.grad(field.sum(), place)
    return place.detach(), slope


def slopes(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of the slopes: a gradient of a gradient."""
    place = batch[0].detach().requires_grad_()
    (told,) = torch.autograd.grad(model(place).sum(), place, create_graph=True)
    return F.mse_loss(told, batch[1])


def programs() -> Iterator[Program]:
    """Colours, then slopes."""
    traits = frozenset(["regression", "tuple", "coordinates"])
    yield Program(
        "siren_pytorch/SirenNet",
        "siren_pytorch",
        lambda: SirenNet(
            dim_in=2, dim_hidden=32, dim_out=3, num_layers=2, final_activation=nn.Sigmoid(), w0_initial=30.0
        ),
        picture,
        squared_error,
        0.02,
        traits=traits,
        steps=300,
    )
    yield Program(
        "siren_pytorch/SirenNet-slopes",
        "siren_pytorch",
        lambda: SirenNet(dim_in=2, dim_hidden=32, dim_out=1, num_layers=2, w0_initial=10.0),
        poisson,
        slopes,
        0.05,
        traits=traits | {"second_order"},
        given={"unused": ["last_layer.bias"]},  # a constant has no slope
    )
