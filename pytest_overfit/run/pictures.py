"""The frames of a run as arrays for whoever draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_overfit.run.metrics import depth_of


@dataclass(frozen=True)
class FramePicture:
    """One frame: `image` (H, W, 3) uint8 RGB; depths (H, W) normalised, 0 = invalid; `confidence` (H, W).

    `predicted` and `confidence` are None where the model does not give them.
    """

    frame: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.float32] | None
    confidence: npt.NDArray[np.float32] | None


def take_pictures(predictions: Any, batch: Mapping[str, Any]) -> tuple[FramePicture, ...]:
    """The frames of the first sample, with what the model says of them."""
    given = predictions if isinstance(predictions, Mapping) else {}
    depth, confidence = depth_of(given), given.get("depth_conf")
    return tuple(
        FramePicture(
            frame=frame,
            image=(image.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy(),
            truth=batch["depths"][0, frame].float().cpu().numpy(),
            valid=batch["point_masks"][0, frame].cpu().numpy(),
            predicted=None if depth is None else depth[0, frame].detach().float().cpu().numpy(),
            confidence=None if confidence is None else confidence[0, frame].detach().float().cpu().numpy(),
        )
        for frame, image in enumerate(batch["images"][0])
    )
