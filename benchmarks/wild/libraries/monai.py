"""monai: volumes and slices, labelled, restored, registered and generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai import losses
from monai.networks import blocks, nets
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, uniform


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A network of medical images."""
    settings: dict[str, Any] = {"lr": 1e-2, "steps": 200, **more}
    return Program(f"monai/{name}", "monai", model, batch, loss, limit, traits=frozenset(traits.split()), **settings)


def volume(size: int = 16) -> tuple[Tensor, Tensor]:
    """Volumes with a bright cube in each, and where it is."""
    image, mask = 0.3 * normal(2, 1, size, size, size), torch.zeros(2, 1, size, size, size)
    mask[0, :, 3:9, 3:9, 3:9], mask[1, :, 7:14, 5:12, 6:13] = 1, 1
    return image + mask, mask


def organs(size: int = 16) -> tuple[Tensor, Tensor]:
    """Volumes, and for each voxel background or one of two organs."""
    image, mask = volume(size)
    labels = mask.clone()
    labels[1] *= 2
    image[1] -= 2 * mask[1]
    return image, labels


def slices() -> dict[str, Tensor]:
    """Images of 32 pixels, a region in each, and its class."""
    image, mask = 0.3 * normal(4, 1, 32, 32), torch.zeros(4, 1, 32, 32)
    for index in range(4):
        mask[index, :, 4 + 4 * index : 14 + 4 * index, 6:20] = 1
    return {"image": image + mask, "label": mask}


def by(criterion: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """A criterion of logits and labels as a loss of model and batch."""
    return lambda model, batch: criterion(model(batch[0]), batch[1])


def by_key(criterion: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """The same for the dictionaries that monai's transforms make."""
    return lambda model, batch: criterion(model(batch["image"]), batch["label"])


def deep_supervision(model: nn.Module, batch: Any) -> Tensor:
    """Every level's output beside the labels at its size."""
    loss: Tensor = losses.DeepSupervisionLoss(losses.DiceCELoss(sigmoid=True))(
        list(model(batch[0]).unbind(1)), batch[1]
    )
    return loss


def variational(model: nn.Module, batch: Any) -> Tensor:
    """Reconstruction and divergence."""
    restored, mean, log_variance, _ = model(batch)
    divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).mean()
    return F.mse_loss(restored, batch) + 0.01 * divergence


class Registered(nn.Module):
    """A network that tells how far each pixel moves, and the image as it moves."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nets.LocalNet(
            spatial_dims=2,
            in_channels=2,
            out_channels=2,
            num_channel_initial=8,
            extract_levels=(0, 1),
            out_kernel_initializer="zeros",
            out_activation=None,
        )
        self.warp = blocks.Warp("bilinear", "border")

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The moved image, and the displacements."""
        field = self.network(torch.cat([moving, fixed], 1))
        return self.warp(moving, field), field


def pair() -> tuple[Tensor, Tensor]:
    """An image, and the same two pixels further."""
    image = F.interpolate(uniform(1, 1, 6, 6), (32, 32), mode="bicubic")
    return image, image.roll((1, 2), (2, 3))


def registration(model: nn.Module, batch: Any) -> Tensor:
    """How alike they are, and how smoothly pixels move."""
    moved, field = model(*batch)
    loss: Tensor = F.mse_loss(moved, batch[1]) + 1e-4 * losses.BendingEnergyLoss()(field)
    return loss


def smooth() -> Tensor:
    """Images of 16 pixels."""
    return F.interpolate(uniform(4, 1, 4, 4), (16, 16), mode="bilinear")


def codes(model: nn.Module, batch: Any) -> Tensor:
    """Reconstruction, and the loss of the codebook."""
    restored, quantisation = model(batch)
    return F.l1_loss(restored, batch) + quantisation


def programs() -> Iterator[Program]:
    """By task."""
    yield from labelled()
    yield from others()


def labelled() -> Iterator[Program]:
    """Voxels and pixels with classes."""
    conv = "conv norm residual dense"
    dice_entropy = losses.DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    yield program(
        "UNet",
        lambda: nets.UNet(3, 1, 3, channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
        organs,
        by(dice_entropy),
        0.02,
        f"{conv} labels volume",
    )
    yield program(
        "BasicUNet",
        lambda: nets.BasicUNet(2, 1, 1, features=(8, 8, 16, 16, 16, 8)),
        slices,
        by_key(losses.DiceLoss(sigmoid=True)),
        0.02,
        f"{conv} image dict",
    )
    yield program(
        "DynUNet",
        lambda: nets.DynUNet(
            3, 1, 1, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 16],
            deep_supervision=True, deep_supr_num=1,
        ),
        volume,
        deep_supervision,
        0.3,
        f"{conv} terms volume",
    )  # fmt: skip
    yield program(
        "SegResNet",
        lambda: nets.SegResNet(
            spatial_dims=2,
            init_filters=8,
            in_channels=1,
            out_channels=1,
            blocks_down=(1, 1),
            blocks_up=(1,),
            dropout_prob=0.1,
        ),
        slices,
        by_key(losses.GeneralizedDiceLoss(sigmoid=True)),
        0.02,
        f"{conv} image dict dropout",
        given={"stochastic": True},
    )
    yield program(
        "AttentionUnet",
        lambda: nets.AttentionUnet(2, 1, 1, channels=(8, 16), strides=(2,)),
        slices,
        by_key(losses.TverskyLoss(sigmoid=True)),
        0.02,
        f"{conv} image dict attention batchnorm",
    )


def others() -> Iterator[Program]:
    """Classes, images that are rebuilt, and images that are moved."""
    yield program(
        "DenseNet",
        lambda: nets.DenseNet(3, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2)),
        lambda: (normal(6, 1, 12, 12, 12), classes(6, 3)),
        cross_entropy,
        0.03,
        "conv norm batchnorm labels volume",
        lr=3e-3,
    )
    yield program(
        "ViT",
        lambda: nets.ViT(
            1, (16, 16), (4, 4), hidden_size=32, mlp_dim=64, num_layers=2, num_heads=2, classification=True,
            num_classes=3, spatial_dims=2, post_activation="",
        ),
        lambda: (normal(6, 1, 16, 16), classes(6, 3)),
        lambda model, batch: F.cross_entropy(model(batch[0])[0], batch[1]),
        0.015,
        "image attention norm residual labels tuple",
        lr=1e-3,
        given={"unused": ["blocks.*.norm_cross_attn.*"]},  # there is nothing to attend to across
    )  # fmt: skip
    yield program(
        "VarAutoEncoder",
        lambda: nets.VarAutoEncoder(2, (1, 16, 16), 1, latent_size=8, channels=(8, 16), strides=(2, 2)),
        smooth,
        variational,
        0.025,
        "image conv norm regression terms stochastic tuple",
        given={"stochastic": True},
    )
    yield program(
        "VQVAE",
        lambda: nets.VQVAE(
            2, 1, 1, channels=(8, 16), num_res_channels=(8, 16), num_res_layers=1,
            downsample_parameters=((2, 4, 1, 1),) * 2,
            upsample_parameters=((2, 4, 1, 1, 0),) * 2, num_embeddings=32, embedding_dim=8,
        ),
        smooth,
        codes,
        0.15,
        "image conv residual regression terms tuple",
    )  # fmt: skip
    yield program(
        "LocalNet", Registered, pair, registration, 0.015, "image conv norm batchnorm regression terms tuple", lr=3e-3
    )
    yield program(
        "Regressor",
        lambda: nets.Regressor((1, 16, 16), (2,), channels=(8, 16), strides=(2, 2)),
        lambda: (normal(6, 1, 16, 16), normal(6, 2, seed=1)),
        lambda model, batch: F.smooth_l1_loss(model(batch[0]), batch[1]),
        0.01,
        "image conv norm regression",
    )
