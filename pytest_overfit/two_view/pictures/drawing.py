"""What every picture is made of: colour scales, lines, text, swatches, and PNG files. Pillow, no torch.

A panel is (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

Panel: TypeAlias = npt.NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

INVALID: Colour = (96, 96, 96)
INK: Colour = (32, 36, 42)
FAINT: Colour = (104, 110, 120)
PAPER: Colour = (255, 255, 255)
FINE = 4  # lines are drawn on so many times the pixels, and averaged
# Every 15th colour of viridis (N. Smith, S. van der Walt, 2015, CC0), from dark violet over green to yellow: equal
# steps of a number are equal steps to the eye, in grey and for the colour-blind too.
_VIRIDIS = np.frombuffer(
    bytes.fromhex(
        "440154471669472a79433c843c4d8a355d8c2e6c8e287a8e23898d1e978a20a5852eb27c45bf6f64cb5d88d547afdc2ed7e219fde724"
    ),
    np.uint8,
).reshape(-1, 3)


def coloured(values: npt.NDArray[Any], low: float, high: float, valid: npt.NDArray[np.bool_] | None = None) -> Panel:
    """Numbers (H, W) as colours from dark violet (`low`) over green to yellow (`high`); the rest is grey.

    Example:
        >>> coloured(np.array([[0.0, 1.0, np.nan]]), 0.0, 1.0)[0, 2].tolist()
        [96, 96, 96]
    """
    finite = np.isfinite(values)
    share = np.clip((np.where(finite, values, low) - low) / max(high - low, 1e-12), 0, 1)
    places = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(share, places, channel) for channel in _VIRIDIS.T]
    panel: Panel = np.stack(channels, axis=-1).round().astype(np.uint8)
    panel[~(finite if valid is None else valid & finite)] = INVALID
    return panel


def blank(width: int, height: int, colour: Colour = PAPER) -> Panel:
    """A panel of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def fitted(panel: Panel, width: int, height: int) -> tuple[Panel, float]:
    """The panel as large as fits, and the factor it was scaled by. Pixels stay sharp where it grows."""
    scale = min(width / panel.shape[1], height / panel.shape[0])
    size = max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(panel).resize(size, how), dtype=np.uint8), scale


def draw_lines(
    panel: Panel, lines: Sequence[npt.NDArray[np.float64]], dot: npt.NDArray[np.float64], colour: Colour, *, width: int
) -> None:
    """Smooth lines (2, 2) from (x, y) to (x, y) with round ends, and a broader dot; pixel centres lie at integers."""
    mask = Image.new("L", (panel.shape[1] * FINE, panel.shape[0] * FINE))
    pen = ImageDraw.Draw(mask)
    for line in lines:
        at = (line + 0.5) * FINE
        pen.line(at.ravel().tolist(), fill=255, width=width * FINE)
        for x, y in at:
            _disc(pen, (x, y), width * FINE / 2)
    _disc(pen, ((dot + 0.5) * FINE).tolist(), (width + 1) * FINE)
    share = np.asarray(mask.reduce(FINE))[..., None] / 255
    panel[:] = np.rint(share * colour + (1 - share) * panel)


def _disc(pen: ImageDraw.ImageDraw, centre: Sequence[float], radius: float) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def colour_bar(width: int, height: int, low: float, high: float, label: Callable[[float], str], *, size: int) -> Panel:
    """The colours from left to right over five ticks with their labels, `size` pixels high; 6 more pixels between."""
    bar = blank(width, height + 6 + round(1.3 * size))
    bar[:height] = coloured(np.linspace(low, high, width)[None].repeat(height, 0), low, high)
    pen = Pen(bar)
    for share, anchor in ((0.0, "la"), (0.25, "ma"), (0.5, "ma"), (0.75, "ma"), (1.0, "ra")):
        at = round(share * (width - 1))
        bar[height : height + 4, max(0, at - 1) : at + 1] = INK
        pen.text((at, height + 6), label(low + share * (high - low)), size=size, anchor=anchor)
    return pen.panel


class Pen:
    """Writes on a copy of a panel.

    Example:
        >>> pen = Pen(blank(200, 40))
        >>> pen.text((10, 10), "view 1", size=16)
        >>> pen.panel.shape
        (40, 200, 3)
    """

    def __init__(self, panel: Panel) -> None:
        self._image = Image.fromarray(panel)
        self._draw = ImageDraw.Draw(self._image)

    @property
    def panel(self) -> Panel:
        """What there is now."""
        return np.array(self._image)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        *,
        size: int,
        colour: Colour = INK,
        anchor: str = "la",
        room: float | None = None,
        halo: Colour | None = None,
    ) -> None:
        """One line of text, cut with dots where it is wider than `room` pixels; `anchor` is Pillow's."""
        shown = text if room is None else clipped(text, size, room)
        around = 0 if halo is None else 2
        self._draw.text(at, shown, font=_font(size), fill=colour, anchor=anchor, stroke_width=around, stroke_fill=halo)

    def swatch(self, at: tuple[int, int], colour: Colour, text: str, *, size: int) -> int:
        """A square of one colour with its meaning to the right; returns the width of both and a gap after them."""
        x, y = at
        side = size - 2
        self._draw.rectangle((x, y, x + side, y + side), fill=colour, outline=FAINT)
        self.text((x + side + 7, y - 1), text, size=size)
        return round(side + 7 + text_width(text, size) + 1.2 * size)

    def paste(self, panel: Panel, at: tuple[int, int]) -> None:
        """A panel with its upper left corner at (x, y)."""
        self._image.paste(Image.fromarray(panel), at)


def text_width(text: str, size: int) -> float:
    """Pixels that a line takes."""
    return float(_font(size).getlength(text))


def clipped(text: str, size: int, room: float) -> str:
    """The text where it fits, else its start and its end around dots: in names both ends tell."""
    if text_width(text, size) <= room:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if text_width(shorter, size) <= room:
            return shorter
    return "..."


def wrapped(text: str, size: int, room: float, *, lines: int) -> list[str]:
    """A sentence on at most so many lines; what does not fit on the last one ends in dots."""
    found, words = [""], text.split()
    for word in words:
        longer = f"{found[-1]} {word}".strip()
        if text_width(longer, size) <= room or not found[-1]:
            found[-1] = longer
        elif len(found) < lines:
            found.append(word)
        else:
            while text_width(f"{found[-1]}...", size) > room:
                found[-1] = found[-1][:-1]
            return [*found[:-1], f"{found[-1].rstrip(' ,;:')}..."]
    return found


def save_png(path: Path, panel: Panel, scale: str = "") -> None:
    """Writes a PNG file; one that is there is replaced at once, never half written.

    Args:
        scale: what the first and the last colour stand for, and the unit (``0.5 1.3 m``), kept in the file's text.

    Raises:
        OSError: the folder cannot be written.
    """
    said, pixels = PngInfo(), io.BytesIO()
    if scale:
        said.add_text("scale", scale)
    Image.fromarray(panel).save(pixels, format="PNG", pnginfo=said)
    save_bytes(path, pixels.getvalue())


def save_bytes(path: Path, content: bytes) -> None:
    """Writes a file; one that is there is replaced at once, never half written.

    Raises:
        OSError: the folder cannot be written.
    """
    fresh = path.parent / f".{uuid4().hex}.part"
    try:
        with fresh.open("xb") as file:
            file.write(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the same picture on every machine."""
    return ImageFont.load_default(size)
