"""Frames as coloured panels: image, both depths on one scale, the error between them, the confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pytest_overfit.run.pictures import FramePicture

Panel = npt.NDArray[np.uint8]
INVALID = (96, 96, 96)
ERROR_SCALE = 0.1  # normalised units: an error of a tenth of the scene's scale, or more, is the last colour


def panels(picture: FramePicture) -> dict[str, Panel]:
    """Name -> (H, W, 3) uint8 RGB; what the model does not predict is left out.

    Example:
        >>> sorted(panels(picture))
        ['confidence', 'depth_error', 'depth_predicted', 'depth_true', 'image']

    Both depths share one colour scale, the 1st to 99th percentile of the true one. Pixels without true depth are grey,
    except in the predicted depth, which has a value everywhere.
    """
    valid = picture.valid
    low, high = np.percentile(picture.truth[valid], [1, 99]) if valid.any() else (0.0, 1.0)
    drawn = {"image": picture.image, "depth_true": _coloured(picture.truth, low, high, valid)}
    if picture.predicted is not None:
        drawn["depth_predicted"] = _coloured(picture.predicted, low, high)
        error = np.abs(picture.predicted - picture.truth)
        drawn["depth_error"] = _coloured(error, 0.0, ERROR_SCALE, valid)
    if picture.confidence is not None:
        finite = np.nan_to_num(picture.confidence)
        drawn["confidence"] = _coloured(picture.confidence, float(finite.min()), float(finite.max()))
    return drawn


def _coloured(values: npt.NDArray[Any], low: float, high: float, valid: npt.NDArray[np.bool_] | None = None) -> Panel:
    import cv2

    share = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
    bgr = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    panel: Panel = np.ascontiguousarray(bgr[..., ::-1])
    shown = np.isfinite(values) if valid is None else valid & np.isfinite(values)
    panel[~shown] = INVALID
    return panel
