"""kornia: vision models and losses of geometry, filters and colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import kornia
import torch
from kornia import feature, losses
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal, uniform


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A model or a loss of kornia."""
    traits_of = frozenset(["image", *traits.split()])
    return Program(f"kornia/{name}", "kornia", model, batch, loss, limit, traits=traits_of, **more)


def smooth(count: int = 2, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth images with values from 0 to 1."""
    return F.interpolate(uniform(count, 3, 5, 5, seed=seed), (size, size), mode="bicubic").clamp(0, 1)


def restorer(channels: int = 3, outputs: int = 3) -> nn.Module:
    """Three convolutions."""
    return nn.Sequential(
        nn.Conv2d(channels, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, outputs, 3, padding=1),
    )  # fmt: skip


def restored(criterion: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """A criterion on what becomes of noisy images."""
    return lambda model, batch: criterion(torch.sigmoid(model(batch[0])), batch[1])


def noisy() -> tuple[Tensor, Tensor]:
    """Images with noise, and without it."""
    clean = smooth()
    return (clean + 0.05 * normal(2, 3, 32, 32)).clamp(0, 1), clean


class Registration(nn.Module):
    """A homography that is fitted to a pair of images."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3)[None])

    def forward(self, image: Tensor) -> Tensor:
        """The image as the homography moves it."""
        out: Tensor = kornia.geometry.homography_warp(image, self.matrix, image.shape[-2:], padding_mode="border")
        return out


def moved() -> tuple[Tensor, Tensor]:
    """An image, and the same moved and turned a little."""
    image = smooth(1, 32, seed=5)
    matrix = torch.tensor([[[1.0, -0.1, 0.12], [0.1, 1.0, -0.08], [0.0, 0.0, 1.0]]])
    return image, kornia.geometry.homography_warp(image, matrix, (32, 32), padding_mode="border")


class Pose(nn.Module):
    """Rotations as quaternions, out of a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Matrices of shape (batch, 3, 3)."""
        out: Tensor = kornia.geometry.quaternion_to_rotation_matrix(F.normalize(self.body(x), dim=-1))
        return out


def turned() -> tuple[Tensor, Tensor]:
    """Features, and a rotation for each."""
    quaternion = F.normalize(normal(6, 4, seed=1), dim=-1)
    return normal(6, 6), kornia.geometry.quaternion_to_rotation_matrix(quaternion)


class Depth(nn.Module):
    """The inverse depth of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = restorer(3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Of shape (batch, 1, height, width), positive."""
        return F.softplus(self.body(image))


def smooth_depth(model: nn.Module, batch: Any) -> Tensor:
    """The error where depth is known, and a little smoothness that keeps edges of the image."""
    image, depth, known = batch["image"], batch["depth"], batch["known"]
    inverse = model(image)
    data = (inverse - 1 / depth).abs()[known].mean()
    smoothness: Tensor = losses.inverse_depth_smoothness_loss(inverse, image)
    return data + 0.01 * smoothness


def scene() -> dict[str, Tensor]:
    """An image, its depth, and where that is known."""
    image = smooth(1)
    depth = 1 + 2 * image.mean(1, keepdim=True)
    return {"image": image, "depth": depth, "known": uniform(1, 1, 32, 32, seed=3) > 0.5}


def pixels() -> tuple[Tensor, Tensor]:
    """Images, and a class for each pixel that follows their brightness."""
    image = smooth()
    return image, (image.mean(1) > image.mean()).long()


def described(model: nn.Module, batch: Any) -> Tensor:
    """Patches that show the same are near each other, others far: a triplet loss."""
    anchor, same, other = batch
    return F.triplet_margin_loss(model(anchor), model(same), model(other))


def patches() -> tuple[Tensor, Tensor, Tensor]:
    """Patches of 32 pixels: of some place, of the same with noise, and of another."""
    anchor = F.interpolate(uniform(8, 1, 6, 6, seed=2), (32, 32), mode="bilinear")
    return anchor, anchor + 0.1 * normal(8, 1, 32, 32), anchor.roll(1, 0)


def programs() -> Iterator[Program]:
    """Losses of restoring, of labelling, of geometry, then models."""
    conv = "conv regression dense"
    window = 5
    ms_ssim = losses.MS_SSIMLoss(sigmas=[0.5, 1.0, 2.0], reduction="mean")
    yield program("SSIMLoss", restorer, noisy, restored(losses.SSIMLoss(window)), 0.1, conv, lr=5e-3)
    yield program("MS_SSIMLoss", restorer, noisy, restored(ms_ssim), 12.0, conv, lr=5e-3)
    yield program("CharbonnierLoss", restorer, noisy, restored(losses.CharbonnierLoss("mean")), 0.002, conv, lr=5e-3)
    yield program(
        "TotalVariation",
        restorer,
        noisy,
        lambda model, batch: (
            F.l1_loss(model(batch[0]), batch[1]) + 1e-5 * losses.TotalVariation()(model(batch[0])).mean()
        ),
        0.08,
        f"{conv} terms",
        lr=5e-3,
    )
    labels = "conv labels dense"
    yield program("DiceLoss", lambda: restorer(3, 2), pixels, by(losses.DiceLoss()), 0.1, labels, lr=5e-3)
    yield program(
        "FocalLoss", lambda: restorer(3, 2), pixels, by(losses.FocalLoss(0.5, reduction="mean")), 0.01, labels, lr=5e-3
    )
    yield program(
        "LovaszSoftmaxLoss", lambda: restorer(3, 2), pixels, by(losses.LovaszSoftmaxLoss()), 0.15, labels, lr=5e-3
    )
    yield program(
        "homography_warp",
        Registration,
        moved,
        lambda model, batch: F.l1_loss(model(batch[0]), batch[1]),
        0.01,
        "regression geometry",
        lr=5e-3,
    )
    yield program(
        "quaternion_to_rotation_matrix",
        Pose,
        turned,
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        0.005,
        "regression geometry",
        lr=1e-2,
    )
    yield program(
        "inverse_depth_smoothness_loss", Depth, scene, smooth_depth, 0.04, f"{conv} masked terms dict", lr=5e-3
    )
    yield program(
        "HardNet",
        lambda: feature.HardNet(pretrained=False),
        patches,
        described,
        0.2,
        "conv norm batchnorm dropout",
        given={"stochastic": True},
        steps=20,
    )


def by(criterion: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """A criterion of logits and labels as a loss of model and batch."""
    return lambda model, batch: criterion(model(batch[0]), batch[1])
