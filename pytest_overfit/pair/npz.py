"""Reads .npz files from strangers: bounded in memory, and unable to run code.

`numpy.load` refuses object arrays unless it may unpickle anything, and it allocates what a header declares. Here the
zip directory, the header and the data are checked against each other and against a bound before anything is allocated,
and object arrays go through `unpickle.load_array`.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from pytest_overfit.errors import PairError
from pytest_overfit.pair.unpickle import load_array

MAX_FILE_BYTES = 2**30
MAX_PICKLE_BYTES = 2**26  # about two million names; unfolds to at most 40 times as much
_READ_BYTES = 2**20
_MAX_READ = 2**23  # the largest single read of a zip directory
_MAX_MEMBERS = 256
_MAX_HEADER = 10_000
_DAMAGED = "an intact .npz file"


def read_npz(
    path: Path | str, keys: Sequence[str], *, objects: bool = False, max_bytes: int = MAX_FILE_BYTES
) -> dict[str, npt.NDArray[Any]]:
    """The arrays `keys` of the .npz file `path`; further keys of the file are never decoded.

    Example:
        >>> read_npz("0001_083.jpeg.npz", ("intrinsics", "cam2world"))["intrinsics"].shape
        (3, 3)

    Args:
        path: the file.
        keys: all must be there.
        objects: whether arrays of strings, numbers and None in a pickle are accepted.
        max_bytes: bound for the file and for each array.

    Raises:
        PairError: the file is missing, damaged or too large, a key is missing, or an array is of another kind.
    """
    where = Path(path)
    try:
        if where.stat().st_size > max_bytes:
            raise PairError(f"{where.stat().st_size} bytes", where=where, allowed=f"at most {max_bytes} bytes")
        with _CappedFile(where) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive, where)
            missing = [key for key in keys if key not in members]
            if missing:
                raise PairError(
                    f"has no key {missing[0]!r}, only {sorted(members)[:12]}", where=where, allowed=f"{', '.join(keys)}"
                )
            return {key: _read_member(archive, members[key], where, key, objects, max_bytes) for key in keys}
    except PairError:
        raise
    except FileNotFoundError as error:
        raise PairError("no such file", where=where) from error
    except OSError as error:
        raise PairError(f"cannot be read ({error.strerror or error})", where=where) from error
    except Exception as error:  # zipfile raises half a dozen kinds on damaged bytes
        raise PairError(f"is damaged ({_first_line(error)})", where=where, allowed=_DAMAGED) from error


class _CappedFile(io.FileIO):
    """A file that refuses one huge read: zipfile takes the size of the directory from the file itself."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        if wanted > _MAX_READ:
            raise PairError(f"its zip directory claims {wanted} bytes", where=self.name, allowed=f"at most {_MAX_READ}")
        return super().read(wanted) or b""


def _members(archive: zipfile.ZipFile, where: Path) -> dict[str, zipfile.ZipInfo]:
    """Array name -> its entry."""
    entries = archive.infolist()
    if len(entries) > _MAX_MEMBERS:
        raise PairError(f"holds {len(entries)} entries", where=where, allowed=f"at most {_MAX_MEMBERS}")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        key = entry.filename.removesuffix(".npy")
        if key in members:
            raise PairError(f"holds the key {key[:80]!r} twice", where=where, allowed="once")
        members[key] = entry
    return members


def _read_member(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: Path, key: str, objects: bool, max_bytes: int
) -> npt.NDArray[Any]:
    """One array; the place (file and key) is added to every error here."""
    try:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise PairError(f"zip method {entry.compress_type}", allowed="stored or deflated, not encrypted")
        # Deflate cannot expand by more than 1032: a directory that claims more is lying.
        if entry.file_size > max_bytes or entry.file_size > 1040 * entry.compress_size + 64:
            raise PairError(
                f"claims {entry.file_size} bytes in {entry.compress_size} packed ones",
                allowed=f"at most {max_bytes} bytes, and no more than deflate can pack",
            )
        with archive.open(entry) as stream:
            return _read_array(stream, entry.file_size, objects)
    except PairError as error:
        raise PairError(error.found, where=f"{where}, key {key!r}", allowed=error.allowed, hint=error.hint) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise PairError(
            f"is damaged ({_first_line(error)})", where=f"{where}, key {key!r}", allowed=_DAMAGED
        ) from error


def _read_array(stream: IO[bytes], size: int, objects: bool) -> npt.NDArray[Any]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise PairError(f"npy version {version}", allowed="1.0 or 2.0")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream, max_header_size=_MAX_HEADER)
    left = size - stream.tell()
    if dtype == np.dtype(object):
        if not objects:
            raise PairError("holds pickled objects", allowed="plain numbers")
        if left > MAX_PICKLE_BYTES:
            raise PairError(f"holds a pickle of {left} bytes", allowed=f"at most {MAX_PICKLE_BYTES} bytes")
        array = load_array(_read_all(stream, left))
        if array.shape != shape or array.dtype != object:
            raise PairError(f"holds a pickle of shape {array.shape}, its header says {shape!r:.60}", allowed=_DAMAGED)
        return array
    _check_plain(dtype)
    count = 1
    for length in shape:
        count *= length
    if len(shape) > 4 or any(length < 0 for length in shape) or count * dtype.itemsize != left:
        raise PairError(f"claims shape {shape!r:.60} of {dtype} in {left} bytes", allowed=_DAMAGED)
    array = np.frombuffer(_read_all(stream, left), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _check_plain(dtype: np.dtype[Any]) -> None:
    """Numbers, fixed-width strings, or a flat record of them."""
    parts = [dtype] if dtype.names is None else [dtype[name] for name in dtype.names]
    if len(parts) > 32 or not all(part.kind in "biufSU" and part.itemsize and part.subdtype is None for part in parts):
        raise PairError(f"holds {dtype!s:.120}", allowed="numbers, fixed-width strings, or records of them")


def _read_all(stream: IO[bytes], size: int) -> bytes:
    """Exactly the rest of the stream, grown as it arrives: a lie about `size` allocates nothing."""
    data = bytearray()
    while piece := stream.read(min(_READ_BYTES, size + 1 - len(data))):
        data += piece
        if len(data) > size:
            break
    if len(data) != size:
        raise PairError(f"has {len(data)} bytes or more where {size} are declared", allowed=_DAMAGED)
    return bytes(data)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__
