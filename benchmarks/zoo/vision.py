# mypy: disable-error-code="no-any-return"
"""Images in: labels, masks, boxes, depth, poses, keypoints, motion out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, mlp, smooth_images
from benchmarks.zoo.dense import classify

Batch = dict[str, Any]


def adam(lr: float) -> Any:
    """An optimizer factory."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def labelled_images(count: int = 8, size: int = 16, classes: int = 5) -> Batch:
    """RGB images (count, 3, size, size) with random labels."""
    source = fixed()
    images = smooth_images(count, 3, size, source)
    return {"x": images, "y": torch.randint(0, classes, (count,), generator=source)}


def cnn() -> Setup:
    """Convolutions, pooling, a linear head."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 5),
    )  # fmt: skip
    return Setup(model, labelled_images(), classify)


def cnn_bias_before_batch_norm() -> Setup:
    """Convolutions that keep a bias which BatchNorm cancels: its gradient is rounding noise."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(128, 5),
    )  # fmt: skip
    return Setup(model, labelled_images(), classify)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, the second BatchNorm zero-initialised as in the ImageNet recipe."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        nn.init.zeros_(self.bn2.weight)
        same = stride == 1 and channels == out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


def resnet() -> Setup:
    """A stem, three stages, global pooling, trained by SGD with momentum and weight decay."""
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        BasicBlock(12, 12, 1), BasicBlock(12, 24, 2), BasicBlock(24, 32, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return Setup(model, labelled_images(), classify, optimizer=optimizer)


def depthwise_group_norm() -> Setup:
    """Depthwise separable convolutions with GroupNorm."""

    def stage(channels: int, out: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
        return [depthwise, nn.GroupNorm(4, channels), nn.Conv2d(channels, out, 1), nn.GroupNorm(4, out), nn.SiLU()]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *stage(16, 32), *stage(32, 64), *head)
    return Setup(model, labelled_images(), classify, optimizer=adam(3e-3))


class ViT(nn.Module):
    """Patches, a class token, learned positions, pre-norm encoder layers."""

    def __init__(self, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 96, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1) + self.positions
        return self.head(self.encoder(tokens)[:, 0])


def vit() -> Setup:
    """A class token that starts at zero."""
    return Setup(ViT(), labelled_images(), classify)


class PoseHead(nn.Module):
    """A unit quaternion (w, x, y, z) and a translation of an image pair."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(6, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
        self.trunk = nn.Sequential(*layers, nn.Linear(512, 64), nn.ReLU())
        self.rotation, self.translation = nn.Linear(64, 4), nn.Linear(64, 3)
        with torch.no_grad():
            self.rotation.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(torch.cat([first, second], dim=1))
        return F.normalize(self.rotation(features), dim=1), self.translation(features)


def camera_pose() -> Setup:
    """One pair of views; the two signs of a quaternion are the same rotation."""
    source = fixed()
    views = smooth_images(8, 3, 16, source)
    quaternion = torch.cat([torch.ones(4, 1), 0.4 * torch.randn(4, 3, generator=source)], dim=1)
    batch = {
        "views": [views[:4], views[4:]],
        "camera": {"quaternion": F.normalize(quaternion, dim=1), "translation": torch.randn(4, 3, generator=source)},
    }

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        quaternion, translation = model(*batch["views"])
        rotation = 1 - (quaternion * batch["camera"]["quaternion"]).sum(1).abs().mean()
        shift = F.smooth_l1_loss(translation, batch["camera"]["translation"])
        return {"objective": rotation + shift, "rotation": rotation, "translation": shift}

    return Setup(PoseHead(), batch, loss)


def detection() -> Setup:
    """One box, class and objectness per cell of a 4 x 4 grid; a list of boxes per image."""
    source = fixed()
    images = smooth_images(2, 3, 16, source)
    boxes = [torch.rand(count, 4, generator=source) * torch.tensor([0.9, 0.9, 0.4, 0.4]) for count in (3, 2)]
    labels = [torch.randint(0, 4, (len(each),), generator=source) for each in boxes]
    batch = [
        {"image": images[0], "boxes": boxes[0], "labels": labels[0], "file": "a.jpg"},
        {"image": images[1], "boxes": boxes[1], "labels": labels[1], "file": "b.jpg"},
    ]
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(24, 48, 3, 2, 1), nn.LeakyReLU(0.1),
        nn.Conv2d(48, 48, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(48, 1 + 4 + 4, 1),
    )  # fmt: skip

    def loss(model: nn.Module, batch: list[Batch]) -> dict[str, Tensor]:
        grid = model(torch.stack([each["image"] for each in batch])).permute(0, 2, 3, 1)
        present, box, kind = torch.zeros_like(grid[..., 0]), grid.new_zeros(()), grid.new_zeros(())
        for image, each in enumerate(batch):
            column, row = (each["boxes"][:, :2] * 4).long().clamp(0, 3).unbind(1)
            present[image, row, column] = 1
            cells = grid[image, row, column]
            box = box + F.smooth_l1_loss(cells[:, 1:5], each["boxes"])
            kind = kind + F.cross_entropy(cells[:, 5:], each["labels"])
        objectness = F.binary_cross_entropy_with_logits(grid[..., 0], present)
        return {"objective": objectness + box + kind, "objectness": objectness, "box": box, "class": kind}

    return Setup(model, batch, loss, optimizer=adam(3e-3))


def super_resolution() -> Setup:
    """Residual over bilinear upsampling, by pixel shuffle."""
    sharp = smooth_images(4, 3, 16, fixed())
    blocks = [nn.Conv2d(3, 48, 3, padding=1), nn.PReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.PReLU()]
    model = nn.Sequential(*blocks, nn.Conv2d(48, 12, 3, padding=1), nn.PixelShuffle(2))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        base = F.interpolate(batch["small"], scale_factor=2, mode="bilinear", align_corners=False)
        return F.l1_loss(base + model(batch["small"]), batch["sharp"])

    return Setup(model, {"small": F.avg_pool2d(sharp, 2), "sharp": sharp}, loss, optimizer=adam(2e-3))


def coordinate_network() -> Setup:
    """One image as a function of Fourier features of the position."""
    axis = torch.linspace(-1, 1, 16)
    positions = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    colours = smooth_images(1, 3, 16, fixed())[0].flatten(1).T
    frequencies = 3 * torch.randn(2, 32, generator=fixed(1))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        angles = batch["position"] @ frequencies
        return F.mse_loss(model(torch.cat([angles.sin(), angles.cos()], dim=-1)), batch["colour"])

    return Setup(mlp(64, 96, 96, 3), {"position": positions, "colour": colours}, loss, optimizer=adam(3e-3))


CASES = cases(
    "vision", cnn, cnn_bias_before_batch_norm, resnet, depthwise_group_norm, vit, camera_pose, detection,
    super_resolution, coordinate_network,
)  # fmt: skip
