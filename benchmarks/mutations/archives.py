"""Archives of numpy arrays: the zip around them, the headers in them, and the pickles of object arrays."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import warnings
import zipfile
from random import Random

import numpy as np

from mutations.raw import items, raw

DESCRIPTIONS = (
    "'<f8'", "'<U1'", "'<U1000000000'", "'|O'", "'|V16'", "'|S1'", "'<i1'", "'|b1'", "'<c16'", "'<M8[s]'", "'<f2'",
    "'>i8'",
    "[('scene_id', '<i8'), ('im1_id', '<i8'), ('im2_id', '<i8'), ('score', '<f8')]", "[('a', '|O')]", "('<f8', (2, 2))",
    "[('a', '<f8', (1000, 1000))]", "[('scene_id', '<f4'), ('im1_id', 'S4'), ('im2_id', '|b1')]", "1", "[]", "'xyz'",
    "{}",
)  # fmt: skip
SHAPES = (
    "()", "(0,)", "(1,)", "(-1,)", "(2,)", "(3,)", "(1, 4)", "(4611686018427387904,)", "(4611686018427387904, 4)",
    "(2, 0)",
    "(1.5,)", "[1]", "1", "(True,)", "('a',)", "(1, 1, 1, 1, 1, 1)", "(99999999999999999999999,)", "((1,),)", "None",
)  # fmt: skip
STEPS = (
    b"N", b"]", b"}", b")", b"(", b"0", b"1", b"2", b"\x94", b"q\x00", b"h\x00", b"j\xff\xff\xff\x7f",
    b"r\xff\xff\xff\x7f",
    b"a", b"e", b"l", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"\x93", b"\x81", b"cos\nsystem\n",
    b"cnumpy\ndtype\n",
    b"cnumpy._core.multiarray\n_reconstruct\n", b"\x8c\x03abc", b"X\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f",
    b"\x8a\xff" + b"\x7f" * 255, b"I1\n", b"L" + b"9" * 5000 + b"L\n", b"Fnan\n", b"S'\\x41'\n", b"V\\ud800\n",
    b"K\x05",
    b"G\x7f\xf0\0\0\0\0\0\0", b".", b"\x80\x05", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x97",
    b"\x96\xff\xff\xff\xff\0\0\0\0",
)  # fmt: skip


def seeds(index: bytes, scene: str) -> list[bytes]:
    """An index as it is written, and in the dialects of published files."""
    names = np.array([None, "ground.jpeg", "aerial.jpeg"], dtype=object)
    scenes = np.array([scene] * 3, dtype=object)
    record = np.dtype([("scene_id", "<i8"), ("im1_id", "<i8"), ("im2_id", "<i8"), ("score", "<f8")])
    rows = np.empty(1, dtype=object)
    rows[0] = [0, 1, 2, 0.5]
    dialects = (
        np.array([(0, 1, 2, 0.5)], dtype=record),
        np.array([[0, 1, 2, 0.5]], dtype=object),
        rows,
        np.array([[0.0, 1, 2]]),
    )
    made = [index]
    for pairs in dialects:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, scenes=scenes[:1], images=names, pairs=pairs, images_scene_name=scenes, allow_pickle=True
        )
        made.append(buffer.getvalue())
    return made


def mutate(data: bytes, random: Random) -> bytes:
    """One of: raw bytes; a member under a sound zip; the members themselves; the fields of the zip."""
    kind = random.random()
    if kind < 0.15:
        return raw(data, random)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = random.randrange(len(members))
    name, body = members[at]
    if kind < 0.75:
        members[at] = (name, _array(body, random))
    elif kind < 0.8:
        size = random.choice((1, 8, 30, 70)) << 20 if random.random() < 0.05 else 2**16
        members[at] = (name, npy(random.choice(DESCRIPTIONS), f"({size},)", bytes(size)))
    elif kind < 0.9:
        members = _listed(members, random)
    return _packed(members, random, damaged=kind >= 0.85)


def npy(descr: str, shape: str, body: bytes) -> bytes:
    """A member whose header claims what it is told."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode("latin-1", "replace")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 65536) + text + body


def _array(member: bytes, random: Random) -> bytes:
    (length,) = struct.unpack_from("<H", member, 8)
    header, body = member[10 : 10 + length], member[10 + length :]
    action = random.randrange(6)
    if action == 0:
        return raw(member, random)
    if action == 1:
        return npy(random.choice(DESCRIPTIONS), random.choice(SHAPES), body)
    if action == 2:
        nested = random.choice(("(" * 900 + ")" * 900, "-" * 3000 + "1", "[" * 90 + "]" * 90, "{1:" * 50 + "}" * 50))
        return npy(nested, random.choice(SHAPES), body) if random.random() < 0.5 else npy("'<f8'", nested, body)
    if action == 3:
        version = random.choice((b"\1\0", b"\2\0", b"\3\0", b"\xff\xff"))
        return b"\x93NUMPY" + version + struct.pack("<I", random.choice((0, 118, 2**16, 2**31))) + header + body
    if b"'|O'" in header or random.random() < 0.5:
        pickled = (
            body
            if b"'|O'" in header
            else pickle.dumps(np.array(["a", None, 1, 2.5], dtype=object), random.randrange(6))
        )
        return npy("'|O'", random.choice(("(1,)", "(3,)", "(4,)")), _pickle(pickled, random))
    return member[: 10 + length] + raw(body, random)


def _pickle(data: bytes, random: Random) -> bytes:
    """The steps of a pickle, with some dropped, moved, repeated, damaged or added."""
    starts = [position for _, _, position in pickletools.genops(data) if position is not None]
    steps = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    if random.random() < 0.5:
        steps = items(steps, random)
    for _ in range(random.randint(0, 3)):
        at = random.randint(0, len(steps))
        steps[at:at] = [random.choice(STEPS)] * random.choice(
            (1, 1, 1, 3, 1000, 50_000 if random.random() < 0.1 else 10)
        )
    return b"".join(steps)


def _listed(members: list[tuple[str, bytes]], random: Random) -> list[tuple[str, bytes]]:
    found = list(members)
    at = random.randrange(len(found))
    action = random.randrange(5)
    if action == 0:
        del found[at]
    elif action == 1:
        found.append(found[at])
    elif action == 2:
        found[at] = (
            random.choice(("pairs", "pairs.npy.npy", "../pairs.npy", "", "\ud800.npy", "a" * 70_000 + ".npy")),
            found[at][1],
        )
    elif action == 3:
        found += [(f"{number}.npy", b"") for number in range(random.choice((10, 300)))]
    else:
        found[at] = (found[at][0], found[random.randrange(len(found))][1])
    return found


def _packed(members: list[tuple[str, bytes]], random: Random, *, damaged: bool) -> bytes:
    buffer = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, body in members:
                name = name.encode("utf-8", "replace").decode()[:60_000] or "."
                method = random.choice(methods) if random.random() < 0.1 else random.choice(methods[:2])
                archive.writestr(name, body, method, 1)
            if random.random() < 0.1:
                archive.comment = random.randbytes(random.choice((1, 100, 65535)))
    data = bytearray(buffer.getvalue())
    if damaged:  # a field of a local header, of the directory, or of its end
        mark = random.choice((b"PK\3\4", b"PK\1\2", b"PK\5\6"))
        at = data.rindex(mark) if random.random() < 0.5 else data.index(mark)
        field = at + random.choice((4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 42))
        size = random.choice((2, 4))
        value = random.choice((0, 1, 8, 9, 12, 14, 99, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 2**26, random.getrandbits(32)))
        data[field : field + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(data)
