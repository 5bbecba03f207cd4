"""Frames as coloured panels: image, both depths on one scale, the error between them, the confidence, the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pytest_overfit.two_view.pictures.cameras import cameras_panel
from pytest_overfit.two_view.pictures.drawing import INVALID, Panel, coloured, save_png
from pytest_overfit.two_view.pictures.frame_picture import FramePicture

__all__ = ["ERROR_SCALE", "INVALID", "Panel", "panels", "picture_panels", "write_pictures"]

ERROR_SCALE = 0.1  # normalised units: an error of a tenth of the scene's scale, or more, is the last colour


def picture_panels(pictures: Sequence[FramePicture]) -> dict[str, Panel]:
    """Name -> (H, W, 3) uint8 RGB of every frame, and ``cameras`` where the frames have them.

    Example:
        >>> list(picture_panels(pictures))[:2], list(picture_panels(pictures))[-1]
        (['frame_0/image', 'frame_0/depth_true'], 'cameras')
    """
    drawn = {f"frame_{picture.frame}/{name}": panel for picture in pictures for name, panel in panels(picture).items()}
    cameras = cameras_panel(pictures)
    return drawn if cameras is None else {**drawn, "cameras": cameras}


def write_pictures(folder: Path, pictures: Sequence[FramePicture]) -> tuple[str, ...]:
    """Writes every panel as a PNG file below `folder`, which is made where it is not there; returns the file names.

    Example:
        >>> write_pictures(Path("report"), pictures)[0]
        'frame_0_image.png'

    A file of that name is replaced at once, never half written.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, panel in picture_panels(pictures).items():
        names.append(f"{name.replace('/', '_')}.png")
        save_png(folder / names[-1], panel)
    return tuple(names)


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
    drawn = {"image": picture.image, "depth_true": coloured(picture.truth, low, high, valid)}
    if picture.predicted is not None:
        drawn["depth_predicted"] = coloured(picture.predicted, low, high)
        error = np.abs(picture.predicted - picture.truth)
        drawn["depth_error"] = coloured(error, 0.0, ERROR_SCALE, valid)
    if picture.confidence is not None:
        finite = np.nan_to_num(picture.confidence)
        drawn["confidence"] = coloured(picture.confidence, float(finite.min()), float(finite.max()))
    return drawn
