"""Files that the tests of this room build: sound ones, damaged ones and hostile ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import OpenEXR
from PIL import Image

from pytest_overfit.two_view.pair.index import locate_pair
from pytest_overfit.two_view.pair.pair_files import ViewFiles
from pytest_overfit.two_view.pair.synthetic import RenderedSource

COMPRESSIONS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")


def source_views(source: RenderedSource) -> tuple[ViewFiles, ViewFiles]:
    """The files of the two views of a rendered source."""
    return locate_pair(source.source_root, source.source_npz, source.source_seg_root, 0).views


def npz_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of raw `.npy` members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for key, data in members.items():
            archive.writestr(f"{key}.npy", data)
    return buffer.getvalue()


def npy_bytes(array: Any) -> bytes:
    """One `.npy` file, with a pickle in it for object arrays."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(descr: str, shape: str, body: bytes = b"") -> bytes:
    """A `.npy` file whose header claims `descr` (a Python literal) and `shape`, whatever the body is."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def object_npy(pickled: bytes, shape: str = "(1,)") -> bytes:
    """A `.npy` file of an object array whose pickle is `pickled`."""
    return npy_header("'|O'", shape, pickled)


def write_depth(path: Path, depth: Any, *, compression: str = "ZIP", channel: str = "Y", **header: Any) -> Path:
    """An EXR file with one channel."""
    head = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage, **header}
    with OpenEXR.File(head, {channel: np.ascontiguousarray(depth)}) as file:
        file.write(str(path))
    return path


def write_camera(path: Path, intrinsics: Any = None, cam2world: Any = None, **more: Any) -> Path:
    """A camera file; sound unless told otherwise."""
    k = [[100.0, 0, 20], [0, 100.0, 15], [0, 0, 1]] if intrinsics is None else intrinsics
    pose = np.eye(4) if cam2world is None else cam2world
    np.savez(path, intrinsics=np.asarray(k), cam2world=np.asarray(pose), **more)
    return path


def image_bytes(array: Any, kind: str, **options: Any) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file with the right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_header(width: int, height: int) -> bytes:
    """A grey PNG that claims a size and holds almost nothing."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 64)) + png_chunk(b"IEND", b"")


def mutate(data: bytes, random: Random) -> bytes:
    """A few changed, lost, repeated or cut bytes; the first 600 bytes get half of them."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        at = random.randrange(len(changed))
        if random.random() < 0.5:
            at = random.randrange(min(600, len(changed)))
        action = random.randrange(6)
        if action <= 1:
            changed[at] = random.choice([0, 1, 127, 128, 255, random.randrange(256)])
        elif action == 2:
            changed[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\0\0\0\1"])
        elif action == 3:
            del changed[at : at + random.randrange(1, 20)]
        elif action == 4:
            changed[at:at] = random.randbytes(random.randrange(1, 10))
        else:
            changed = changed[: at + 1]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def mutate_npz(data: bytes, random: Random) -> bytes:
    """The arrays in the archive damaged under a sound zip layer, whose checksums would hide them from a fuzzer."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    victim = random.choice(sorted(members))
    members[victim] = mutate(members[victim], random)
    return npz_bytes(members, random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def mutate_png(data: bytes, random: Random) -> bytes:
    """The chunks of a PNG damaged under right checksums."""
    at, chunks = 8, []
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    victim = random.randrange(len(chunks))
    kind, body = chunks[victim]
    chunks[victim] = (kind, mutate(body or b"\0", random))
    return data[:8] + b"".join(png_chunk(kind, body) for kind, body in chunks)
