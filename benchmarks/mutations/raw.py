"""Mutations that know nothing of a format: bytes flipped, cut, repeated, and numbers that are lengths somewhere."""

from __future__ import annotations

import struct
from random import Random

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, -1, -2, -(2**31))
LONG = (0, 1, 2**31, 2**32, 2**62, 2**63 - 1, -1, -(2**63))


def raw(data: bytes, random: Random, *, most: int = 4) -> bytes:
    """A few changes; half of them among the first 600 bytes, where headers are."""
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 1, 2, most))):
        at = random.randrange(min(600, len(changed)) if random.random() < 0.5 else len(changed))
        length = random.choice((1, 2, 4, 8, 16, 64, 256))
        action = random.randrange(10)
        if action == 0:
            changed[at] ^= 1 << random.randrange(8)
        elif action == 1:
            changed[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif action in (2, 3):
            order = random.choice("<>")
            changed[at : at + 4] = struct.pack(f"{order}I", random.choice(NUMBERS) % 2**32)
        elif action == 4:
            changed[at : at + 8] = struct.pack("<Q", random.choice(LONG) % 2**64)
        elif action == 5:
            del changed[at : at + length]
        elif action == 6:
            changed[at:at] = random.randbytes(length)
        elif action == 7:
            changed[at:at] = changed[at : at + length] * random.choice((1, 2, 50))
        elif action == 8:
            start = random.randrange(len(changed))
            changed[at : at + length] = changed[start : start + length]
        else:
            del changed[at + 1 :]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def items(things: list[bytes], random: Random, *, most: int = 3) -> list[bytes]:
    """A list of pieces with some dropped, repeated, swapped, moved or damaged."""
    found = list(things)
    for _ in range(random.choice((1, 1, 1, 2, most))):
        if not found:
            return found
        at, other = random.randrange(len(found)), random.randrange(len(found))
        action = random.randrange(6)
        if action == 0:
            del found[at]
        elif action == 1:
            found[at:at] = [found[at]] * random.choice((1, 2, 100))
        elif action == 2:
            found[at], found[other] = found[other], found[at]
        elif action == 3:
            found.insert(other, found.pop(at))
        else:
            found[at] = raw(found[at], random)
    return found
