"""Reading .npz files without numpy.load: equal results, bounded memory, one error."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.npz import read_npz
from pytest_overfit.two_view.pair.unpickle import Budget
from tests.two_view.pair.support import npy_bytes, npy_header, npz_bytes

RECORD = np.dtype([("id", "<i8"), ("name", "<U5"), ("score", ">f4")])
DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.unicode_string_dtypes(min_len=1, max_len=9),
    hnp.byte_string_dtypes(min_len=1, max_len=9), st.just(RECORD),
)  # fmt: skip


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.booleans(),
)
def test_equal_to_numpy(tmp_path_factory: pytest.TempPathFactory, array: Any, method: int, fortran: bool) -> None:
    """Every plain array comes back as numpy.load gives it: values, dtype and shape, packed or not, in any order."""
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    array = np.asfortranarray(array) if fortran and array.ndim else array
    path.write_bytes(npz_bytes({"a": npy_bytes(array)}, method))
    loaded = read_npz(path, ["a"])["a"]
    with np.load(path) as file:
        expected = file["a"]
    assert (loaded.dtype, loaded.shape) == (expected.dtype, expected.shape)
    assert loaded.tobytes() == expected.tobytes()


def test_objects_only_on_request(tmp_path: Path) -> None:
    """An array of objects is refused where plain numbers are expected, and read where names are."""
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes({"a": npy_bytes(np.array(["x", None], dtype=object))}))
    assert read_npz(path, ["a"], objects=True)["a"].tolist() == ["x", None]
    with pytest.raises(PairError) as error:
        read_npz(path, ["a"])
    assert str(error.value) == f"{path}, key 'a': holds pickled objects\n  allowed: plain numbers"


def test_missing_file_and_key(tmp_path: Path) -> None:
    """A missing file, a folder and a missing key are named."""
    path = tmp_path / "a.npz"
    with pytest.raises(PairError) as error:
        read_npz(path, ["a"])
    assert str(error.value) == f"{path}: no such file"
    path.write_bytes(npz_bytes({"b": npy_bytes(np.zeros(2))}))
    with pytest.raises(PairError) as error:
        read_npz(path, ["b", "a"])
    assert str(error.value) == f"{path}: has no key 'a', only ['b']\n  allowed: b, a"
    with pytest.raises(PairError, match="a directory"):
        read_npz(tmp_path, ["a"])


SUBARRAY = "[('a', '<f8', (1000, 1000))]"


@pytest.mark.parametrize(
    ("member", "found"),
    [
        (npy_header("'<f8'", "(10000000000,)", b"\0" * 16), "claims shape (10000000000,) of float64 in 16 bytes"),
        (npy_header("'<f8'", "(-1,)", b""), "claims shape (-1,) of float64 in 0 bytes"),
        (npy_header("'<f8'", "(1,)", b"\0" * 16), "claims shape (1,) of float64 in 16 bytes"),
        (npy_header("'<U0'", "(10000000000,)"), "holds <U0"),
        (npy_header("'|V2000000000'", "(1,)"), "holds |V2000000000"),
        (npy_header("'<c16'", "(1,)", b"\0" * 16), "holds complex128"),
        (npy_header("'<M8[s]'", "(1,)", b"\0" * 8), "holds datetime64[s]"),
        (npy_header(SUBARRAY, "(1,)"), "holds [('a', '<f8', (1000, 1000))]"),
        (npy_header("[('a', '|O')]", "(1,)", b"\0" * 8), "holds [('a', 'O')]"),
        (npy_header("'<f8'", "(0, 99999999999999999999)"), "is damaged"),
        (npy_header("'<f8'", "[1]", b"\0" * 8), "is damaged"),
        (npy_header("__import__('os')", "(1,)"), "is damaged"),
        (npy_header("'<f8'", "(" * 300 + ")" * 300), "is damaged"),
        (npy_header("'<f8'", "-" * 3900 + "1"), "its header cannot be read"),
        (npy_header("'<f8'", "-" * 9000 + "1"), "claims a header of 9078 bytes"),
        (b"\x93NUMPY\x03\x00" + bytes(10), "npy version (3, 0)"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xffabc", "claims a header of 4294967295 bytes"),
        (b"not an array", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_lying_headers(member: bytes, found: str, tmp_path: Path) -> None:
    """A header that claims what the bytes cannot be is refused before anything is allocated."""
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes({"a": member}))
    tracemalloc.start()
    try:
        with pytest.raises(PairError) as error:
            read_npz(path, ["a"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.value.found.startswith(found)
    assert peak < 2**22


def test_zip_bomb(tmp_path: Path) -> None:
    """100 MB of zeros packed into 100 KB are refused by the declared size, at little memory."""
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes({"a": npy_header("'<f8'", "(13107200,)") + bytes(100 * 2**20)}, zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    try:
        with pytest.raises(
            PairError, match=r"claims 1048\d+ bytes in \d+ packed ones\n  allowed: at most 1048576 bytes"
        ):
            read_npz(path, ["a"], max_bytes=2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("declared", [10, 200, 2**31])
def test_directory_that_lies_about_the_size(declared: int, tmp_path: Path) -> None:
    """A zip directory whose size is not that of the data is one error, however large the claim."""
    path = tmp_path / "a.npz"
    data = npz_bytes({"a": npy_bytes(np.zeros(50))})
    at = data.rindex(b"PK\x01\x02")
    path.write_bytes(data[: at + 24] + struct.pack("<I", declared) + data[at + 28 :])
    with pytest.raises(PairError):
        read_npz(path, ["a"])


def test_huge_zip_directory(tmp_path: Path) -> None:
    """A directory of many entries is refused before it is parsed into objects."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(300):
            archive.writestr(f"{index}.npy", b"")
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(PairError, match="holds 300 entries"):
        read_npz(tmp_path / "a.npz", ["0"])
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 9_000_000, 0, 0)
    (tmp_path / "b.npz").write_bytes(bytes(9_000_000) + end)
    with pytest.raises(PairError, match="its zip directory claims 9000000 bytes"):
        read_npz(tmp_path / "b.npz", ["a"])


def test_entries_that_are_no_plain_member(tmp_path: Path) -> None:
    """Two entries of one name, other zip methods and encryption are refused."""
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy_bytes(np.zeros(1)))
        archive.writestr("a", npy_bytes(np.zeros(1)))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(PairError, match="holds the key 'a' twice"):
        read_npz(path, ["a"])
    path.write_bytes(npz_bytes({"a": npy_bytes(np.zeros(99))}, zipfile.ZIP_LZMA))
    with pytest.raises(PairError, match="zip method 14"):
        read_npz(path, ["a"])
    data = npz_bytes({"a": npy_bytes(np.zeros(9))})
    at = data.rindex(b"PK\x01\x02") + 8
    path.write_bytes(data[:at] + b"\x01\x00" + data[at + 2 :])
    with pytest.raises(PairError, match="not encrypted"):
        read_npz(path, ["a"])


def test_file_over_the_bound(tmp_path: Path) -> None:
    """A file larger than the bound is not opened."""
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes({"a": npy_bytes(np.zeros(1000))}))
    with pytest.raises(PairError) as error:
        read_npz(path, ["a"], max_file=100)
    assert str(error.value) == f"{path}: {path.stat().st_size} bytes\n  allowed: at most 100 bytes"


def _zeros(mib: int) -> bytes:
    return npy_header("'<f8'", f"({mib << 17},)") + bytes(mib << 20)


def test_bound_on_all_arrays_together(tmp_path: Path) -> None:
    """Arrays that are small enough one by one are refused by their sum, before the first one is unpacked."""
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes({key: _zeros(4) for key in "abc"}, zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    try:
        with pytest.raises(PairError) as error:
            read_npz(path, "abc", max_bytes=5 * 2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error.value) == f"{path}: claims 12583296 bytes in its 3 arrays\n  allowed: at most 10485760 bytes"
    assert peak < 2**20
    assert [*read_npz(path, "ab", max_bytes=5 * 2**20)] == ["a", "b"]


def test_pickles_of_one_file_share_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pickle of one array unfolds to is not there for the next one."""
    monkeypatch.setattr("pytest_overfit.two_view.pair.npz.Budget", lambda: Budget(5 * 2**18))
    path = tmp_path / "a.npz"
    names = npy_bytes(np.array([f"{number:05}" for number in range(2000)], dtype=object))
    path.write_bytes(npz_bytes(dict.fromkeys("abc", names)))
    assert len(read_npz(path, "ab", objects=True)) == 2
    with pytest.raises(PairError, match=r"key 'c': the pickle unfolds to more than"):
        read_npz(path, "abc", objects=True)
