"""Workers beyond the cores of a machine train in turn: runs that share a core slow one another down."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

POLL_SECONDS = 0.05


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def core_of_its_own(folder: Path, *, workers: int, threads: int = 1) -> Iterator[None]:
    """Waits until fewer runs go than the cores carry, and counts as one of them for the block.

    Example:
        >>> with core_of_its_own(Path("/tmp/session"), workers=8):     # doctest: +SKIP
        ...     train()

    A worker that dies gives its place up: the operating system holds the locks.

    Args:
        folder: of lock files, the same for all workers of a session; made where it is missing.
        workers: how many processes want to train.
        threads: of one run.
    """
    places = max(1, available_cores() // threads)
    if workers <= places:
        yield
        return
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"core{number}.lock") for number in range(places)]
    while (taken := _take_one(locks)) is None:
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        taken.release()


def _take_one(locks: Sequence[BaseFileLock]) -> BaseFileLock | None:
    from filelock import Timeout

    for lock in locks:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            return lock
    return None
