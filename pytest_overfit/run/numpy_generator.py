"""NumPy's global random generator, read and put back for next to nothing where it was seeded and nothing was drawn.

NumPy copies the 624 numbers of its state one by one: 0.2 ms to read it and as much to write it, many times a run.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

NUMBERS = 624  # of a Mersenne twister; behind them in memory stands how many of them were used
MOST_KNOWN = 64

_seeds: dict[bytes, int] = {}  # what the memory of the state is right behind seeding -> the seed


def seed_numpy(seed: int) -> None:
    """Seeds it, and remembers by what it can be known again."""
    np.random.seed(seed)  # noqa: NPY002 - the generator that models draw from
    if (words := drawn_so_far()) is not None and words not in _seeds:
        if len(_seeds) >= MOST_KNOWN:
            _seeds.clear()
        _seeds[words] = seed


def numpy_state() -> Any:
    """What ``put_numpy_back`` takes: the seed, where nothing was drawn since, else the whole state."""
    words = drawn_so_far()
    seed = None if words is None else _seeds.get(words)
    return np.random.get_state(legacy=False) if seed is None else seed  # noqa: NPY002


def put_numpy_back(state: Any) -> None:
    """Puts back what ``numpy_state`` gave."""
    if isinstance(state, int):
        seed_numpy(state)
    else:
        np.random.set_state(state)  # noqa: NPY002


def drawn_so_far() -> bytes | None:
    """The memory of the state, which every number that is drawn changes; None where it is another generator's.

    A second normal number, which NumPy keeps from the first, changes nothing there: it is none that was seeded.
    """
    generator = np.random.mtrand._rand._bit_generator
    if type(generator) is not np.random.MT19937 or not _is_as_known():
        return None
    return _memory(generator)


def _memory(generator: Any) -> bytes:
    return ctypes.string_at(generator.ctypes.state_address, 4 * (NUMBERS + 1))


@functools.cache
def _is_as_known() -> bool:
    """Whether this NumPy keeps the state in memory as it is read here."""
    generator = np.random.MT19937(3)
    held: Any = generator.state["state"]
    words: npt.NDArray[np.uint32] = np.frombuffer(_memory(generator), np.uint32)
    return bool((words[:NUMBERS] == held["key"]).all()) and int(words[NUMBERS]) == held["pos"]
