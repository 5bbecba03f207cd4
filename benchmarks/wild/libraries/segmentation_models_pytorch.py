"""segmentation-models-pytorch: decoders of every kind on small encoders, with the losses that come with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch import losses
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal

SIZE = 64
SMALL = {"encoder_name": "timm-mobilenetv3_small_minimal_100", "encoder_weights": None}
CONV = "image conv norm batchnorm residual"


def picture() -> Tensor:
    """Two images with a square of another brightness in each."""
    image = 0.3 * normal(2, 3, SIZE, SIZE)
    image[0, :, 8:40, 8:40] += 1.0
    image[1, :, 24:60, 20:44] -= 1.0
    return image


def region() -> Tensor:
    """Where the squares are, as numbers of shape (2, 1, height, width)."""
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[0, :, 8:40, 8:40] = 1
    mask[1, :, 24:60, 20:44] = 1
    return mask


def binary() -> tuple[Tensor, Tensor]:
    """Images and regions."""
    return picture(), region()


def several() -> tuple[Tensor, Tensor]:
    """Images, and a class for each pixel; a border is not labelled."""
    labels = region()[:, 0].long()
    labels[1] *= 2
    labels[:, :2] = 255
    return picture(), labels


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str = CONV,
    **more: Any,
) -> Program:
    """A network that labels pixels."""
    settings: dict[str, Any] = {"lr": 3e-3, "steps": 100, **more}
    traits_of = frozenset(["masked" if batch is several else "dense", *traits.split()])
    library = "segmentation_models_pytorch"
    return Program(f"{library}/{name}", library, model, batch, loss, limit, traits=traits_of, **settings)


def by(criterion: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """A criterion as a loss of model and batch."""
    return lambda model, batch: criterion(model(batch[0]), batch[1])


def dice_and_entropy(model: nn.Module, batch: Any) -> Tensor:
    """The sum that most of its users write."""
    logits = model(batch[0])
    loss: Tensor = losses.DiceLoss("binary")(logits, batch[1]) + F.binary_cross_entropy_with_logits(logits, batch[1])
    return loss


def mask_and_label(model: nn.Module, batch: Any) -> Tensor:
    """Pixels, and the class of the image from the head beside the decoder."""
    masks, label = model(batch["image"])
    pixels: Tensor = losses.DiceLoss("binary")(masks, batch["mask"])
    return pixels + F.cross_entropy(label, batch["label"])


def labelled_images() -> dict[str, Tensor]:
    """Images, regions, and a class of each image."""
    return {"image": picture(), "mask": region(), "label": torch.tensor([0, 1])}


def programs() -> Iterator[Program]:
    """Decoders, then losses on one of them."""
    entropy = by(lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=255))
    yield program(
        "Unet", lambda: smp.Unet(**SMALL, decoder_channels=(32, 16, 16, 8, 8)), binary, dice_and_entropy, 0.04
    )
    yield program(
        "Unet-classes",
        lambda: smp.Unet(**SMALL, decoder_channels=(32, 16, 16, 8, 8), classes=3),
        several,
        entropy,
        0.01,
        f"{CONV} labels",
    )
    yield program(
        "Unet-aux",
        lambda: smp.Unet(
            **SMALL, decoder_channels=(32, 16, 16, 8, 8), aux_params={"classes": 2, "dropout": None, "activation": None}
        ),
        labelled_images,
        mask_and_label,
        0.02,
        f"{CONV} terms dict tuple labels",
    )
    yield from other_decoders()


def other_decoders() -> Iterator[Program]:
    """Other decoders, most with a loss of their own."""
    multiclass = losses.DiceLoss("multiclass", ignore_index=255)
    entropy = by(lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=255))
    yield program(
        "UnetPlusPlus",
        lambda: smp.UnetPlusPlus(**SMALL, decoder_channels=(32, 16, 16, 8, 8)),
        binary,
        by(losses.FocalLoss("binary")),
        0.002,
    )
    yield program(
        "FPN",
        lambda: smp.FPN(**SMALL, decoder_pyramid_channels=32, decoder_segmentation_channels=32, decoder_dropout=0.2),
        binary,
        by(losses.JaccardLoss("binary")),
        0.15,
        f"{CONV} dropout",
        given={"stochastic": True},
    )
    yield program("Linknet", lambda: smp.Linknet(**SMALL, classes=3), several, by(multiclass), 0.03, f"{CONV} labels")
    yield program(
        "PSPNet",
        lambda: smp.PSPNet(**SMALL, psp_out_channels=32, psp_dropout=0.0, upsampling=8),
        binary,
        by(losses.TverskyLoss("binary")),
        0.12,
        given={"unused": ["encoder.model.blocks.[2-5].*"]},  # three of five stages are read
    )
    yield program(
        "DeepLabV3Plus",
        lambda: smp.DeepLabV3Plus(encoder_name="resnet18", encoder_weights=None, decoder_channels=16, classes=3),
        several,
        entropy,
        0.2,
        f"{CONV} labels dropout",
        given={"stochastic": True},
        steps=60,
    )
    yield program(
        "Segformer",
        lambda: smp.Segformer(encoder_name="mit_b0", encoder_weights=None, decoder_segmentation_channels=32),
        binary,
        by(losses.LovaszLoss("binary")),
        0.11,
        f"{CONV} attention",
        lr=1e-3,
        given={"stochastic": True},
    )
