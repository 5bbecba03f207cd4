# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes with two views: scale, units, axes, alignment, sky, confidence.

The plain call sees a batch and a model, and no data set on disk: what a config would say of conventions and folders
is not there, so each mistake is made in the batch, the model or the loss.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gallery.case import breaking, silent
from benchmarks.gallery.families import TwoView, confidence_terms, two_view_terms
from benchmarks.gallery.scene import scene_batch
from benchmarks.zoo.case import Setup, mlp

Batch = dict[str, Any]


def with_keys(h: Setup, **changed: Tensor) -> Setup:
    """Other values for some keys of the batch."""
    return replace(h, data={**h.data, **changed})


class DeepStart(TwoView):
    """Depth starts at five, as a model of streets does."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        predicted = super().forward(images)
        return {**predicted, "depth": 5 * predicted["depth"]}


@silent("two_view", "scale", where="depth is five times too deep: the loss aligns it by the median first")
def aligned_before_the_loss(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        predicted, mask = model(batch["images"]), batch["point_masks"]
        factor = batch["depths"][mask].median() / predicted["depth"][..., 0][mask].median()
        return two_view_terms({**predicted, "depth": predicted["depth"] * factor}, batch)

    return replace(h, model=DeepStart(), loss=loss)


class UnitMean(TwoView):
    """Divides its depth by the mean over the sample."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        predicted = super().forward(images)
        depth = predicted["depth"]
        return {**predicted, "depth": depth / depth.mean((1, 2, 3), keepdim=True)}


@breaking("two_view", "scale", "units", "output-range", where="depths in units of the baseline, predictions of mean 1")
def scaled_by_its_own_mean(h: Setup) -> Setup:
    baseline = h.data["extrinsics"][0, 1, :, 3].norm()
    extrinsics = h.data["extrinsics"].clone()
    extrinsics[..., 3] /= baseline
    return replace(with_keys(h, depths=h.data["depths"] / baseline, extrinsics=extrinsics), model=UnitMean())


class LogarithmAsDepth(TwoView):
    def forward(self, images: Tensor) -> dict[str, Any]:
        predicted = super().forward(images)
        return {**predicted, "depth": 0.05 * torch.tanh(predicted["depth"])}


@breaking("two_view_confidence", "scale", "output-range", "output-scale", where="depth is scaled by 0.05 after a tanh")
def depth_scaled_after_tanh(h: Setup) -> Setup:
    return replace(h, model=LogarithmAsDepth())


@breaking("two_view", "units", "target-scale", where="depths in millimetres, cameras normalised")
def depth_in_millimetres(h: Setup) -> Setup:
    return with_keys(h, depths=1000 * scene_batch(normalised=False)["depths"])


@silent("two_view", "units", where="extrinsics in metres, depths normalised")
def cameras_in_metres(h: Setup) -> Setup:
    return with_keys(h, extrinsics=scene_batch(normalised=False)["extrinsics"])


@silent("two_view_confidence", "units", where="extrinsics in centimetres, depths normalised")
def cameras_in_centimetres(h: Setup) -> Setup:
    extrinsics = scene_batch(normalised=False)["extrinsics"].clone()
    extrinsics[..., 3] *= 100
    return with_keys(h, extrinsics=extrinsics)


def inverted(extrinsics: Tensor) -> Tensor:
    """cam2world of world2cam, and back."""
    rotation = extrinsics[..., :3].transpose(-1, -2)
    return torch.cat([rotation, -rotation @ extrinsics[..., 3:]], dim=-1)


@silent("two_view", "camera-convention", where="extrinsics are cam2world, under the key of world2cam")
def cam2world_for_world2cam(h: Setup) -> Setup:
    return with_keys(h, extrinsics=inverted(h.data["extrinsics"]))


@silent("two_view", "camera-convention", where="extrinsics of the second view in OpenGL axes: y up, z backwards")
def opengl_for_opencv(h: Setup) -> Setup:
    extrinsics = h.data["extrinsics"].clone()
    extrinsics[:, 1] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ extrinsics[:, 1]
    return with_keys(h, extrinsics=extrinsics)


@silent("two_view_confidence", "camera-convention", where="extrinsics: the rotation is transposed, the shift is not")
def rotation_transposed(h: Setup) -> Setup:
    extrinsics = h.data["extrinsics"]
    shift = -extrinsics[..., 3:]
    return with_keys(h, extrinsics=torch.cat([extrinsics[..., :3].transpose(-1, -2), shift], dim=-1))


@silent("two_view", "misalignment", where="depths and point_masks are flipped left to right, images are not")
def depth_flipped(h: Setup) -> Setup:
    return with_keys(h, depths=h.data["depths"].flip(-1), point_masks=h.data["point_masks"].flip(-1))


@silent("two_view_confidence", "misalignment", where="intrinsics of twice the image size: resized without them")
def intrinsics_of_another_size(h: Setup) -> Setup:
    intrinsics = h.data["intrinsics"].clone()
    intrinsics[..., :2, :] *= 2
    return with_keys(h, intrinsics=intrinsics)


@silent("two_view_confidence", "misalignment", where="images are cropped by four pixels at the left, depths are not")
def image_cropped_alone(h: Setup) -> Setup:
    return with_keys(h, images=h.data["images"].roll(-4, dims=-1))


@silent("two_view", "sky", "target-mismatch", where="point_masks is true everywhere: the sky counts with depth 0")
def sky_counts_with_zero(h: Setup) -> Setup:
    return with_keys(h, point_masks=torch.ones_like(h.data["point_masks"]))


@breaking("two_view", "sky", "target-scale", where="the sky carries 65.535 m, the largest value of the file, unmasked")
def sky_with_the_largest_value(h: Setup) -> Setup:
    depths = torch.where(h.data["point_masks"], h.data["depths"], 65.535)
    return with_keys(h, depths=depths, point_masks=depths > 0)


@silent(
    "two_view_confidence", "sky", where="the class left out is the ground, one label off the sky, which has depth 1.2"
)
def label_off_by_one(h: Setup) -> Setup:
    rows = torch.arange(h.data["depths"].shape[-2])[:, None].expand(h.data["depths"].shape[-2:])
    depths = torch.where(h.data["point_masks"], h.data["depths"], 1.2)
    return with_keys(h, depths=depths, point_masks=~(h.data["point_masks"] & (rows > 16)))


class UnboundedConfidence(TwoView):
    def confidence(self, raw: Tensor) -> Tensor:
        return 1 + raw.clamp(max=40).exp()


class SeparateConfidence(UnboundedConfidence):
    """A confidence head of its own, which does not train the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.confidence_head = mlp(128, 192, 36, activation=nn.GELU)

    def forward(self, images: Tensor) -> dict[str, Any]:
        raw = self.unpatch(self.confidence_head(self.tokens(images).detach()))
        return {**super().forward(images), "depth_conf": self.confidence(raw)}


@silent(
    "two_view_confidence", "confidence-runaway", "no-gradient", where="the error is detached: log c alone is minimised"
)
def error_detached(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        predicted, mask = model(batch["images"]), batch["point_masks"]
        error = (predicted["depth"][..., 0] - batch["depths"]).abs()[mask].detach()
        confidence = predicted["depth_conf"][mask]
        weighted = (error - 0.05 * confidence.log()).mean()
        return confidence_terms(predicted, batch, weighted, error, confidence)

    return replace(h, model=SeparateConfidence(), loss=loss)


@silent("two_view_confidence", "confidence-runaway", "loss-sign", where="error / c - 0.05 log c: both terms raise c")
def divided_by_confidence(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        predicted, mask = model(batch["images"]), batch["point_masks"]
        error = (predicted["depth"][..., 0] - batch["depths"]).abs()[mask]
        confidence = predicted["depth_conf"][mask]
        weighted = (error / confidence - 0.05 * confidence.log()).mean()
        return confidence_terms(predicted, batch, weighted, error, confidence)

    return replace(h, model=UnboundedConfidence(), loss=loss)
