"""The interpreter for numpy's object pickles: everything numpy writes, and nothing that could run or grow."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.index import read_index
from pytest_overfit.two_view.pair.readers import read_camera
from pytest_overfit.two_view.pair.unpickle import UNFOLDED_BYTES, Budget, load_array
from tests.two_view.pair.support import npy_bytes, npz_bytes, object_npy

REFUSED = "the pickle asks for"


def _objects(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


SCALARS = st.one_of(
    st.none(), st.booleans(), st.text(max_size=40), st.floats(allow_nan=False), st.integers(-(2**70), 2**70)
)  # fmt: skip


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=4).map(tuple)), max_size=20), st.integers(0, 5))
def test_reads_what_numpy_writes(values: list[Any], protocol: int) -> None:
    """Object arrays of plain values come back equal and of the same types, for every pickle protocol."""
    array = _objects(values)
    loaded = load_array(pickle.dumps(array, protocol=protocol))
    assert loaded.tolist() == values
    assert [type(value) for value in loaded] == [type(value) for value in values]


@pytest.mark.parametrize("protocol", range(5))
def test_numpy_scalars_and_nested_arrays(protocol: int) -> None:
    """numpy's own scalars become plain values, arrays inside of arrays stay arrays, byte order is kept."""
    inner = np.arange(3, dtype=">i4")
    array = _objects([np.str_("käse"), np.float32(2.5), np.int64(-7), inner, np.array(["a", "bcd"]), [1, 2]])
    loaded = load_array(pickle.dumps(array, protocol=protocol)).tolist()
    assert loaded[:3] == ["käse", 2.5, -7]
    assert loaded[3].tolist() == [0, 1, 2]
    assert loaded[4].tolist() == ["a", "bcd"]
    assert loaded[5] == [1, 2]


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_keep_their_order(order: Any) -> None:
    """A 2-D array of rows keeps its shape in C and in Fortran order."""
    rows = np.array([[0, 0, 1, 0.5], [1, 5, 6, 0.25]], dtype=object, order=order)
    assert load_array(pickle.dumps(rows)).tolist() == rows.tolist()


def test_modules_of_numpy_1_are_read() -> None:
    """A pickle that names numpy 1's modules reads like one of numpy 2."""
    data = pickle.dumps(_objects(["a", None, np.int64(3)]), protocol=2)
    renamed = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in renamed
    assert load_array(renamed).tolist() == ["a", None, 3]


class _Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _hostile(sentinel: Path) -> dict[str, Any]:
    touch = f"touch {sentinel}"
    return {
        "os.system": _Runs(os.system, touch),
        "eval": _Runs(eval, f"open({str(sentinel)!r}, 'w')"),
        "exec": _Runs(exec, f"open({str(sentinel)!r}, 'w')"),
        "popen": _Runs(subprocess.Popen, ["touch", str(sentinel)]),
        "getattr": _Runs(getattr, "a", "upper"),
        "open": _Runs(open, str(sentinel), "w"),
        "nested": [("a", [_Runs(os.system, touch)])],
        "in a dtype": _Runs(np.dtype, _Runs(os.system, touch)),
        "in an array": _objects([_Runs(os.system, touch)]),
    }


@pytest.mark.parametrize("name", sorted(_hostile(Path())))
@pytest.mark.parametrize("protocol", range(5))
def test_calls_are_refused_and_not_made(name: str, protocol: int, tmp_path: Path) -> None:
    """Whatever function a pickle asks for, at the top or deep inside, it is named, refused and never called."""
    sentinel = tmp_path / "executed"
    data = pickle.dumps(_objects([_hostile(sentinel)[name]]), protocol=protocol)
    with pytest.raises(PairError, match=REFUSED):
        load_array(data)
    assert not sentinel.exists()


@pytest.mark.parametrize("key", ["scenes", "images", "pairs", "images_scene_name"])
def test_hostile_key_of_an_index(key: str, tmp_path: Path) -> None:
    """Each array of an index file refuses a pickle that calls, and the error names file, key and function."""
    sentinel, path = tmp_path / "executed", tmp_path / "train.npz"
    members = {name: npy_bytes(np.array(["a"])) for name in ("scenes", "images", "images_scene_name")}
    members["pairs"] = npy_bytes(np.array([[0, 0, 0]]))
    members[key] = npy_bytes(_objects([_Runs(os.system, f"touch {sentinel}")]))
    path.write_bytes(npz_bytes(members))
    with pytest.raises(PairError) as error:
        read_index(path)
    assert str(error.value) == (
        f"{path}, key '{key}': the pickle asks for 'posix.system'\n"
        "  allowed: None, strings, numbers, and lists, tuples or numpy arrays of them\n"
        "  next: this file may want to run code: do not load it"
    )
    assert not sentinel.exists()


@pytest.mark.parametrize("key", ["intrinsics", "cam2world", "more"])
def test_hostile_key_of_a_camera(key: str, tmp_path: Path) -> None:
    """A camera file with a pickle is refused; a pickle under a key that nobody asked for is never looked at."""
    sentinel, path = tmp_path / "executed", tmp_path / "a.npz"
    members = {"intrinsics": npy_bytes(np.diag([9.0, 9.0, 1.0])), "cam2world": npy_bytes(np.eye(4))}
    members[key] = npy_bytes(_objects([_Runs(os.system, f"touch {sentinel}")]))
    path.write_bytes(npz_bytes(members))
    if key == "more":
        assert read_camera(path).cam2world.shape == (4, 4)
    else:
        with pytest.raises(PairError, match="holds pickled objects"):
            read_camera(path)
    assert not sentinel.exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
DTYPE = b"cnumpy\ndtype\n(V%s\nI0\nI1\ntR(I3\nV|\nNNNI-1\nI-1\nI63\ntb"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(b"cos\nsystem\n.", "asks for 'os.system'", id="global"),
        pytest.param(b"cnumpy\nload\n.", "asks for 'numpy.load'", id="numpy function"),
        pytest.param(b"cnumpy\nndarray.dumps\n.", "asks for 'numpy.ndarray.dumps'", id="dotted"),
        pytest.param(
            b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(I0\ntVb\ntR.", "'os.system'", id="other class"
        ),
        pytest.param(
            b"cnumpy.core.multiarray\n_reconstruct\n(Va\n(I0\ntVb\ntR.", "calls reconstruct on str", id="no class"
        ),
        pytest.param(b"Va\nVb\n\x93.", "asks for 'a.b'", id="stack global"),
        pytest.param(b"I1\nI2\n\x93.", "int in place of a string", id="stack global of numbers"),
        pytest.param(b"\x82\x01.", "opcode EXT1", id="extension 1"),
        pytest.param(b"\x83\x01\x00.", "opcode EXT2", id="extension 2"),
        pytest.param(b"\x84\x01\x00\x00\x00.", "opcode EXT4", id="extension 4"),
        pytest.param(b"Pid\n.", "opcode PERSID", id="persistent id"),
        pytest.param(b"Va\nQ.", "opcode BINPERSID", id="binary persistent id"),
        pytest.param(b"(Vecho\nios\nsystem\n.", "opcode INST", id="inst"),
        pytest.param(b"(cos\nsystem\nVecho\no.", "asks for 'os.system'", id="obj"),
        pytest.param(b"(cnumpy\ndtype\nVecho\no.", "opcode OBJ", id="obj of an allowed word"),
        pytest.param(b"cnumpy\nndarray\n)\x81.", "opcode NEWOBJ", id="newobj"),
        pytest.param(b"}.", "opcode EMPTY_DICT", id="dict"),
        pytest.param(b"cnumpy\nndarray\n(I1\ntR.", "calls ndarray on int", id="constructor"),
        pytest.param(b"]]b.", "sets the state of list", id="build a list"),
        pytest.param(b"cnumpy\nndarray\n]b.", "sets the state of ndarray", id="build a class"),
        pytest.param(b"Va\n)R.", "calls str", id="call a string"),
        pytest.param(b"cnumpy\ndtype\n(VV9999999999\nI0\nI1\ntR.", "calls dtype on str", id="huge dtype"),
        pytest.param(b"cnumpy\ndtype\n(V%s\nI0\nI1\ntR." % b"i8,O", "calls dtype on str", id="record dtype"),
        pytest.param(
            DTYPE % b"i8" + b"(I3\nV|\n(VaV\nt}NI-1\nI-1\nI0\ntb.", "opcode EMPTY_DICT", id="dtype with fields"
        ),
        pytest.param(
            DTYPE % b"i8" + b"(I3\nV|\n(Va\nI1\ntNNI-1\nI-1\nI0\ntb.",
            "dtype that is not plain",
            id="dtype with subarray",
        ),
        pytest.param(
            DTYPE % b"O8" + b"(I3\nV|\n(Va\ntNNI-1\nI-1\nI0\ntb.", "dtype that is not plain", id="dtype state"
        ),
        pytest.param(b"c_codecs\nencode\n(Va\nVrot13\ntR.", "calls encode on str", id="codec"),
        pytest.param(
            b"cnumpy.core.multiarray\nscalar\n(" + DTYPE % b"O8" + b"Va\ntR.", "array of object", id="scalar object"
        ),
        pytest.param(
            RECONSTRUCT + b"(I1\n(I99999999\nt" + DTYPE % b"f8" + b"I00\nVabc\ntb.", "array of float64", id="shape lie"
        ),
        pytest.param(
            RECONSTRUCT + b"(I1\n(L%dL\nt" % 2**80 + DTYPE % b"f8" + b"I00\nVabc\ntb.", "shape", id="huge shape"
        ),
        pytest.param(RECONSTRUCT + b"(I1\n(I-1\nt" + DTYPE % b"f8" + b"I00\nVabc\ntb.", "shape", id="negative shape"),
        pytest.param(
            RECONSTRUCT + b"(I1\n(I9\nt" + DTYPE % b"O8" + b"I00\n]tb.", "0 items for an array", id="object count"
        ),
        pytest.param(
            RECONSTRUCT + b"(I1\n(I1\nt" + DTYPE % b"O8" + b"I00\n(cnumpy\ndtype\nltb.", "is dtype", id="item"
        ),
        pytest.param(b"Va\n.", "holds str, not an array", id="no array"),
        pytest.param(RECONSTRUCT + b".", "holds Array, not an array", id="no state"),
        pytest.param(b"", "is damaged", id="empty"),
        pytest.param(b"\x85.", "too few values", id="underflow"),
        pytest.param(b"t.", "no MARK", id="no mark"),
        pytest.param(b"g9\n.", "is damaged", id="no memo"),
        pytest.param(b"\x80\x04K", "is damaged", id="truncated"),
        pytest.param(b"I" + b"9" * 5000 + b"\n.", "is damaged", id="endless number"),
    ],
)
def test_refusals(data: bytes, found: str) -> None:
    """Every way a pickle has to reach beyond plain values is one PairError that says what it asked for."""
    with pytest.raises(PairError) as error:
        load_array(data)
    assert found in error.value.found


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"Va\nr\xff\xff\xff\x7f.", id="memo index"),
        pytest.param(b"\x96" + struct.pack("<Q", 2**40) + b"abc.", id="length of bytearray8"),
        pytest.param(b"\x8e" + struct.pack("<Q", 2**40) + b"abc.", id="length of binbytes8"),
        pytest.param(b"\x8d" + struct.pack("<Q", 2**63) + b"abc.", id="length of binunicode8"),
        pytest.param(b"\x8b\xff\xff\xff\x7fabc.", id="length of long4"),
        pytest.param(b"\x95" + struct.pack("<Q", 2**60) + b"abc.", id="length of frame"),
        pytest.param(
            b"\x8c\xff"
            + b"x" * 255
            + b"q\x00"
            + b"c_codecs\nencode\nq\x01("
            + b"h\x01h\x00Vlatin1\n\x86R" * 25000
            + b"l.",
            id="many copies of one string",
        ),
    ],
)
def test_memory_bombs(data: bytes) -> None:
    """A small pickle that asks for a lot of memory is refused after taking little."""
    tracemalloc.start()
    try:
        with pytest.raises(PairError):
            load_array(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(data) + 2**21


def test_big_string_copied_many_times_runs_out_of_budget() -> None:
    """Copying one long string over and over stops at what a file may unfold to."""
    text = b"x" * 200_000
    copies = b"(" + b"h\x01h\x00Vlatin1\n\x86R" * 2500 + b"l."
    data = b"X" + struct.pack("<I", len(text)) + text + b"q\x00c_codecs\nencode\nq\x01" + copies
    with pytest.raises(PairError, match=f"unfolds to more than {UNFOLDED_BYTES >> 20} MiB"):
        load_array(data)


@pytest.mark.parametrize(
    "opcode",
    [b"]", b"\x85", b"\x94", b"p0\n", b"(", b"N", b"h\x00"],
    ids=["lists", "tuples", "memo", "text memo", "marks", "constants", "memo reads"],
)
def test_long_runs_of_one_opcode_run_out_of_budget(opcode: bytes) -> None:
    """A run of the opcodes that cost the most memory per byte stops at what a file may unfold to."""
    with pytest.raises(PairError, match="unfolds to more than"):
        load_array(b"]q\x00" + opcode * 200_000 + b".", Budget(2**23))


def test_short_tuples_stay_within_the_budget() -> None:
    """The most expensive pickle that numpy writes, many tuples of two small numbers, is still read."""
    values = [(number % 7, number % 5) for number in range(20_000)]
    for protocol in range(6):
        assert load_array(pickle.dumps(_objects(values), protocol=protocol)).tolist() == values


def test_recursive_list_is_no_index(tmp_path: Path) -> None:
    """A list that contains itself is read without an endless loop, and refused as a row of the index."""
    loop: list[Any] = [0, 0, 1]
    loop.append(loop)
    members = {name: npy_bytes(np.array(["a", "b"])) for name in ("scenes", "images", "images_scene_name")}
    pairs = np.empty(1, dtype=object)
    pairs[0] = loop
    stream = io.BytesIO()
    pickle.dump(pairs, stream, protocol=4)
    members["pairs"] = object_npy(stream.getvalue())
    (tmp_path / "train.npz").write_bytes(npz_bytes(members))
    with pytest.raises(PairError, match=r"pairs\[0\]\.score is list"):
        read_index(tmp_path / "train.npz")
