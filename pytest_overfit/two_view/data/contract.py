"""What a two-view batch must look like for this plugin, whoever's loader it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.batch import named_tensors

DUMMY = (
    "images and depths are all zero: the dummy batch that a loader hands out after a failed load; "
    "every loss is exactly 0 on it"
)
REQUIRED = ("images", "depths", "extrinsics", "intrinsics", "world_points", "point_masks")
MIN_POINTS = 100  # the camera loss needs more valid points than this in the first frame
ORTHONORMAL = 1e-3  # how far R R^T may be from the identity


def batch_problems(batch: Mapping[str, Any], *, height: int, width: int, frames: int = 2) -> tuple[str, ...]:
    """What is wrong with a batch, one line each; empty where all is well.

    Example:
        >>> batch_problems({}, height=476, width=518)
        ('missing: images, depths, extrinsics, intrinsics, world_points, point_masks',)

    Args:
        batch: `images` (B, S, 3, H, W) float32 in 0..1; `depths` (B, S, H, W), 0 = invalid; `extrinsics` (B, S, 3, 4)
            world2cam, OpenCV axes; `intrinsics` (B, S, 3, 3) pixels; `world_points`, and `cam_points` where given,
            (B, S, H, W, 3), all float32, in metres or normalised; `point_masks` (B, S, H, W) bool. B is free, >= 1.
        height, width: H and W in pixels.
        frames: S.

    Looks at keys, shapes and dtypes; then, where those are right, at the numbers: the all-zero batch that the original
    loader hands out after a failed load, non-finite values, images outside 0..1 or of one colour, frames without valid
    depth, masks that mark invalid depth, negative depth, extrinsics that are no rotation, focal lengths.
    """
    missing = [key for key in REQUIRED if key not in batch]
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += _shape_problems(batch, height=height, width=width, frames=frames)
    problems += _nonfinite_problems(batch)
    if problems:
        return tuple(problems)  # what follows would only repeat them
    tensors = {key: batch[key].detach() for key in REQUIRED}
    if not tensors["images"].any() and not tensors["depths"].any():
        return (DUMMY,)
    return (*_image_problems(tensors["images"]), *_depth_problems(tensors), *_camera_problems(tensors))


def _shape_problems(batch: Mapping[str, Any], *, height: int, width: int, frames: int) -> Iterator[str]:
    tails = {
        "images": (3, height, width),
        "depths": (height, width),
        "extrinsics": (3, 4),
        "intrinsics": (3, 3),
        "cam_points": (height, width, 3),
        "world_points": (height, width, 3),
        "point_masks": (height, width),
    }
    images = batch.get("images")
    samples = images.shape[0] if isinstance(images, Tensor) and images.dim() == 5 and images.shape[0] else 1
    for key in (key for key in tails if key in batch):
        value, dtype = batch[key], torch.bool if key == "point_masks" else torch.float32
        shape = (samples, frames, *tails[key])
        if not isinstance(value, Tensor):
            yield f"{key}: {type(value).__name__}, expected a tensor {shape}"
        elif tuple(value.shape) != shape:
            yield f"{key}: shape {tuple(value.shape)}, expected {shape}"
        elif value.dtype != dtype:
            yield f"{key}: {value.dtype}, expected {dtype}"


def _nonfinite_problems(batch: Mapping[str, Any]) -> Iterator[str]:
    for key, tensor in named_tensors(batch):
        if tensor.is_nested or tensor.layout is not torch.strided or not tensor.is_floating_point():
            continue  # a team's own extra keys may be anything
        bad = ~tensor.detach().isfinite()
        if bad.any():
            first = tuple(bad.nonzero()[0].tolist())
            yield f"{key}: {int(bad.sum())} of {bad.numel()} are not finite, the first at {first}: {tensor[first]:g}"


def _image_problems(images: Tensor) -> Iterator[str]:
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        hint = ""
        if high > 2:
            hint = ": divide by 255"
        elif low < 0:
            hint = ": mean and deviation are the model's business"
        yield f"images: {low:g} .. {high:g}, expected 0 .. 1{hint}"
    flat = images.flatten(2)
    for b, s in (flat.amax(-1) == flat.amin(-1)).nonzero().tolist():
        yield f"images: sample {b} frame {s} is one colour, {float(flat[b, s, 0]):g}"


def _depth_problems(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    depths, masks = tensors["depths"], tensors["point_masks"]
    counts = masks.flatten(2).sum(-1)
    for b, row in enumerate(counts.tolist()):
        for s, count in enumerate(row):
            if count == 0:
                yield f"point_masks: sample {b} frame {s} has no valid depth"
            elif s == 0 and count <= MIN_POINTS:
                yield (
                    f"point_masks: sample {b} frame 0 has {count} valid points, expected more than {MIN_POINTS}: "
                    "with fewer the camera loss is exactly 0"
                )
    unmeasured = int((masks & (depths <= 0)).sum())
    if unmeasured:
        yield f"point_masks: {unmeasured} valid pixels have no depth above 0"
    if bool((depths < 0).any()):
        yield f"depths: {int((depths < 0).sum())} are below 0, the lowest {float(depths.min()):g}; 0 marks invalid"


def _camera_problems(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    rotation, K = tensors["extrinsics"][..., :3].double(), tensors["intrinsics"]
    error = (rotation @ rotation.transpose(-1, -2) - torch.eye(3, dtype=rotation.dtype, device=rotation.device)).abs()
    for b, s in ((error.amax((-1, -2)) > ORTHONORMAL) | (torch.linalg.det(rotation) < 0)).nonzero().tolist():
        yield (
            f"extrinsics: sample {b} frame {s} is no rotation: R R^T is off the identity by "
            f"{float(error[b, s].max()):g}, determinant {float(torch.linalg.det(rotation[b, s])):g}"
        )
    for b, s in ((K[..., 0, 0] <= 0) | (K[..., 1, 1] <= 0)).nonzero().tolist():
        yield f"intrinsics: sample {b} frame {s} has focal lengths {float(K[b, s, 0, 0]):g}, {float(K[b, s, 1, 1]):g}"
