"""How the ranks of a launch meet: on the launcher's store, with a process group where the user has made none."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pytest_overfit.run.ranks.group import POLL_SECONDS, RankError, Ranks, group_seconds
from pytest_overfit.run.ranks.guard import Guard
from pytest_overfit.settings.launch import Launch

PREFIX = "pytest_overfit"


def join(launch: Launch, *, timeout: float, say: Callable[[str], None] = lambda text: None) -> Ranks:
    """Meets the other ranks of a launch, and makes a process group where the user has none.

    Args:
        timeout: seconds that the others may take, here and in every collective.
        say: writes past whatever has captured the output.

    Raises:
        RankError: a rank did not come; it is named.
    """
    own = dist.group.WORLD is None
    if own:
        store = next(iter(rendezvous("env://", timeout=timedelta(seconds=timeout))))[0]
    else:
        store = dist.distributed_c10d._get_default_store()
    ours = PrefixStore(PREFIX, store)
    _meet(ours, launch, timeout)
    if own:
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group(
            backend="cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore(f"{PREFIX}/group", store),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=group_seconds(timeout)),
        )
    listened = PrefixStore(PREFIX, store.clone()) if hasattr(store, "clone") else ours
    guard = Guard(listened, launch, timeout=timeout, abort=_abort_nccl, say=say)
    guard.start()
    return Ranks(launch, ours, guard, own=own)


def _meet(store: Any, launch: Launch, timeout: float) -> None:
    store.set(f"here/{launch.rank}", "")
    until = time.monotonic() + timeout
    absent = list(range(launch.size))
    while absent := [rank for rank in absent if not store.check([f"here/{rank}"])]:
        if time.monotonic() > until:
            names = f"rank{'' if len(absent) == 1 else 's'} {', '.join(map(str, absent))}"
            raise RankError(
                f"{names} of {launch.size} did not come within {timeout:g} s",
                where="torchrun",
                allowed="all ranks in their first run within overfit.distributed.timeout",
                hint="look at what that rank does before its first overfit test, or raise the timeout",
            )
        time.sleep(POLL_SECONDS)


def _abort_nccl() -> None:
    """Collectives of NCCL wait on the device, where no signal reaches them; those of gloo end by their timeout."""
    if torch.cuda.is_available():
        dist.distributed_c10d._abort_process_group()
