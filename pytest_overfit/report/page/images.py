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
_PLAIN = re.compile(r"[\w.-]+\.png")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One PNG file beside the page."""

    file: str
    caption: str
    width: int
    height: int


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
    """What is shown of a run; ``missing`` are files that the document names and that are no PNG, or are not there."""

    frames: tuple[Frame, ...] = ()
    others: tuple[Picture, ...] = ()
    missing: tuple[str, ...] = ()


def pictures_of(folder: Path, names: Sequence[str]) -> Pictures:
    """The pictures of a document that can be shown."""
    frames: dict[int, Frame] = {}
    others, missing = [], []
    for name in names:
        size = _size(folder / name) if _PLAIN.fullmatch(name) else None
        if size is None:
            missing.append(name)
        elif (match := _FRAME.fullmatch(name)) and match[2] in CAPTIONS:
            frame = frames.setdefault(int(match[1]), Frame(int(match[1])))
            frame.panels[match[2]] = Picture(name, CAPTIONS[match[2]], *size)
        else:
            caption = name.removesuffix(".png").replace("_", " ").capitalize()
            others.append(Picture(name, caption, *size))
    return Pictures(tuple(frames[number] for number in sorted(frames)), tuple(others), tuple(missing))


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height out of the head of a PNG file."""
    try:
        with open_regular(path) as file:
            head = file.read(24)
    except (OSError, OverfitError):
        return None
    if len(head) < 24 or not head.startswith(_SIGNATURE):
        return None
    width, height = struct.unpack(">II", head[16:24])
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None
