"""Images: classes, pixels, boxes, depth, and hidden patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers as t
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers.parts import DROPOUT, program
from benchmarks.wild.parts import classes, normal, uniform

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
VIT = "image attention norm residual"


def labelled() -> dict[str, Tensor]:
    """Images, and the class of each."""
    return {"pixel_values": normal(6, 3, 32, 32), "labels": classes(6, 3)}


def pictures() -> dict[str, Tensor]:
    """Images alone."""
    return {"pixel_values": F.interpolate(uniform(4, 3, 4, 4), (32, 32), mode="bilinear")}


def regions() -> dict[str, Tensor]:
    """Images with a bright square, and a class for each pixel; a border counts for nothing."""
    image, labels = 0.3 * normal(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long)
    for index in range(2):
        image[index, :, 8:40, 16 + 8 * index : 48] += 1.5
        labels[index, 8:40, 16 + 8 * index : 48] = index + 1
    labels[:, :2] = 255
    return {"pixel_values": image, "labels": labels}


def boxes() -> dict[str, Any]:
    """Images, and for each a list of boxes with classes."""
    image = 0.3 * normal(2, 3, 64, 64)
    image[0, :, 8:32, 8:32] += 2
    image[1, :, 30:60, 10:40] -= 2
    first = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.31, 0.31, 0.375, 0.375]])}
    second = {
        "class_labels": torch.tensor([0, 2]),
        "boxes": torch.tensor([[0.39, 0.70, 0.47, 0.47], [0.5, 0.5, 0.9, 0.9]]),
    }
    return {"pixel_values": image, "labels": [first, second]}


def depths() -> dict[str, Tensor]:
    """Images, and the depth of each pixel."""
    image = F.interpolate(uniform(2, 3, 4, 4), (32, 32), mode="bilinear")
    return {"pixel_values": image, "depth": 1 + 2 * image.mean(1)}


def depth_error(model: nn.Module, batch: Any) -> Tensor:
    """The error of the logarithm, less a part of its mean: scale-invariant."""
    told = model(batch["pixel_values"]).predicted_depth
    told = F.interpolate(told[:, None], batch["depth"].shape[-2:], mode="bilinear")[:, 0]
    error = (told.abs() + 1e-3).log() - batch["depth"].log()
    return error.pow(2).mean() - 0.5 * error.mean().pow(2)


def clips() -> dict[str, Tensor]:
    """Short videos, and the class of each."""
    return {"pixel_values": normal(4, 4, 3, 16, 16), "labels": classes(4, 3)}


def hidden_tubes() -> dict[str, Tensor]:
    """Short videos, and which patches are hidden."""
    video = F.interpolate(uniform(2, 3, 4, 4), (16, 16), mode="bilinear")[:, None].repeat(1, 4, 1, 1, 1)
    return {"pixel_values": video, "bool_masked_pos": (torch.arange(8) % 2 == 0).expand(2, 8)}


def programs() -> Iterator[Program]:
    """By what is told of an image."""
    yield from classifiers()
    yield from dense()
    yield from patches()


def classifiers() -> Iterator[Program]:
    """One class for each image."""
    three = {**SMALL, "num_labels": 3}
    yield program(
        "ViTForImageClassification",
        lambda: t.ViTForImageClassification(t.ViTConfig(**three)),
        labelled,
        0.05,
        f"{VIT} labels",
    )
    yield program(
        "Dinov2ForImageClassification",
        lambda: t.Dinov2ForImageClassification(t.Dinov2Config(**three, layerscale_value=1e-5)),
        labelled,
        0.01,
        f"{VIT} labels",
        given={"unused": ["dinov2.embeddings.mask_token"]},
    )
    yield program(
        "SwinForImageClassification",
        lambda: t.SwinForImageClassification(
            t.SwinConfig(
                image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=3
            )
        ),
        labelled,
        0.05,
        f"{VIT} dropout labels",
        given=DROPOUT,
    )
    yield program(
        "ConvNextV2ForImageClassification",
        lambda: t.ConvNextV2ForImageClassification(
            t.ConvNextV2Config(depths=[1, 1], hidden_sizes=[16, 32], num_stages=2, image_size=32, num_labels=3)
        ),
        labelled,
        0.05,
        "image conv norm residual labels",
    )
    yield program(
        "ResNetForImageClassification",
        lambda: t.ResNetForImageClassification(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
        ),
        labelled,
        0.01,
        "image conv norm batchnorm residual labels",
        lr=3e-3,
    )
    yield program(
        "VideoMAEForVideoClassification",
        lambda: t.VideoMAEForVideoClassification(
            t.VideoMAEConfig(**{**three, "image_size": 16}, num_frames=4, tubelet_size=2)
        ),
        clips,
        0.05,
        "video attention norm residual labels",
    )


def dense() -> Iterator[Program]:
    """Pixels and boxes, then depth."""
    yield program(
        "SegformerForSemanticSegmentation",
        lambda: t.SegformerForSemanticSegmentation(
            t.SegformerConfig(
                num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 32],
                num_attention_heads=[1, 2], patch_sizes=[7, 3], strides=[4, 2],
                mlp_ratios=[2, 2], decoder_hidden_size=32, num_labels=3,
            )
        ),
        regions,
        0.05,
        f"{VIT} conv batchnorm dropout labels masked",
        given=DROPOUT,
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "DetrForObjectDetection",
        detr,
        boxes,
        4.0,
        f"{VIT} conv dropout terms list_of_targets",
        given={**DROPOUT, "unused": ["model.decoder.layers.0.self_attn.v_proj.weight"]},  # its input is zeros
        steps=300,
    )
    yield program(
        "YolosForObjectDetection",
        lambda: t.YolosForObjectDetection(
            t.YolosConfig(**{**SMALL, "image_size": [64, 64]}, num_detection_tokens=6, num_labels=3)
        ),
        boxes,
        0.3,
        f"{VIT} terms list_of_targets",
        steps=300,
        lr=3e-3,
    )
    yield from depth_and_detail()


def depth_and_detail() -> Iterator[Program]:
    """Depth, and pictures of a higher resolution."""
    yield program(
        "DPTForDepthEstimation",
        lambda: t.DPTForDepthEstimation(
            t.DPTConfig(
                **{**SMALL, "num_hidden_layers": 4}, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
                fusion_hidden_size=8, head_in_index=-1,
            )
        ),
        depths,
        0.03,
        f"{VIT} conv regression dense",
        loss=depth_error,
        given={"unused": ["dpt.layernorm.*", "neck.fusion_stage.layers.0.residual_layer1.*"]},  # the library's spares
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "Swin2SRForImageSuperResolution",
        lambda: t.Swin2SRForImageSuperResolution(
            t.Swin2SRConfig(
                image_size=16, patch_size=1, embed_dim=16, depths=[2], num_heads=[2], window_size=4, upscale=2
            )
        ),
        lambda: {"pixel_values": small_and_large()[0], "labels": small_and_large()[1]},
        0.05,
        f"{VIT} conv regression dense",
        loss=lambda model, batch: F.l1_loss(model(batch["pixel_values"]).reconstruction, batch["labels"]),
        lr=3e-3,
        steps=100,
    )


def small_and_large() -> tuple[Tensor, Tensor]:
    """Images of 16 and of 32 pixels."""
    large = F.interpolate(uniform(2, 3, 6, 6), (32, 32), mode="bicubic")
    return F.avg_pool2d(large, 2), large


def detr() -> nn.Module:
    """A DETR on a small ResNet."""
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    return t.DetrForObjectDetection(
        t.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
            encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=5, num_labels=3, auxiliary_loss=True,
        )
    )  # fmt: skip


def patches() -> Iterator[Program]:
    """Patches that are hidden are to be told."""
    yield program(
        "ViTMAEForPreTraining",
        lambda: t.ViTMAEForPreTraining(
            t.ViTMAEConfig(
                **SMALL, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
                decoder_intermediate_size=64, mask_ratio=0.5,
            )
        ),
        lambda: {"pixel_values": uniform(4, 3, 1, 1).repeat(1, 1, 32, 32)},
        0.02,
        f"{VIT} regression stochastic",
        given=DROPOUT,
        steps=300,
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "ViTForMaskedImageModeling",
        lambda: t.ViTForMaskedImageModeling(t.ViTConfig(**SMALL, encoder_stride=8)),
        lambda: {**pictures(), "bool_masked_pos": torch.arange(16).expand(4, 16) % 2 == 0},
        0.1,
        f"{VIT} regression masked",
        steps=300,
    )
    yield program(
        "VideoMAEForPreTraining",
        lambda: t.VideoMAEForPreTraining(
            t.VideoMAEConfig(
                **{**SMALL, "image_size": 16}, num_frames=4, tubelet_size=2, decoder_hidden_size=32,
                decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=64,
                norm_pix_loss=False,
            )
        ),
        hidden_tubes,
        0.01,
        "video attention norm residual regression masked",
    )  # fmt: skip
