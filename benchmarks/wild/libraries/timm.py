"""timm: image classifiers of many designs, with the losses that come with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from timm import loss as losses
from timm.models import beit, cait, convnext, deit, eva, mlp_mixer, resnet, swin_transformer, vision_transformer, xcit
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal, uniform

COUNT = 4  # classes


def images(size: int = 32, count: int = 8) -> tuple[Tensor, Tensor]:
    """Images in NCHW, and the class of each."""
    return normal(count, 3, size, size), classes(count, COUNT)


def program(
    name: str,
    model: Callable[[], nn.Module],
    traits: str,
    batch: Callable[[], Any] = images,
    loss: Callable[[nn.Module, Any], Tensor] = cross_entropy,
    limit: float = 0.05,
    **more: Any,
) -> Program:
    """A classifier of images."""
    return Program(
        f"timm/{name}", "timm", model, batch, loss, limit, traits=frozenset(["image", *traits.split()]), **more
    )


def created(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model by its name in timm's registry."""
    return lambda: timm.create_model(name, num_classes=COUNT, **options)


def small_vit(**options: Any) -> nn.Module:
    """A VisionTransformer of two blocks."""
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": COUNT}
    return vision_transformer.VisionTransformer(**{**size, **options})


def distilled_vit() -> nn.Module:
    """A DeiT whose two heads are trained apart."""
    model = deit.VisionTransformerDistilled(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=COUNT
    )
    model.set_distilled_training(True)
    return model


def distilled(model: nn.Module, batch: Any) -> Tensor:
    """DeiT with hard distillation: the second head learns the teacher's classes."""
    image, labels, teacher = batch
    head, head_dist = model(image)
    return (F.cross_entropy(head, labels) + F.cross_entropy(head_dist, teacher)) / 2


def smoothed(model: nn.Module, batch: Any) -> Tensor:
    """Label smoothing of a tenth: the least loss is the entropy of the smoothed labels, 0.35 for four classes."""
    loss: Tensor = losses.LabelSmoothingCrossEntropy(0.1)(model(batch[0]), batch[1])
    return loss


def mixed_up() -> tuple[Tensor, Tensor]:
    """Images mixed in pairs, and a distribution over classes for each."""
    image, labels = images()
    share = uniform(8, 1, seed=1)
    one_hot = F.one_hot(labels, COUNT).float()
    mixed = share[:, :, None, None] * image + (1 - share)[:, :, None, None] * image.flip(0)
    return mixed, share * one_hot + (1 - share) * one_hot.flip(0)


def soft_targets(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy with distributions as targets, less their entropy."""
    image, target = batch
    entropy = torch.special.entr(target).sum(-1).mean()
    loss: Tensor = losses.SoftTargetCrossEntropy()(model(image), target)
    return loss - entropy


def multi_label(model: nn.Module, batch: Any) -> Tensor:
    """The asymmetric loss of images that show several things."""
    loss: Tensor = losses.AsymmetricLossMultiLabel()(model(batch["image"]), batch["labels"])
    return loss


def several_labels() -> dict[str, Tensor]:
    """Images, and for each whether it shows each of six things."""
    return {"image": normal(8, 3, 32, 32), "labels": integers(0, 2, 8, 6, seed=1).float()}


def binary(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross entropy per class, as in *ResNet strikes back*."""
    loss: Tensor = losses.BinaryCrossEntropy(smoothing=0.0)(model(batch[0]), batch[1])
    return loss


def feature_regression(model: nn.Module, batch: Any) -> Tensor:
    """Every level of a feature pyramid learns the image at its own size."""
    image, target = batch
    total = image.new_zeros(())
    for level in model(image):
        total = total + F.mse_loss(level.mean(1, keepdim=True), F.adaptive_avg_pool2d(target, level.shape[-2:]))
    return total


def programs() -> Iterator[Program]:
    """Transformers, convolutions, mixers, and what lies between."""
    yield from transformers()
    yield from convolutions()
    yield from mixers_and_hybrids()
    yield from other_losses()


def transformers() -> Iterator[Program]:
    """Vision transformers: plain, with distillation, layer scale, relative positions, windows and rotary positions."""
    vit = "attention norm residual labels"
    yield program("VisionTransformer", small_vit, vit)
    yield program(
        "VisionTransformer-dropout",
        lambda: small_vit(drop_rate=0.1, drop_path_rate=0.1, global_pool="avg"),
        f"{vit} dropout",
        limit=0.1,
        given={"stochastic": True},
    )
    yield program(
        "VisionTransformer-registers",
        lambda: small_vit(reg_tokens=4, class_token=False, global_pool="map"),
        vit,
        limit=0.01,
    )
    yield program(
        "VisionTransformerDistilled",
        distilled_vit,
        f"{vit} terms tuple",
        batch=lambda: (*images(), classes(8, COUNT).roll(1)),
        loss=distilled,
    )
    yield program(
        "Cait",
        lambda: cait.Cait(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=COUNT),
        vit,
        lr=3e-3,
        limit=0.01,
    )
    yield program(
        "Beit",
        lambda: beit.Beit(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=COUNT, use_rel_pos_bias=True,
            init_values=0.1,
        ),
        vit,
    )  # fmt: skip
    yield program(
        "Eva",
        lambda: eva.Eva(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=COUNT, use_rot_pos_emb=True,
            swiglu_mlp=True,
        ),
        vit,
    )  # fmt: skip
    yield program(
        "SwinTransformer",
        lambda: swin_transformer.SwinTransformer(
            img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=COUNT
        ),
        vit,
    )
    yield program(
        "Xcit",
        lambda: xcit.Xcit(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=COUNT),
        f"{vit} batchnorm conv",
    )
    yield program("NaFlexVit", created("test_vit3"), vit, batch=lambda: images(160, 4), steps=60, limit=0.01)


def convolutions() -> Iterator[Program]:
    """Convolutional networks with batch, layer, group and no norms."""
    conv = "conv norm residual labels"
    yield program(
        "ResNet",
        lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=COUNT, channels=(8, 16, 32, 64)),
        f"{conv} batchnorm",
        steps=100,
    )
    yield program(
        "ResNet-bottleneck",
        lambda: resnet.ResNet(
            resnet.Bottleneck, [1, 1, 1, 1], num_classes=COUNT, channels=(8, 8, 16, 16), stem_type="deep",
            avg_down=True,
            block_args={"attn_layer": "se"}, zero_init_last=True,
        ),
        f"{conv} batchnorm",
        steps=100,
    )  # fmt: skip
    yield program(
        "ConvNeXt",
        lambda: convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(16, 32, 32, 64), num_classes=COUNT),
        conv,
        batch=lambda: images(64),
        limit=0.02,
    )
    yield program("EfficientNet", created("test_efficientnet"), f"{conv} batchnorm", steps=40, limit=0.01)
    yield program(
        "ByobNet", created("test_byobnet"), f"{conv} batchnorm", batch=lambda: images(64), steps=70, limit=0.01
    )
    yield program(
        "NormFreeNet", created("test_nfnet"), "conv residual labels", batch=lambda: images(64), steps=40, limit=0.01
    )
    yield program("MobileNetV3", created("tf_mobilenetv3_small_minimal_100"), f"{conv} batchnorm", steps=30, limit=0.01)
    yield program("GhostNet", created("ghostnet_050"), f"{conv} batchnorm", steps=30, limit=0.01)
    yield program("MambaOut", created("test_mambaout"), conv, batch=lambda: images(64), steps=100, limit=0.01)


def mixers_and_hybrids() -> Iterator[Program]:
    """Networks of perceptrons, and of convolutions with attention."""
    mixer = {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32, "num_classes": COUNT}
    yield program("MlpMixer", lambda: mlp_mixer.MlpMixer(**mixer), "norm residual labels")
    yield program(
        "MlpMixer-gated",
        lambda: mlp_mixer.MlpMixer(
            **mixer, mlp_ratio=4, block_layer=mlp_mixer.SpatialGatingBlock, mlp_layer=mlp_mixer.GatedMlp
        ),
        "norm residual labels",
    )
    yield program(
        "MlpMixer-resmlp",
        lambda: mlp_mixer.MlpMixer(**mixer, block_layer=mlp_mixer.ResBlock, norm_layer=mlp_mixer.Affine, mlp_ratio=4.0),
        "residual labels",
        limit=0.01,
    )
    yield program(
        "LevitDistilled",
        created("levit_128s", img_size=96),
        "attention conv batchnorm labels",
        batch=lambda: images(96),
        steps=40,
        limit=0.01,
    )
    yield program(
        "EdgeNeXt",
        created("edgenext_xx_small"),
        "attention conv norm residual labels",
        batch=lambda: images(64),
        steps=60,
        limit=0.01,
    )


def other_losses() -> Iterator[Program]:
    """The losses of timm.loss, and features instead of logits."""
    vit = "attention norm residual"
    yield program("LabelSmoothingCrossEntropy", small_vit, f"{vit} labels", loss=smoothed, limit=0.36)
    yield program(
        "SoftTargetCrossEntropy", small_vit, f"{vit} regression", batch=mixed_up, loss=soft_targets, limit=0.02
    )
    yield program(
        "AsymmetricLossMultiLabel",
        lambda: small_vit(num_classes=6),
        f"{vit} dict",
        batch=several_labels,
        loss=multi_label,
        limit=0.1,
    )
    yield program("BinaryCrossEntropy", small_vit, f"{vit} labels", loss=binary, steps=300)
    yield program(
        "FeatureListNet",
        created_features,
        "conv norm batchnorm residual regression terms",
        batch=lambda: (normal(4, 3, 64, 64), uniform(4, 1, 64, 64, seed=1)),
        loss=feature_regression,
        limit=0.005,
    )


def created_features() -> nn.Module:
    """The last three levels of a small ResNet, as a user of timm builds a backbone."""
    return timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3), pretrained=False)
