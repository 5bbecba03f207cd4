"""Cameras as a vector picture: lines and text that are sharp, and can be read out, at any size."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

from pytest_overfit.two_view.pictures.cameras import HEIGHT, LEGEND, SIZE, WIDTH, CamerasDrawing, Frustum, Label
from pytest_overfit.two_view.pictures.drawing import PAPER, Colour

ANCHORS = {"l": "start", "r": "end"}
FONT = 16  # pixels: the fonts of browsers are wider than Pillow's


def cameras_svg(drawing: CamerasDrawing) -> str:
    """The drawing as SVG: the scene as pixels, everything else as vectors.

    Example:
        >>> cameras_svg(draw_cameras(pictures))[:65]
        '<svg xmlns="http://www.w3.org/2000/svg" width="800" height="600" '
    """
    pixels = io.BytesIO()
    Image.fromarray(drawing.scene).save(pixels, format="PNG")
    told = ". ".join(label.text for label in drawing.labels)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' role="img" font-family="system-ui, sans-serif" font-size="{FONT}">',
        f"<title>{escape(told)}</title>",
        f'<image width="{WIDTH}" height="{HEIGHT}" '
        f'href="data:image/png;base64,{base64.b64encode(pixels.getvalue()).decode()}"/>',
        *map(_frustum, drawing.frusta),
        f'<rect width="{WIDTH}" height="{LEGEND}" fill="{_colour(PAPER)}"/>',
        *(
            f'<rect x="{x}" y="{y}" width="{SIZE - 2}" height="{SIZE - 2}" fill="{_colour(colour)}"/>'
            for (x, y), colour in drawing.swatches
        ),
        *map(_label, drawing.labels),
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
    x, y = label.at
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{ANCHORS[label.anchor[0]]}" dominant-baseline="central" '
        f'fill="{_colour(label.colour)}" stroke="{_colour(PAPER)}" stroke-width="3" paint-order="stroke">'
        f"{escape(label.text)}</text>"
    )


def _colour(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
