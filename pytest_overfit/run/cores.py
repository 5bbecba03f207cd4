"""Workers beyond the cores of a machine train in turn: runs that share a core slow one another down."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

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
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"core{number}.lock") for number in range(places)]
    while True:
        for lock in locks:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                break
        else:
            time.sleep(POLL_SECONDS)
            continue
        break
    try:
        yield
    finally:
        lock.release()
