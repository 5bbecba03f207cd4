"""One frame of a run as arrays, for whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_overfit.two_view.pair.pair_files import Camera


@dataclass(frozen=True)
class FramePicture:
    """One frame: `image` (H, W, 3) uint8 RGB; depths (H, W) normalised, 0 = invalid; `confidence` (H, W).

    `predicted` and `confidence` are None where the model does not give them, as is `predicted_camera`. Cameras are in
    normalised units, with the first true one at the origin.
    """

    frame: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.float32] | None
    confidence: npt.NDArray[np.float32] | None
    camera: Camera | None = None
    predicted_camera: Camera | None = None
