"""OpenEXR depth files: the header and the chunk table are checked here, before the C++ library sees the file.

The format: https://openexr.com/en/latest/OpenEXRFileLayout.html. Accepted is what depth writers produce: one part of
scan lines, a handful of float or half channels, every chunk inside the file. A loader of the user's that reads one with
OpenCV is listened to: an image that it cannot read is None to it, and a zero batch to a loader that goes on.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_overfit.errors import PairError
from pytest_overfit.settings.problems import first_line
from pytest_overfit.two_view.pair.pair_files import DepthArray
from pytest_overfit.untrusted.files import native_output, read_regular

MAX_PIXELS = 64 * 2**20
MAX_FILE_BYTES = MAX_DECODED_BYTES = 4 * MAX_PIXELS  # read as one float channel, and once more as the result
_MAX_HEADER_BYTES = 2**16
_MAX_CHANNELS = 16
_MAGIC = 20000630
_LONG_NAMES = 0x400
_LINES_PER_CHUNK = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
_NEEDED = {
    "channels": "chlist", "compression": "compression", "dataWindow": "box2i", "displayWindow": "box2i",
    "lineOrder": "lineOrder", "pixelAspectRatio": "float", "screenWindowCenter": "v2f", "screenWindowWidth": "float",
}  # fmt: skip
_SIZES = {"compression": 1, "box2i": 16, "lineOrder": 1, "float": 4, "v2f": 8}


@dataclass(frozen=True)
class ExrHeader:
    """Size in pixels and the channels (name -> bytes per value) of an EXR file whose table of chunks is sound."""

    width: int
    height: int
    channels: dict[str, int]


def read_exr(path: Path) -> DepthArray:
    """The channel "Y", else the first one, as (H, W) float32, with no look at its values.

    Raises:
        PairError: not an EXR file of the kind described above, larger than 64 megapixels, or damaged.
    """
    header = check_exr(path)
    import OpenEXR

    said: list[str] = []
    try:
        with native_output() as said, OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            name = "Y" if "Y" in channels else min(channels)
            pixels = np.array(channels[name].pixels, dtype=np.float32)
    except Exception as error:  # the binding raises RuntimeError, ValueError, TypeError and its own kinds
        reason = "; ".join([_first_line(error), *(line.replace(str(path), path.name)[:200] for line in said[:1])])
        raise PairError(f"cannot be decoded ({reason})", where=path, allowed="an intact EXR file") from error
    if pixels.shape != (header.height, header.width):
        raise PairError(f"decodes to {pixels.shape}, its header says {(header.height, header.width)}", where=path)
    return pixels


def write_exr(path: Path, depth: DepthArray) -> None:
    """Write `depth` (H, W) float32 as the one channel "Y", ZIP compressed, without loss."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Y": np.ascontiguousarray(depth, dtype=np.float32)}) as file:
        file.write(str(path))


def check_exr(path: Path) -> ExrHeader:
    """Parse the header of `path` and verify the place and size of every chunk, in memory bounded by the file's size.

    Raises:
        PairError: see `read_exr`.
    """
    data = read_regular(path, most=MAX_FILE_BYTES, error=PairError)
    try:
        return _parse(data)
    except PairError as error:
        raise error.at(path) from None
    except (struct.error, ValueError, IndexError) as error:
        raise PairError("not an intact EXR file (the header is damaged)", where=path) from error


def _parse(data: bytes) -> ExrHeader:
    magic, version = struct.unpack_from("<iI", data)
    if magic != _MAGIC:
        raise PairError(f"starts with {data[:4]!r}", allowed="an OpenEXR file")
    if version & 0xFF != 2 or version & ~0xFF & ~_LONG_NAMES:
        raise PairError(f"EXR version and flags 0x{version:x}", allowed="version 2, one part of scan lines")
    attributes, end = _attributes(data)
    for name, kind in _NEEDED.items():
        found, value = attributes.get(name, ("no", b""))
        if found != kind or len(value) != _SIZES.get(kind, len(value)):
            raise PairError(f"attribute {name} is {found} of {len(value)} bytes", allowed=f"{kind}, always present")
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"][1])
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1 or width * height > MAX_PIXELS or max(abs(v) for v in (left, top)) > 2**24:
        raise PairError(
            f"dataWindow of {width} x {height} pixels at ({left}, {top})", allowed=f"1 to {MAX_PIXELS} pixels"
        )
    channels = _channels(attributes["channels"][1])
    if width * height * sum(channels.values()) > MAX_DECODED_BYTES:
        raise PairError(f"{width} x {height} pixels of {len(channels)} channels", allowed=f"{MAX_DECODED_BYTES} bytes")
    _check_chunks(data, end, top, height, width * sum(channels.values()), attributes["compression"][1][0])
    return ExrHeader(width, height, channels)


def _attributes(data: bytes) -> tuple[dict[str, tuple[str, bytes]], int]:
    """Attributes (name -> type, value) of the header, and where it ends."""
    found: dict[str, tuple[str, bytes]] = {}
    at = 8
    while data[at]:
        name, at = _text(data, at)
        kind, at = _text(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        at += 4
        if size < 0 or at + size > min(len(data), _MAX_HEADER_BYTES):
            raise PairError(f"attribute {name!r} claims {size} bytes", allowed=f"a header of {_MAX_HEADER_BYTES} bytes")
        if name in found:
            raise PairError(f"attribute {name!r} occurs twice", allowed="once")
        found[name] = (kind, data[at : at + size])
        at += size
    return found, at + 1


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at, at + 256)
    return data[at:end].decode("latin-1"), end + 1


def _channels(value: bytes) -> dict[str, int]:
    """Bytes per value of every channel; half and float only, no subsampling."""
    channels: dict[str, int] = {}
    at = 0
    while value[at]:
        name, at = _text(value, at)
        kind, _, across, down = struct.unpack_from("<iiii", value, at)
        at += 16
        if kind not in (1, 2) or (across, down) != (1, 1):
            raise PairError(
                f"channel {name!r} has pixel type {kind} and sampling {across} x {down}",
                allowed="half (1) or float (2), sampling 1 x 1",
            )
        channels[name] = 2 * kind
    if at + 1 != len(value) or not 1 <= len(channels) <= _MAX_CHANNELS:
        raise PairError(f"{len(channels)} channels", allowed=f'1 to {_MAX_CHANNELS}, depth in "Y" or the first one')
    return channels


def _check_chunks(data: bytes, at: int, top: int, height: int, line_bytes: int, compression: int) -> None:
    """Every chunk of the offset table lies inside the file, holds the lines of its place and is not too large."""
    if compression not in _LINES_PER_CHUNK:
        raise PairError(f"compression {compression}", allowed=f"0 to {max(_LINES_PER_CHUNK)}")
    lines = _LINES_PER_CHUNK[compression]
    count = -(-height // lines)
    if at + 8 * count > len(data):
        raise PairError(f"ends inside its table of {count} chunks", allowed="a complete file")
    offsets = np.frombuffer(data, dtype="<u8", count=count, offset=at).tolist()
    seen = set()
    for index, offset in enumerate(offsets):
        if not at + 8 * count <= offset <= len(data) - 8:
            raise PairError(f"chunk {index} starts at byte {offset} of {len(data)}", allowed="a complete file")
        line, size = struct.unpack_from("<ii", data, offset)
        full = line_bytes * min(lines, top + height - line)
        if (line - top) % lines or not top <= line < top + height or line in seen:
            raise PairError(f"chunk {index} claims to start at line {line}", allowed="every line once")
        if not 0 < size <= full or offset + 8 + size > len(data) or (compression == 0 and size != full):
            raise PairError(f"chunk {index} claims {size} bytes for {full} bytes of pixels", allowed="a complete file")
        seen.add(line)


def _first_line(error: Exception) -> str:
    line = first_line(error)[:200]
    # What the binding says when a chunk does not unpack (3.4 and 3.3); it prints the real reason to stderr.
    damaged = "Invalid part index" in line or "Unable to run decoder" in line
    return "its compressed pixels are damaged" if damaged else line


@contextlib.contextmanager
def exr_heard() -> Iterator[None]:
    """Raises at the end of the block where ``cv2.imread`` gave no pixels for an .exr file.

    Raises:
        PairError: naming the file, OpenCV's version and what that version needs. It replaces whatever the loader made
            of it.
    """
    try:
        import cv2
    except ImportError:  # whoever needs it will say so
        yield
        return
    unread: list[str] = []
    original = cv2.imread

    def imread(filename: Any, *args: Any, **kwargs: Any) -> Any:
        is_exr = str(filename).lower().endswith(".exr") and Path(str(filename)).is_file()
        try:
            pixels = original(filename, *args, **kwargs)
        except cv2.error:
            unread.extend([str(filename)] * is_exr)
            raise
        if pixels is None and is_exr:
            unread.append(str(filename))
        return pixels

    cv2.imread = imread
    try:
        yield
    except Exception as error:
        if unread:
            raise _unreadable(unread, cv2.__version__) from error
        raise
    finally:
        cv2.imread = original
    if unread:
        raise _unreadable(unread, cv2.__version__)


def _unreadable(unread: list[str], version: str) -> PairError:
    old = int(version.partition(".")[0]) < 5
    return PairError(
        f"cv2.imread of OpenCV {version} gives no pixels for {len(set(unread))} .exr file(s)",
        where=unread[0],
        allowed="depth that the loader can read",
        hint="set OPENCV_IO_ENABLE_OPENEXR=1 before cv2 is imported"
        if old
        else "OpenCV 5 has no OpenEXR: pip install 'opencv-python<5', or read .exr with the OpenEXR package",
    )
