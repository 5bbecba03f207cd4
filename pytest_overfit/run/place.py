"""Where a process stands among those that share its machine, or its run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_overfit.run.observer import Observer
    from pytest_overfit.run.ranks.group import Ranks
    from pytest_overfit.run.watchdog import LastWord
    from pytest_overfit.settings.settings import OverfitSettings


@dataclass(frozen=True)
class Place:
    """One of several workers with runs of their own, or one of several ranks of the same run.

    Example:
        >>> Place(worker=5, workers=8).turn, Place().shares
        (5, 1)

    Args:
        workers: how many such processes share this machine; pytest-xdist starts them.
        worker: the number of this one, from 0.
        ranks: all processes of the launch where torchrun has started them.
        shared: a folder that all workers of the session have in common.
        last: ends this process where user code hangs and cannot be stopped.
    """

    workers: int = 1
    worker: int = 0
    ranks: Ranks | None = None
    shared: Path | None = None
    last: LastWord | None = None

    def taken(self, settings: OverfitSettings) -> AbstractContextManager[Any]:
        """Takes the device of a run for the block.

        A GPU is the current one. On the CPU a worker waits: no more of them train at once than there are cores, so
        that the seconds of a budget are those of one process alone.

        Raises:
            OverfitError: the device is not there.
        """
        from pytest_overfit.run.cores import core_of_its_own
        from pytest_overfit.run.device import as_current, choose_device

        named = "auto" if settings.device == "model" else settings.device
        device = choose_device(named, turn=self.turn).device
        if device.type != "cpu":
            return nullcontext() if settings.device == "model" else as_current(device)
        if self.shared is None:
            return nullcontext()
        threads = settings.threads if isinstance(settings.threads, int) else 1
        return core_of_its_own(self.shared, workers=self.workers, threads=threads)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who tells the other ranks what this one is busy with."""
        return () if self.ranks is None else (self.ranks.observer,)

    @property
    def shares(self) -> int:
        """How many processes share the CPU of this machine."""
        return self.workers if self.ranks is None else self.ranks.launch.local_size

    @property
    def turn(self) -> int:
        """Whose turn it is: the devices of this machine are taken in this order."""
        return self.worker if self.ranks is None else self.ranks.launch.local_rank
