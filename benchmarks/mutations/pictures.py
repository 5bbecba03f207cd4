"""EXR, JPEG and PNG: their attributes, tables, segments and chunks, under checksums that hold."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from mutations.raw import NUMBERS, items, raw

COMPRESSIONS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")


def exr_seeds(folder: Path) -> list[bytes]:
    """A small depth map in every compression, as float and half, and one of three channels."""
    import OpenEXR

    random = np.random.default_rng(0)
    depth = random.uniform(1, 50, (40, 24)).astype(np.float32)
    channels = [{"Y": depth}, {"Y": depth.astype(np.float16)}, dict.fromkeys("BGR", depth)]
    made = []
    for number, name in enumerate(COMPRESSIONS * 2 + ("ZIP",)):
        header = {"compression": getattr(OpenEXR, f"{name}_COMPRESSION"), "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, channels[number // len(COMPRESSIONS)]) as file:
            file.write(str(folder / "seed.exr"))
        made.append((folder / "seed.exr").read_bytes())
    return made


def exr(data: bytes, random: Random) -> bytes:
    """The header's attributes, the table of chunks, and the chunks, put together again with fitting offsets."""
    if random.random() < 0.15:
        return raw(data, random)
    attributes, at = [], 8
    while data[at]:
        start = at
        at = data.index(b"\0", at) + 1
        at = data.index(b"\0", at) + 1
        (size,) = struct.unpack_from("<i", data, at)
        at += 4 + size
        attributes.append(data[start:at])
    at += 1
    (first,) = struct.unpack_from("<Q", data, at)
    offsets = list(struct.unpack_from(f"<{(first - at) // 8}Q", data, at))
    chunks = [data[start:end] for start, end in zip(offsets, [*offsets[1:], len(data)], strict=True)]
    head, shift = data[:8], 0
    action = random.randrange(8)
    if action == 0:
        attributes = items(attributes, random)
    elif action in (1, 2):
        attributes = [_attribute(each, random) if random.random() < 0.3 else each for each in attributes]
    elif action == 3:
        chunks = items(chunks, random)
    elif action in (4, 5):
        which = random.randrange(len(chunks))
        chunk = bytearray(chunks[which])
        if random.random() < 0.3:
            at = random.choice((0, 4))
            chunk[at : at + 4] = struct.pack("<I", random.choice(NUMBERS) % 2**32)
        else:
            chunk[8:] = raw(bytes(chunk[8:]), random)
            chunk[4:8] = struct.pack("<I", len(chunk) - 8)
        chunks[which] = bytes(chunk)
    elif action == 6:
        shift = random.choice(NUMBERS)
    else:
        head = head[:4] + struct.pack("<I", random.choice((2, 0x202, 0x402, 0x802, 0x1002, 3, 0xFFFFFFFF)))
    body = head + b"".join(attributes) + b"\0"
    start, table = len(body) + 8 * len(chunks), []
    for chunk in chunks:
        table.append(start)
        start += len(chunk)
    if shift and table:
        table[random.randrange(len(table))] += shift
    return body + b"".join(struct.pack("<Q", offset % 2**64) for offset in table) + b"".join(chunks)


def _attribute(data: bytes, random: Random) -> bytes:
    name, kind, rest = data.split(b"\0", 2)
    value = bytearray(rest[4:])
    action = random.randrange(4)
    if action == 0 and len(value) >= 4:
        at = 4 * random.randrange(len(value) // 4)
        value[at : at + 4] = struct.pack("<I", random.choice((*NUMBERS, 23, 39, 100_000, 4000)) % 2**32)
    elif action == 1 and len(value) == 1:
        value[0] = random.randrange(256) if random.random() < 0.3 else random.randrange(12)
    elif action == 2:
        value = bytearray(raw(bytes(value), random))
    else:
        kind = random.choice(
            (b"int", b"float", b"string", b"box2i", b"chlist", b"preview", b"tiledesc", b"", b"x" * 300)
        )
    return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + bytes(value)


def _image(mode: str) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 150, (40, 56, 4), dtype=np.uint8)
    pixels[8:30, 8:40] = 7
    return Image.fromarray(pixels).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)


def _saved(mode: str, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    _image(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_seeds() -> list[bytes]:
    """Baseline, progressive, grey, four colours, with restarts and with an orientation."""
    exif = Image.Exif()
    exif[274] = 6
    return [
        _saved("RGB", "JPEG"),
        _saved("RGB", "JPEG", progressive=True, quality=95),
        _saved("L", "JPEG"),
        _saved("CMYK", "JPEG"),
        _saved("RGB", "JPEG", restart_marker_rows=1),
        _saved("RGB", "JPEG", exif=exif, subsampling=0, dpi=(72, 72), comment=b"x" * 50),
    ]


def jpeg(data: bytes, random: Random) -> bytes:
    """Segments, and the coded pixels after each start of a scan."""
    if random.random() < 0.2:
        return raw(data, random)
    pieces, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
        (size,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + size
        if data[at + 1] == 0xDA:
            while end + 1 < len(data) and not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        pieces.append(data[at:end])
        at = end
    action = random.randrange(6)
    if action == 0:
        pieces = items(pieces, random)
    elif action == 1:
        pieces += [random.choice(pieces)] * random.choice((1, 5, 70))
    elif action == 2:
        kind = random.choice((0xC0, 0xC2, 0xC3, 0xC9, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE))
        body = random.randbytes(random.choice((0, 2, 17, 64)))
        pieces.insert(random.randint(0, len(pieces)), bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body)
    else:
        which = random.randrange(len(pieces))
        piece = bytearray(pieces[which])
        frame = [i for i, each in enumerate(pieces) if each[1] in (0xC0, 0xC2)]
        if action == 3 and frame:
            which = frame[0]
            piece = bytearray(pieces[which])
            at = random.choice((4, 5, 7, 9, 10, 11, 12))
            piece[at : at + 2] = struct.pack(">H", random.choice((0, 1, 8, 0x11, 0x22, 255, 4096, 9000, 65500, 65535)))
        elif action == 4:
            piece[4:] = raw(bytes(piece[4:]), random)
            if piece[1] != 0xDA:
                piece[2:4] = struct.pack(">H", (len(piece) - 2) % 65536)
        else:
            piece[2:4] = struct.pack(">H", random.choice((0, 1, 2, 3, len(piece), 65535)))
        pieces[which] = bytes(piece)
    return data[:2] + b"".join(pieces) + (b"\xff\xd9" if random.random() < 0.8 else b"")


def png_seeds() -> list[bytes]:
    """Colour, grey, palette, one bit, with alpha, with text and a profile."""
    return [
        _saved("RGB", "PNG"),
        _saved("L", "PNG"),
        _saved("P", "PNG"),
        _saved("1", "PNG"),
        _saved("RGBA", "PNG"),
        _saved("L", "PNG", dpi=(72, 72), icc_profile=b"x" * 200),
    ]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with the checksum that it needs."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(data: bytes, random: Random) -> bytes:
    """Chunks under right checksums: header, pixels, and kinds that were not there before."""
    if random.random() < 0.1:
        return raw(data, random)
    at, chunks = 8, []
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append(data[at + 4 : at + 8 + size])
        at += 12 + size
    action = random.randrange(6)
    if action == 0:
        chunks = items(chunks, random)
    elif action == 1:
        header = bytearray(chunks[0])
        place = random.randrange(7)
        if place < 2:
            header[4 + 4 * place : 8 + 4 * place] = struct.pack(">I", random.choice((*NUMBERS, 8000, 20_000)) % 2**32)
        else:
            header[10 + place] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[0] = bytes(header)
    elif action == 2:
        pixels = random.choice((b"", bytes(2**20), random.randbytes(200), b"\5" * 5000))
        packed = zlib.compress(pixels)
        chunks = [
            b"IDAT" + raw(packed, random) if each[:4] == b"IDAT" and random.random() < 0.7 else each for each in chunks
        ]
    elif action in (3, 4):
        kind = random.choice((
            b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"PLTE", b"tRNS", b"gAMA", b"pHYs", b"sRGB", b"cHRM", b"eXIf",
            b"acTL", b"fcTL",
            b"fdAT", b"IDAT", b"IHDR", b"IEND", b"bKGD", b"\0\0\0\0", b"abcd", b"ABCD",
        ))  # fmt: skip
        bomb = b"a\0\0" + zlib.compress(bytes(random.choice((10, 2**16, 2**22))), 9)
        itxt = b"a\0\1\0\0\0" + zlib.compress(bytes(2**21), 9)
        body = random.choice((b"", b"\0" * 8, bomb, itxt, random.randbytes(40), struct.pack(">II", 2**31 - 1, 0)))
        chunks[random.randint(0, 1) : 0] = []
        chunks.insert(random.randint(0, len(chunks)), kind + body)
    else:
        which = random.randrange(len(chunks))
        chunks[which] = chunks[which][:4] + raw(chunks[which][4:], random)
    return data[:8] + b"".join(png_chunk(each[:4], each[4:]) for each in chunks)
