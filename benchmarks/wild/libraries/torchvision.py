"""torchvision: detectors that take lists of images and targets, and classifiers with several heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import regnet, segmentation, shufflenetv2, swin_transformer, video
from torchvision.models.detection import anchor_utils, fcos, retinanet
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal, uniform


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A model of torchvision."""
    traits_of = frozenset(traits.split())
    return Program(f"torchvision/{name}", "torchvision", model, batch, loss, limit, traits=traits_of, **more)


def scenes() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of two sizes, and a list of boxes with classes for each."""
    first, second = 0.3 * uniform(3, 64, 64), 0.3 * uniform(3, 64, 48, seed=1)
    first[:, 8:40, 8:40] += 0.6
    second[0, 20:52, 4:36] += 0.6
    return [first, second], [
        {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[4.0, 20.0, 36.0, 52.0]]), "labels": torch.tensor([2])},
    ]


def detection(model: nn.Module, batch: Any) -> Tensor:
    """The sum of the losses that a detector returns."""
    images, targets = batch
    return torch.stack(list(model(images, targets).values())).sum()


class Features(nn.Module):
    """A small backbone of one level, as a detector asks for it."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features at an eighth of the size."""
        out: Tensor = self.body(x)
        return out


SIZE = {"num_classes": 3, "min_size": 48, "max_size": 64}


def retina() -> nn.Module:
    """A RetinaNet with anchors of three shapes."""
    anchors = anchor_utils.AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),))
    return retinanet.RetinaNet(Features(), **SIZE, anchor_generator=anchors)


def centres() -> nn.Module:
    """An FCOS."""
    return fcos.FCOS(Features(), **SIZE, anchor_generator=anchor_utils.AnchorGenerator(((8,),), ((1.0,),)))


def with_auxiliary(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a classifier with two heads beside its own."""
    out = model(batch[0])
    own = F.cross_entropy(out.logits, batch[1])
    return own + 0.3 * F.cross_entropy(out.aux_logits1, batch[1]) + 0.3 * F.cross_entropy(out.aux_logits2, batch[1])


def pixels() -> tuple[Tensor, Tensor]:
    """Images, and a class for each pixel; a border counts for nothing."""
    image, labels = 0.3 * normal(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    for index in range(2):
        image[index, :, 4:20, 8 * index + 4 : 24] += 1.5
        labels[index, 4:20, 8 * index + 4 : 24] = 1 + index
    labels[:, :1] = 255
    return image, labels


def pixel_classes(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the pixels, and that of the auxiliary head."""
    out = model(batch[0])
    own = F.cross_entropy(out["out"], batch[1], ignore_index=255)
    return own + 0.5 * F.cross_entropy(out["aux"], batch[1], ignore_index=255)


def fully_convolutional() -> nn.Module:
    """An FCN on a small backbone, with an auxiliary head."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU())
    backbone = torchvision.models._utils.IntermediateLayerGetter(
        nn.Sequential(stem, body), return_layers={"0": "aux", "1": "out"}
    )
    return segmentation.FCN(backbone, segmentation.fcn.FCNHead(32, 3), segmentation.fcn.FCNHead(16, 3))


class BoxHead(nn.Module):
    """A box and a score for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = Features(), nn.Linear(32 * 16, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Corners of shape (batch, 4) in pixels, and logits of shape (batch, 3)."""
        out = self.head(self.features(x).flatten(1))
        centre, size = 32 * out[:, :2].sigmoid(), 1 + 31 * out[:, 2:4].sigmoid()
        return torch.cat([centre - size / 2, centre + size / 2], 1), out[:, 4:]


def one_box() -> dict[str, Tensor]:
    """Images, a box in each, and which of three things it shows."""
    corner = integers(2, 12, 4, 2, seed=1).float()
    return {
        "image": normal(4, 3, 32, 32),
        "box": torch.cat([corner, corner + 12], 1),
        "label": F.one_hot(classes(4, 3), 3).float(),
    }


def box_and_score(model: nn.Module, batch: Any) -> Tensor:
    """Generalised overlap, and the focal loss of the scores."""
    box, score = model(batch["image"])
    overlap: Tensor = generalized_box_iou_loss(box, batch["box"], reduction="mean")
    focal: Tensor = sigmoid_focal_loss(score, batch["label"], reduction="mean")
    return overlap + 10 * focal


def programs() -> Iterator[Program]:
    """Boxes, pixels, classes, videos."""
    boxes = "image conv norm terms list_of_targets dict"
    images = lambda size=32, count=6: (normal(count, 3, size, size), classes(count, 3))  # noqa: E731
    yield program("RetinaNet", retina, scenes, detection, 0.4, boxes)
    yield program("FCOS", centres, scenes, detection, 0.9, boxes, steps=100)
    yield program("generalized_box_iou_loss", BoxHead, one_box, box_and_score, 0.2, "image conv norm terms dict tuple")
    yield program(
        "FCN",
        fully_convolutional,
        pixels,
        pixel_classes,
        0.12,
        "image conv norm batchnorm dropout terms dict labels masked",
        given={"stochastic": True},
        lr=5e-3,
    )
    yield program(
        "GoogLeNet",
        lambda: torchvision.models.GoogLeNet(
            num_classes=3, aux_logits=True, init_weights=False, dropout=0.0, dropout_aux=0.0
        ),
        lambda: images(64, 4),
        with_auxiliary,
        0.01,
        "image conv norm batchnorm terms tuple labels",
        steps=20,
    )
    yield from classifiers()


def classifiers() -> Iterator[Program]:
    """Classes of images and of a video."""
    images = lambda size=32, count=6: (normal(count, 3, size, size), classes(count, 3))  # noqa: E731
    yield program(
        "ShuffleNetV2",
        lambda: shufflenetv2.ShuffleNetV2([1, 1, 1], [8, 16, 32, 32, 64], num_classes=3),
        images,
        cross_entropy,
        0.03,
        "image conv norm batchnorm labels",
    )
    yield program(
        "RegNet",
        lambda: regnet.RegNet(
            regnet.BlockParams([1, 1], [8, 16], [4, 4], [1.0, 1.0], [2, 2], se_ratio=1.0), num_classes=3, stem_width=8
        ),
        images,
        cross_entropy,
        0.1,
        "image conv norm batchnorm residual labels",
    )
    yield program(
        "SwinTransformer-v2",
        lambda: swin_transformer.SwinTransformer(
            [2, 2], 16, [1, 1], [2, 2], [4, 4], num_classes=3, stochastic_depth_prob=0.1,
            block=swin_transformer.SwinTransformerBlockV2, downsample_layer=swin_transformer.PatchMergingV2,
        ),
        images,
        cross_entropy,
        0.05,
        "image attention norm residual dropout labels",
        given={"stochastic": True},
    )  # fmt: skip
    yield program(
        "VideoResNet",
        lambda: video.resnet.VideoResNet(
            video.resnet.BasicBlock,
            [video.resnet.Conv3DSimple] * 4,
            [1, 1, 1, 1],
            video.resnet.BasicStem,
            num_classes=3,
        ),
        lambda: (normal(3, 3, 4, 16, 16), classes(3, 3)),
        cross_entropy,
        0.01,
        "video conv norm batchnorm residual labels",
        steps=20,
        lr=1e-3,
    )
