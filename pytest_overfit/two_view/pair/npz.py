"""Reads .npz files from strangers: bounded in memory, and unable to run code.

`numpy.load` refuses object arrays unless it may unpickle anything, and it allocates what a header declares. Here the
zip directory, the header and the data are checked against each other and against a bound before anything is allocated,
and object arrays go through `unpickle.load_array`.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from pytest_overfit.errors import PairError
from pytest_overfit.settings.problems import first_line
from pytest_overfit.two_view.pair.unpickle import Budget, load_array
from pytest_overfit.untrusted.files import open_regular

MAX_FILE_BYTES = 2**30  # with arrays that nobody asks for
# The largest index that is known of has 132,000 images: as names and scenes of 64 characters 2 x 32 MiB. 2 million
# pairs of 32 bytes are 64 MiB. All arrays of one file together may take twice what one may. What is larger is read row
# by row, where it can be.
MAX_ARRAY_BYTES = 2**26
_READ_BYTES = 2**20
_MAX_READ = 2**23  # the largest single read of a zip directory
_MAX_MEMBERS = 256
_MAX_HEADER = 4096
_DAMAGED = "an intact .npz file"
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a large array of numbers or words in a .npz file, read from there when they are asked for.

    Raises:
        PairError: the file is not what it was, or damaged there: no checksum is of single rows.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        width = self.dtype.itemsize * math.prod(self.shape[1:])
        with _opened(self.path, MAX_FILE_BYTES) as (archive, members):
            found = _rows_of(archive, members.get(self.key), self.path, self.key)
            if found is None or (found[0].shape, found[0].dtype) != (self.shape, self.dtype):
                raise PairError(f"is not what it was: {self.key} is another array", allowed=_DAMAGED)
            data = _bytes_at(archive, members[self.key], found[1] + width * start, width * max(0, stop - start))
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])


def read_npz(
    path: Path | str,
    keys: Sequence[str],
    *,
    objects: bool = False,
    max_bytes: int = MAX_ARRAY_BYTES,
    max_file: int = MAX_FILE_BYTES,
) -> dict[str, Array]:
    """The arrays `keys` of the .npz file `path`; further keys of the file are never decoded.

    Args:
        path: the file.
        keys: all must be there.
        objects: whether arrays of strings, numbers and None in a pickle are accepted.
        max_bytes: bound for each array; all of `keys` together may have twice as much.
        max_file: bound for the file.

    Raises:
        PairError: the file is missing, damaged or too large, a key is missing, or an array is of another kind.
    """
    where = Path(path)
    with _opened(where, max_file) as (archive, members):
        return _read(archive, members, where, keys, objects=objects, max_bytes=max_bytes)


def read_large_npz(path: Path | str, keys: Sequence[str]) -> dict[str, Array | Rows]:
    """As ``read_npz`` with objects, but that plain arrays too large for it are ``Rows``."""
    where = Path(path)
    with _opened(where, MAX_FILE_BYTES) as (archive, members):
        sizes = {key: members[key].file_size for key in keys if key in members}
        few = sum(sizes.values()) <= 2 * MAX_ARRAY_BYTES and max(sizes.values(), default=0) <= MAX_ARRAY_BYTES
        large = {} if few else {key: _rows_of(archive, members.get(key), where, key) for key in keys}
        rows = {key: found[0] for key, found in large.items() if found is not None}
        others = [key for key in keys if key not in rows]
        kept = _read(archive, members, where, others, objects=True, max_bytes=MAX_ARRAY_BYTES)
        return {key: rows[key] if key in rows else kept[key] for key in keys}


def _read(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    where: Path,
    keys: Sequence[str],
    *,
    objects: bool,
    max_bytes: int,
) -> dict[str, Array]:
    """Whole arrays, once their claims are seen to be possible."""
    missing = [key for key in keys if key not in members]
    if missing:
        raise PairError(
            f"has no key {missing[0]!r}, only {sorted(members)[:12]}", where=where, allowed=f"{', '.join(keys)}"
        )
    _check_claims(members, keys, where, max_bytes)
    budget = Budget()
    return {key: _read_member(archive, members[key], where, key, budget if objects else None) for key in keys}


def _rows_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None, where: Path, key: str) -> tuple[Rows, int] | None:
    """A plain array in the order of its rows, and where they begin in its member; None of any other one."""
    if entry is None:
        return None
    _check_claims({key: entry}, [key], where, MAX_FILE_BYTES)
    with archive.open(entry) as stream:
        shape, fortran, dtype = _read_header(stream)
        begins = stream.tell()
    if dtype.hasobject or not shape or (fortran and len(shape) > 1):
        return None
    _check_plain(dtype)
    _check_size(shape, dtype, entry.file_size - begins)
    return Rows(where, key, shape, dtype), begins


def _bytes_at(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, offset: int, size: int) -> bytes:
    """A part of a member: where it is stored as it is, nothing else of the file is read."""
    if entry.compress_type == zipfile.ZIP_STORED and archive.fp is not None:
        archive.fp.seek(entry.header_offset)
        name, extra = struct.unpack("<26x2H", archive.fp.read(30))
        archive.fp.seek(entry.header_offset + 30 + name + extra + offset)
        data = _read_up_to(archive.fp, size)
    else:
        with archive.open(entry) as stream:
            while offset and (passed := stream.read(min(_READ_BYTES, offset))):
                offset -= len(passed)
            data = _read_up_to(stream, size)
    if len(data) != size:
        raise PairError(f"has {len(data)} bytes where {size} are declared", allowed=_DAMAGED)
    return data


def _read_up_to(stream: IO[bytes], size: int) -> bytes:
    return b"".join(stream.read(min(_READ_BYTES, size - at)) for at in range(0, size, _READ_BYTES))


@contextlib.contextmanager
def _opened(where: Path, most: int) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]]:
    """The archive and its entries by array name; whatever a damaged one raises is a PairError that says where."""
    try:
        with (
            open_regular(where, most=most, error=PairError) as opened,
            _CappedFile(opened.fileno(), closefd=False) as file,
            zipfile.ZipFile(file) as archive,
        ):
            yield archive, _members(archive, where)
    except PairError as error:
        raise error if error.where else error.at(where) from None
    except OSError as error:
        raise PairError(f"cannot be read ({error.strerror or error})", where=where) from error
    except Exception as error:  # zipfile raises half a dozen kinds on damaged bytes
        raise PairError(f"is damaged ({first_line(error)[:200]})", where=where, allowed=_DAMAGED) from error


class _CappedFile(io.FileIO):
    """A file that refuses one huge read: zipfile takes the size of the directory from the file itself."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        if wanted > _MAX_READ:
            raise PairError(f"its zip directory claims {wanted} bytes", allowed=f"at most {_MAX_READ}")
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


def _check_claims(members: Mapping[str, zipfile.ZipInfo], keys: Sequence[str], where: Path, max_bytes: int) -> None:
    """What the directory says of all arrays together, before the first one is unpacked.

    Raises:
        PairError: it is too much, cannot be, or is packed in another way.
    """
    for key in keys:
        entry, place = members[key], f"{where}, key {key!r}"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise PairError(
                f"zip method {entry.compress_type}", where=place, allowed="stored or deflated, not encrypted"
            )
        # Deflate cannot expand by more than 1032: a directory that claims more is lying.
        if entry.file_size > max_bytes or entry.file_size > 1040 * entry.compress_size + 64:
            found = f"claims {entry.file_size} bytes in {entry.compress_size} packed ones"
            raise PairError(found, where=place, allowed=f"at most {max_bytes} bytes, and no more than deflate can pack")
    together = sum(members[key].file_size for key in keys)
    if together > 2 * max_bytes:
        raise PairError(
            f"claims {together} bytes in its {len(keys)} arrays", where=where, allowed=f"at most {2 * max_bytes} bytes"
        )


def _read_member(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: Path, key: str, budget: Budget | None
) -> npt.NDArray[Any]:
    """One array; the place (file and key) is added to every error here."""
    try:
        with archive.open(entry) as stream:
            return _read_array(stream, entry.file_size, budget)
    except PairError as error:
        raise error.at(f"{where}, key {key!r}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise PairError(
            f"is damaged ({first_line(error)[:200]})", where=f"{where}, key {key!r}", allowed=_DAMAGED
        ) from error


def _read_array(stream: IO[bytes], size: int, budget: Budget | None) -> npt.NDArray[Any]:
    """One array, as large as its own header, the directory of the archive and the data agree on.

    Args:
        budget: of objects; None: there must be none.
    """
    shape, fortran, dtype = _read_header(stream)
    left = size - stream.tell()
    if dtype == np.dtype(object):
        if budget is None:
            raise PairError("holds pickled objects", allowed="plain numbers")
        array = load_array(bytes(_read_all(stream, left)), budget)
        if array.shape != shape or array.dtype != object:
            raise PairError(f"holds a pickle of shape {array.shape}, its header says {shape!r:.60}", allowed=_DAMAGED)
        return array
    _check_plain(dtype)
    _check_size(shape, dtype, left)
    array = np.frombuffer(_read_all(stream, left), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype; numpy would read a header of any length before it judges that."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise PairError(f"npy version {version}", allowed="1.0 or 2.0")
    length = stream.read(2 if version == (1, 0) else 4)
    claimed = int.from_bytes(length, "little")
    if claimed > _MAX_HEADER:
        raise PairError(f"claims a header of {claimed} bytes", allowed=f"at most {_MAX_HEADER}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a file that Python 2 wrote
        try:
            return read_header(io.BytesIO(length + stream.read(claimed)), max_header_size=_MAX_HEADER)
        except (RecursionError, MemoryError, SyntaxError, TypeError) as error:  # a literal that is no dtype, or is deep
            raise PairError(f"its header cannot be read ({type(error).__name__})", allowed=_DAMAGED) from error


def _check_plain(dtype: np.dtype[Any]) -> None:
    """Numbers, fixed-width strings, or a flat record of them."""
    parts = [dtype] if dtype.names is None else [dtype[name] for name in dtype.names]
    if len(parts) > 32 or not all(part.kind in "biufSU" and part.itemsize and part.subdtype is None for part in parts):
        raise PairError(f"holds {dtype!s:.120}", allowed="numbers, fixed-width strings, or records of them")


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], left: int) -> None:
    """As many bytes as the shape takes."""
    if len(shape) > 4 or any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != left:
        raise PairError(f"claims shape {shape!r:.60} of {dtype} in {left} bytes", allowed=_DAMAGED)


def _read_all(stream: IO[bytes], size: int) -> bytearray:
    """Exactly the rest of the stream, grown as it arrives: a lie about `size` allocates nothing."""
    data = bytearray()
    while piece := stream.read(min(_READ_BYTES, size + 1 - len(data))):
        data += piece
        if len(data) > size:
            break
    if len(data) != size:
        raise PairError(f"has {len(data)} bytes or more where {size} are declared", allowed=_DAMAGED)
    return data
