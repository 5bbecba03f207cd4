"""Frames as coloured panels: image, both depths on one scale, the error between them, the confidence, the cameras."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_overfit.text import LANGUAGES
from pytest_overfit.text.translations import translated
from pytest_overfit.two_view.pair.pair_files import FramePicture
from pytest_overfit.two_view.pictures.cameras import (
    HEIGHT,
    LEGEND,
    SIZE,
    WIDTH,
    CamerasDrawing,
    Frustum,
    Label,
    cameras_panel,
    draw_cameras,
)
from pytest_overfit.two_view.pictures.drawing import (
    FAINT,
    PAPER,
    Colour,
    Panel,
    coloured,
    save_bytes,
    save_png,
)

ANCHORS = {"l": "start", "r": "end"}
FONT = 16  # pixels: the fonts of browsers are wider than Pillow's
# On a phone the names grow, and numbers are left to the page; the address `cameras.svg#zh` says the same in Chinese.
LOOK = (
    ".zh, #zh:target .en { display: none } #zh:target .zh { display: inline }"
    " @media (max-width: 480px) { text { font-size: 21px } .said { display: none !important } }"
)


def cameras_svg(drawing: CamerasDrawing) -> str:
    """The drawing as SVG: the scene as pixels, everything else as vectors."""
    pixels = io.BytesIO()
    Image.fromarray(drawing.scene).save(pixels, format="PNG")
    told = ". ".join(label.text for label in drawing.labels)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' role="img" font-family="system-ui, sans-serif" font-size="{FONT}">',
        f"<title>{escape(told)}</title>",
        f"<style>{LOOK}</style>",
        f'<image width="{WIDTH}" height="{HEIGHT}" '
        f'href="data:image/png;base64,{base64.b64encode(pixels.getvalue()).decode()}"/>',
        *(
            f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{_colour(FAINT)}"'
            ' stroke-dasharray="4 4"/>'
            for a, b in drawing.gaps
        ),
        *map(_frustum, drawing.frusta),
        f'<rect width="{WIDTH}" height="{LEGEND}" fill="{_colour(PAPER)}"/>',
        *(
            f'<rect x="{x}" y="{y}" width="{SIZE - 2}" height="{SIZE - 2}" fill="{_colour(colour)}"/>'
            for (x, y), colour in drawing.swatches
        ),
        '<g id="zh">',
        *map(_label, drawing.labels),
        "</g>",
        "</svg>\n",
    ])  # fmt: skip


def _frustum(frustum: Frustum) -> str:
    lines = "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in frustum.lines)
    x, y = frustum.corners[0]
    colour = _colour(frustum.colour)
    return (
        f'<path d="{lines}" fill="none" stroke="{colour}" stroke-width="{frustum.width}" stroke-linecap="round"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{frustum.width + 1}" fill="{colour}"/>'
    )


def _label(label: Label) -> str:
    """A line of text in each language that has words of its own for it."""
    texts = {lang: translated(label.text, lang) for lang in LANGUAGES}
    said = " said" if label.colour == FAINT else ""
    if len({*texts.values()}) == 1:
        return _text(label, label.text, said.strip())
    return "".join(_text(label, text, f"{lang}{said}") for lang, text in texts.items())


def _text(label: Label, text: str, kind: str) -> str:
    x, y = label.at
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{ANCHORS[label.anchor[0]]}" '
        f'dominant-baseline="central" fill="{_colour(label.colour)}" stroke="{_colour(PAPER)}" stroke-width="3" '
        f'paint-order="stroke">{escape(text)}</text>'
    )


def _colour(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


CAMERAS = "cameras"
ERROR_SCALE = 0.1  # normalised units: an error of a tenth of the scene's scale, or more, is the last colour


def picture_panels(pictures: Sequence[FramePicture]) -> dict[str, Panel]:
    """Name -> (H, W, 3) uint8 RGB of every frame, and ``cameras`` where the frames have them."""
    drawn = {f"frame_{picture.frame}/{name}": panel for picture in pictures for name, panel in panels(picture).items()}
    cameras = cameras_panel(pictures)
    return drawn if cameras is None else {**drawn, CAMERAS: cameras}


def write_pictures(folder: Path, pictures: Sequence[FramePicture]) -> tuple[str, ...]:
    """Writes every panel as a PNG file below `folder`, the cameras as SVG; returns the file names. The folder is made.

    A file of that name is replaced at once, never half written.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    meant = {f"frame_{picture.frame}/{name}": text for picture in pictures for name, text in _scales(picture).items()}
    for name, panel in picture_panels(pictures).items():
        if name != CAMERAS:
            names.append(f"{name.replace('/', '_')}.png")
            save_png(folder / names[-1], panel, meant.get(name, ""))
    if (cameras := draw_cameras(pictures)) is not None:
        names.append(f"{CAMERAS}.svg")
        save_bytes(folder / names[-1], cameras_svg(cameras).encode())
    return tuple(names)


def panels(picture: FramePicture) -> dict[str, Panel]:
    """Name -> (H, W, 3) uint8 RGB; what the model does not predict is left out.

    Both depths share one colour scale, the 1st to 99th percentile of the true one. Pixels without true depth are grey,
    except in the predicted depth, which has a value everywhere.
    """
    valid = picture.valid
    low, high = _depth_range(picture)
    drawn = {"image": picture.image, "depth_true": coloured(picture.truth, low, high, valid)}
    if picture.predicted is not None:
        drawn["depth_predicted"] = coloured(picture.predicted, low, high)
        error = np.abs(picture.predicted - picture.truth)
        drawn["depth_error"] = coloured(error, 0.0, ERROR_SCALE, valid)
    if picture.confidence is not None:
        drawn["confidence"] = coloured(picture.confidence, *_confidence_range(picture.confidence))
    return drawn


def _depth_range(picture: FramePicture) -> tuple[float, float]:
    """What the first and the last colour of both depths stand for."""
    low, high = np.percentile(picture.truth[picture.valid], [1, 99]) if picture.valid.any() else (0.0, 1.0)
    return float(low), float(high)


def _confidence_range(confidence: npt.NDArray[np.float32]) -> tuple[float, float]:
    finite = np.nan_to_num(confidence)
    return float(finite.min()), float(finite.max())


def _scales(picture: FramePicture) -> dict[str, str]:
    """Panel -> what its first and its last colour stand for, and the unit: a share of the scene's mean distance."""
    depth = "{:.4g} {:.4g} normalised".format(*_depth_range(picture))
    said = {"depth_true": depth, "depth_predicted": depth, "depth_error": f"0 {ERROR_SCALE:.4g} normalised"}
    if picture.confidence is not None:
        said["confidence"] = "{:.4g} {:.4g}".format(*_confidence_range(picture.confidence))
    return said
