"""One process that looks like a launched one: what a trainer's code may insist on, for as long as it runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch.distributed as dist

# Read by data classes and samplers; MASTER_ADDR and MASTER_PORT are not: the group meets on no port.
LAUNCH = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


@contextlib.contextmanager
def alone(wanted: bool = True) -> Iterator[None]:
    """A process group of this one process on a private store, and the variables of a launcher, for the block.

    Example:
        >>> with alone():
        ...     DistributedSampler(dataset)                                   # doctest: +SKIP

    Where a group is there already (torchrun), or none can be had, nothing is changed.
    """
    if not wanted or not dist.is_available() or dist.is_initialized():
        yield
        return
    before = {name: os.environ.get(name) for name in LAUNCH}
    os.environ.update({name: value for name, value in LAUNCH.items() if before[name] is None})
    try:
        with contextlib.suppress(RuntimeError):  # no network interface at all: whoever needs the group will say so
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
