"""The ranks of a session as one: they begin a run together, share what the first has decided, and end it together."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.batch import fingerprint, freeze_batch
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.phases import PROBES, TRAINING
from pytest_overfit.run.ranks.guard import GONE, SETTLE_SECONDS, Failure, Guard
from pytest_overfit.run.ranks.messages import packed, tensors_of, unpacked, with_tensors
from pytest_overfit.run.watchdog import Stopped
from pytest_overfit.settings.launch import Launch
from pytest_overfit.settings.settings import Distributed

Value = TypeVar("Value")
POLL_SECONDS = 0.005
PATIENCE = 5.0  # timeouts that the first rank may probe its model for while the others wait
SPARE_SECONDS = 5.0


# What torch remarks on how a model is written; a test suite that makes errors of warnings passes with one process.
ADVICE = ("FSDP2-wrapped module .* returned a view", "Grad strides do not match bucket view strides")


class RankError(OverfitError):
    """A rank was lost: nothing that several ranks do together can go on in this session."""


class Ranks:
    """All processes of one launch.

    Example:
        >>> ranks = join(launched(os.environ), timeout=120)               # doctest: +SKIP
        >>> with ranks.run("test_model.py::test_learns"):                 # doctest: +SKIP
        ...     verdict = ranks.share(train_and_judge(), result_to_json, result_from_json)

    Args:
        own: the process group was made here, and is taken down by ``leave``.
    """

    def __init__(self, launch: Launch, store: Any, guard: Guard, *, own: bool) -> None:
        self.launch, self.store, self.guard, self.own = launch, store, guard, own
        self.settings = Distributed()
        self.count = 0
        self.control = dist.new_group(backend="gloo", timeout=timedelta(seconds=guard.timeout))

    @property
    def rank(self) -> int:
        return self.launch.rank

    @property
    def size(self) -> int:
        return self.launch.size

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that decides, judges and reports."""
        return self.launch.is_first

    @property
    def observer(self) -> Observer:
        """Tells the other ranks what this one is busy with."""
        return _Teller(self.guard)

    @contextlib.contextmanager
    def run(self, title: str, settings: Distributed, *, seconds: float | None = None) -> Iterator[None]:
        """All ranks begin and end the block together.

        Args:
            seconds: the limit of the block; a rank that does not come back from it is lost.

        Raises:
            RankError: a rank was lost, is in another test, or failed alone; it is named.
        """
        guard = self.guard
        self._refuse_if_lost()
        self._set_timeout(settings.timeout)
        self.settings = settings
        guard.moved(f"beginning {title}")
        guard.watching = True
        try:
            self._begin_together(title)
            guard.limit(seconds)
            with warnings.catch_warnings():
                for text in ADVICE:
                    warnings.filterwarnings("ignore", message=text)
                yield
            self._end_together("")
        except Stopped:
            raise self._lost(None) from None
        except KeyboardInterrupt:
            guard.ending = True
            guard.fail(Failure(self.rank, "was interrupted", interrupted=True))
            raise
        except RankError:
            guard.ending = True
            raise
        except Exception as error:
            if self._is_broken(error):
                raise self._lost(error) from None
            self._end_together(f"{type(error).__name__}: {error}")
            raise
        finally:
            guard.limit(None)
            guard.watching = False

    def share(self, value: Value, write: Callable[[Value], bytes], read: Callable[[bytes], Value]) -> Value:
        """The first rank's value on every rank. It may take as long as the first rank shows progress.

        Args:
            write, read: the value as plain data, and back.
        """
        self.count += 1
        key = f"share/{self.count}"
        if self.is_first:
            self.store.set(key, write(value))
            return value
        self._await([key], seconds=None if self.guard.watching else self.guard.timeout)
        return read(self.store.get(key))

    def gather(self, text: str) -> list[str]:
        """The text of every rank, on every rank."""
        self.count += 1
        keys = [f"gather/{self.count}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], text)
        self._await(keys, seconds=None if self.guard.watching else self.guard.timeout)
        return [self.store.get(key).decode() for key in keys]

    def agree(self, value: Value) -> Value:
        """The first rank's small value on every rank, by a collective: for decisions in the middle of a loop."""
        return self._told(value, source=0)  # type: ignore[no-any-return]

    def any_of(self, value: Value | None) -> Value | None:
        """The value of the first rank that has one, on every rank."""
        found = torch.tensor(self.size if value is None else self.rank)
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.control)
        if int(found) == self.size:
            return None
        return self._told(value, source=int(found))  # type: ignore[no-any-return]

    def _told(self, value: Any, *, source: int) -> Any:
        """The value of one rank on every rank, as a text in a tensor: torch's own way for objects is a pickle."""
        text = packed(value).encode() if self.rank == source else b""
        size = torch.tensor(len(text))
        dist.broadcast(size, src=source, group=self.control)
        letters = torch.zeros(int(size), dtype=torch.uint8)
        if self.rank == source:
            letters = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        dist.broadcast(letters, src=source, group=self.control)
        return value if self.rank == source else unpacked(bytes(letters.tolist()).decode())

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, in place; on the device that it is on, without a host-device sync."""
        dist.all_reduce(values, group=self.control if values.device.type == "cpu" else None)
        return values

    @property
    def shards_models(self) -> bool:
        """Whether every rank holds a part of the parameters only, so that each forward pass is one of all ranks."""
        return self.settings.strategy == "fsdp"

    @property
    def total_of_shards(self) -> Callable[[Tensor], Tensor] | None:
        """``total`` where what is measured of a parameter is that of a shard."""
        return self.total if self.shards_models else None

    def agreed_batch(self, batch: Value) -> Value:
        """The first rank's batch where the ranks have drawn different ones, as they do without a seed."""
        if len({*self.gather(fingerprint(batch))}) == 1:
            return batch
        frozen = freeze_batch(batch, "cpu")
        return self.share(frozen, tensors_of, lambda data: with_tensors(frozen, data))

    def await_end(self) -> None:
        """The session is over: the first rank goes last but one, so that no launcher ends it in its report."""
        if self.guard.failure is None:
            with contextlib.suppress(RankError, *GONE):
                self.store.set(f"left/{self.rank}", "")
                self._await([f"left/{rank}" for rank in range(self.size)], seconds=self.guard.timeout)

    def leave(self) -> None:
        """Gives up the group, and the signs of life."""
        self.guard.stop()
        if self.own and dist.group.WORLD is not None and self.guard.failure is None:
            dist.destroy_process_group()

    def _set_timeout(self, seconds: float) -> None:
        """That of this run: the groups were made with the one of the first."""
        if seconds == self.guard.timeout:
            return
        self.guard.timeout = seconds
        with contextlib.suppress(AttributeError, RuntimeError):
            change = dist.distributed_c10d._set_pg_timeout
            change(timedelta(seconds=seconds), self.control)
            if self.own:
                change(timedelta(seconds=group_seconds(seconds)), dist.group.WORLD)

    def _begin_together(self, title: str) -> None:
        titles = self.gather(title)
        if len({*titles}) > 1:
            other = next(rank for rank, text in enumerate(titles) if text != titles[0])
            raise OverfitError(
                f"rank 0 runs {titles[0]}, rank {other} {titles[other]}",
                where="torchrun",
                allowed="the same tests in the same order on every rank",
                hint="switch random orders off (-p no:randomly), and skip on every rank or on none",
            )

    def _end_together(self, problem: str) -> None:
        """Nobody goes on before everybody has come to the end; an error of one rank alone is an error of all."""
        self.guard.moved("at the end of a run")
        self.count += 1
        keys = [f"gather/{self.count}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], problem)
        if not problem:
            self._await(keys)
        else:
            with contextlib.suppress(RankError):
                self._await(keys, seconds=SETTLE_SECONDS)
        told = {rank: self.store.get(key).decode() for rank, key in enumerate(keys) if self.store.check([key])}
        wrong = [rank for rank, text in told.items() if text]
        if len(wrong) in (0, self.size):
            return
        failure = Failure(wrong[0], f"failed: {told[wrong[0]].splitlines()[0]}")
        self.guard.ending = True
        self.guard.fail(failure)
        if not problem:
            raise _told(failure, self)

    def _await(self, keys: list[str], *, seconds: float | None = None) -> None:
        """Waits without holding the store, for as long as the guard finds nobody lost.

        Raises:
            RankError: a rank was lost meanwhile, or ``seconds`` are over.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while not self.store.check(keys):
            self._refuse_if_lost()
            if until is not None and time.monotonic() > until:
                raise RankError("the other ranks did not come", where="torchrun")
            time.sleep(POLL_SECONDS)

    def _refuse_if_lost(self) -> None:
        if self.guard.failure is not None:
            if self.guard.failure.interrupted:
                raise KeyboardInterrupt
            raise _told(self.guard.failure, self)

    def _is_broken(self, error: Exception) -> bool:
        """Whether an exception comes from a collective rather than from user code."""
        text = str(error)
        words = ("gloo", "Connection closed by peer", "NCCL", "ProcessGroup", "process group")
        return (
            self.guard.failure is not None
            or isinstance(error, getattr(dist, "DistError", ()))
            or (isinstance(error, RuntimeError) and any(word in text for word in words))
        )

    def _lost(self, error: Exception | None) -> BaseException:
        self.guard.ending = True
        failure = self.guard.explain(error)
        return KeyboardInterrupt() if failure.interrupted else _told(failure, self)


def group_seconds(timeout: float) -> float:
    """The timeout of the process group: that of NCCL, which ends the process, leaves the guard time to report."""
    return timeout * 2 + SPARE_SECONDS if torch.cuda.is_available() and dist.is_nccl_available() else timeout


def _told(failure: Failure, ranks: Ranks) -> RankError:
    return RankError(
        f"rank {failure.rank} of {ranks.size} {failure.why}",
        where="torchrun",
        allowed=f"ranks that go on, each step within {ranks.guard.timeout:g} s (overfit.distributed.timeout)",
        hint=f"look at the output of rank {failure.rank}, or raise the timeout where a step takes that long",
    )


class _Teller(Observer):
    """Passes on what this rank is busy with."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        longest = max(seconds_left or 0.0, self.guard.timeout * PATIENCE) if name == PROBES else seconds_left or 0.0
        self.guard.moved(f"{name} {detail}".strip(), 0.0 if name == TRAINING else longest)
