"""The pictures beside a record, frame by frame, as far as they are there."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_overfit.errors import OverfitError
from pytest_overfit.untrusted.files import open_regular

CAPTIONS = {
    "image": "Image",
    "depth_predicted": "Predicted depth",
    "depth_true": "True depth",
    "depth_error": "Depth error",
    "confidence": "Confidence",
}
_FRAME = re.compile(r"frame_(\d{1,6})_(\w+)\.png")
_PLAIN = re.compile(r"[\w.-]+\.(png|svg)")
_SVG = re.compile(rb'<svg xmlns="http://www\.w3\.org/2000/svg" width="(\d{1,5})" height="(\d{1,5})" ')
_SCALE = re.compile(rb"(-?[\d.e+-]{1,12}) (-?[\d.e+-]{1,12})(?: (\w{1,20}))?")
_CHUNK = b"tEXtscale\0"
_MOST = 1024  # bytes of the head, in which the text stands before the pixels
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One PNG or SVG file beside the page; ``scale`` is what its first and last colour stand for, and their unit."""

    file: str
    caption: str
    width: int
    height: int
    scale: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Frame:
    """The pictures of one frame by panel; ``predicted`` and ``true`` are laid over each other where both are there."""

    number: int
    panels: dict[str, Picture] = field(default_factory=dict)

    @property
    def pair(self) -> tuple[Picture, Picture] | None:
        predicted, true = self.panels.get("depth_predicted"), self.panels.get("depth_true")
        return (predicted, true) if predicted and true else None

    @property
    def single(self) -> tuple[Picture, ...]:
        """Those that stand alone, in the order of ``CAPTIONS``."""
        paired = ("depth_predicted", "depth_true") if self.pair else ()
        return tuple(self.panels[name] for name in CAPTIONS if name in self.panels and name not in paired)


@dataclass(frozen=True)
class Pictures:
    """What is shown of a run; ``missing`` are files that the document names and that are no pictures, or not there."""

    frames: tuple[Frame, ...] = ()
    others: tuple[Picture, ...] = ()
    missing: tuple[str, ...] = ()


def pictures_of(folder: Path, names: Sequence[str]) -> Pictures:
    """The pictures of a document that can be shown."""
    frames: dict[int, Frame] = {}
    others, missing = [], []
    for name in names:
        known = _head(folder / name) if _PLAIN.fullmatch(name) else None
        if known is None:
            missing.append(name)
        elif (match := _FRAME.fullmatch(name)) and match[2] in CAPTIONS:
            frame = frames.setdefault(int(match[1]), Frame(int(match[1])))
            frame.panels[match[2]] = Picture(name, CAPTIONS[match[2]], *known)
        else:
            caption = name.rpartition(".")[0].replace("_", " ").capitalize()
            others.append(Picture(name, caption, *known))
    return Pictures(tuple(frames[number] for number in sorted(frames)), tuple(others), tuple(missing))


def _head(path: Path) -> tuple[int, int, tuple[str, str, str] | None] | None:
    """Width, height and scale out of the head of a picture; None where it is none. What an SVG has in it never runs."""
    try:
        with open_regular(path) as file:
            head = file.read(_MOST)
    except (OSError, OverfitError):
        return None
    if vector := _SVG.match(head):
        width, height = int(vector[1]), int(vector[2])
    elif len(head) >= 24 and head.startswith(_SIGNATURE):
        width, height = struct.unpack(">II", head[16:24])
    else:
        return None
    if not (0 < width < 65536 and 0 < height < 65536):
        return None
    at = head.find(_CHUNK)
    length = int.from_bytes(head[at - 4 : at], "big") if at > 0 else 0
    said = _SCALE.fullmatch(head[at + len(_CHUNK) : at + 4 + length]) if at > 0 else None
    return width, height, (said[1].decode(), said[2].decode(), (said[3] or b"").decode()) if said else None
