"""A watchdog over the user's code: what does not come back within its limit is stopped, and the line that hangs named.

A timer thread waits for the limit and a short grace. First a signal raises ``Hung`` in the main thread: that gets out
of sleeps, locks, queues and loops in Python, and the run ends with a verdict. What keeps the exception, or hangs in C
code, stays: then a session of pytest says where, writes it down and ends its process (``LastWord``); where C code
holds the interpreter itself, faulthandler's own thread does. Outside of a session nobody ends a process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.process_state import born_since, forked, free_signal, is_debugged
from pytest_overfit.run.record import Hang
from pytest_overfit.run.stack_lines import MOST_LINES, frames_of, users_lines

GRACE = 2.0  # seconds after a limit, for whoever looks at it by himself between two steps
PATIENCE = 1.5  # of the slowest step so far, where that is longer: a slow run looks at its limit after it
LAST_SECONDS = 1.5  # after the signal, for the main thread to leave; then the process ends
NATIVE_SECONDS = 0.8  # later still, where C code holds the interpreter
TELL_SECONDS, JOIN_SECONDS = 20.0, 5.0  # for the last word of a process that ends; for a thread with nothing to do
WORKER_SECONDS = 0.3  # for the workers of a loader to say where they are
MOST_RAISED, MOST_BYTES = 8, 2000  # signals while a block ends: one per loader and one of ours; of what a worker says
LOADER = f"{os.sep}torch{os.sep}utils{os.sep}data{os.sep}dataloader.py"


class Stopped(BaseException):
    """Raised in the main thread by a signal that ends a run: no ``except Exception`` of user code may keep it."""


class Hung(Stopped):
    """The block did not come back within its limit; ``curves`` has what was trained until then, if anything."""

    def __init__(self, hang: Hang) -> None:
        super().__init__(hang.text())
        self.hang = hang
        self.curves: Any = None


@dataclass(frozen=True)
class LastWord:
    """Who ends a process that cannot be stopped otherwise.

    Args:
        stderr: a file descriptor past whatever captures the output.
        tell: told of the hang before the process ends.
        native: faulthandler's timer, of which a process has one, is nobody else's.
    """

    stderr: int
    tell: Callable[[Hang], None] = lambda hang: None
    native: bool = True


@dataclass
class _Block:
    """One limited block; ``due`` is when something has to happen next."""

    limit: float
    grace: float
    what: str
    began: float
    due: float
    children: frozenset[int | None]
    hang: Hang | None = None
    raised: bool = False
    closed: bool = False


class Watchdog:
    """Limits blocks of user code. Without a limit it costs nothing; blocks may be nested, and the innermost counts.

    Example:
        >>> watchdog = Watchdog()
        >>> try:
        ...     with watchdog.limited(60, what="the loader"):
        ...         batch = next(iter([1, 2]))
        ... except Hung as hung:
        ...     print(hung.hang.where)

    Args:
        last: ends the process where the main thread cannot be stopped; None: it is only told on stderr.
    """

    def __init__(self, last: LastWord | None = None) -> None:
        self.last = last
        self.doing = ""
        self._step: float | None = None  # when the latest one ended
        self._slowest = 0.0
        self._blocks: list[_Block] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._signalled: _Block | None = None
        self._signal: int | None = None
        self._watched: int | None = None  # the thread that has entered
        self._process = 0
        self._pipe: tuple[int, ...] = ()

    def limited(
        self, seconds: float | None, *, what: str, grace: float = GRACE
    ) -> contextlib.AbstractContextManager[None]:
        """The block raises ``Hung`` unless it ends within its limit and a grace; None: no limit.

        One that has been told to stop, and ends by itself all the same, raises ``Hung`` too.
        """
        return contextlib.nullcontext() if seconds is None else _Limited(self, seconds, what, grace)

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        """What the innermost block is busy with, for the report."""
        self.doing, self._step = f"{name} {detail}".strip(), None

    def alive(self) -> None:
        """A step has come to its end: what takes long at every step is slow, and does not hang."""
        now = time.monotonic()
        last, self._step = self._step, now
        if last is not None and now - last > self._slowest:
            self._slowest = now - last
            if self._blocks and self._due(self._blocks[-1]) > self._blocks[-1].due:
                self._arm()

    def left(self) -> float | None:
        """Seconds until the limit of the innermost block; None where there is none."""
        if not self._blocks:
            return None
        block = self._blocks[-1]
        return max(0.0, block.began + block.limit - time.monotonic())

    def renew(self) -> None:
        """The innermost block has its whole limit once more from now on, unless it is being stopped."""
        with self._changed:
            if not self._blocks or self._blocks[-1].hang is not None:
                return
            block = self._blocks[-1]
            block.began = time.monotonic()
            block.due = block.began + block.limit + block.grace
            self._changed.notify()
        self._arm()

    def over(self) -> None:
        """The user's code of the innermost block has come back: what follows is not interrupted any more."""
        if self._blocks:
            self._leave(self._blocks[-1])

    def _enter(self, block: _Block) -> None:
        self.doing = block.what
        with self._changed:
            self._blocks.append(block)
            self._changed.notify()
        if self._thread is None:
            self._process, self._watched = os.getpid(), threading.get_ident()
            self._signal = free_signal()
            if self._signal is not None:
                self._pipe = os.pipe()
                os.set_blocking(self._pipe[0], False)
                signal.signal(self._signal, self._on_signal)
            self._thread = threading.Thread(target=self._wait, name="overfit-watchdog", daemon=True)
            self._thread.start()
        self._arm()

    def _leave(self, block: _Block) -> None:
        """What it has not come to, where a signal raises in the middle of it, the next call does."""
        block.closed = True  # from here on the handler raises nothing
        with self._changed:
            if block in self._blocks:
                self._blocks.remove(block)
                for outer in self._blocks[-1:]:  # which has time to come to its own end
                    outer.due = max(outer.due, time.monotonic() + outer.grace)
            self._changed.notify()
        self._arm()
        if not self._blocks:
            self._disarm()

    def _disarm(self) -> None:
        if self._thread is None:
            return
        self._thread.join(JOIN_SECONDS)
        if self._signal is not None:
            until = time.monotonic() + JOIN_SECONDS
            while self._signalled is not None and not self._signalled.raised and time.monotonic() < until:
                time.sleep(0.001)  # a signal that is on its way must not meet the default, which ends the process
            signal.signal(self._signal, signal.SIG_DFL)
            ends, self._pipe = self._pipe, ()
            for end in ends:
                os.close(end)
        self._thread = self._signalled = self._signal = None

    def _arm(self) -> None:
        """The timer of last resort, which needs no interpreter."""
        if self.last is None or not self.last.native:
            return
        if not self._blocks:
            faulthandler.cancel_dump_traceback_later()
            return
        seconds = self._due(self._blocks[-1]) - time.monotonic() + LAST_SECONDS + NATIVE_SECONDS
        faulthandler.dump_traceback_later(max(0.1, seconds), exit=True, file=self.last.stderr)

    def _due(self, block: _Block) -> float:
        """When the block hangs."""
        return max(block.due, block.began + block.limit + PATIENCE * self._slowest)

    def _wait(self) -> None:
        with self._changed:
            while self._blocks:
                block = self._blocks[-1]
                if block.hang is None:
                    block.due = self._due(block)
                wait = block.due - time.monotonic()
                if wait > 0:
                    self._changed.wait(None if math.isinf(wait) else wait)
                elif block.hang is None:
                    self._stop(block)
                else:
                    self._end(block, block.hang)

    def _stop(self, block: _Block) -> None:
        """The first stage: the stack is taken, the workers born in the block are ended, the main thread is woken."""
        frame = sys._current_frames().get(self._watched or 0)
        children = born_since(block.children)
        waits = any(path.endswith(LOADER) for path, _, _ in frames_of(frame))
        told = self._ask_workers(children) if waits and self._signal is not None else ()
        stack = (*told, *users_lines(frame))[:MOST_LINES]
        waiting = "waiting for a DataLoader worker: " if waits else ""
        seconds = time.monotonic() - block.began
        block.hang = Hang(
            block.limit, seconds, self.doing, waiting + (stack[0] if stack else "no frame of Python"), stack
        )
        block.due = time.monotonic() + LAST_SECONDS
        for child in children:
            child.kill()
        for child in children:  # torch raises in the main thread what it hears of it: before we do
            child.join(WORKER_SECONDS)
        if self._signal is not None and self._watched is not None:
            self._signalled = block
            signal.pthread_kill(self._watched, self._signal)

    def _end(self, block: _Block, hang: Hang) -> None:
        """The second stage: nothing gets the main thread out."""
        block.due = math.inf
        if block.closed:
            return
        lines = "\n".join(f"  {line}" for line in hang.stack)
        text = f"\noverfit: {hang.text()}\n{lines}\n"
        if self.last is None:
            sys.stderr.write(f"{text}overfit: it cannot be stopped here: nothing raised in it arrives\n")
            return
        os.write(self.last.stderr, f"{text}overfit: it cannot be stopped: this process ends\n".encode())
        if self.last.native:  # what is told takes longer, and may meet C code that holds the interpreter
            faulthandler.dump_traceback_later(TELL_SECONDS, exit=True, file=self.last.stderr)
        try:
            self.last.tell(hang)
        finally:
            for child in born_since(block.children):
                child.kill()
            os._exit(1)

    def _ask_workers(self, children: list[Any]) -> tuple[str, ...]:
        """Where the workers of a loader are; those that were forked have the handler of this process."""
        asked = [child for child in children if forked(child)]
        for child in asked:
            with contextlib.suppress(OSError, ValueError):
                os.kill(child.pid, self._signal or 0)
        if asked:
            time.sleep(WORKER_SECONDS)
        try:
            told = os.read(self._pipe[0], MOST_BYTES).decode(errors="replace").splitlines()
        except BlockingIOError:
            return ()
        return tuple(told[: MOST_LINES // 2])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that was forked in the block
            lines = users_lines(frame, until="_bootstrap")  # above it are the frames that it was forked in
            os.write(self._pipe[1], "".join(f"{line}\n" for line in lines).encode()[: MOST_BYTES // 4])
            return
        block = self._signalled
        if block is None or block.raised:
            return
        block.raised = True
        if block.closed or block.hang is None:
            return
        if is_debugged():
            block.hang, block.due = None, math.inf
            faulthandler.cancel_dump_traceback_later()
            return
        raise Hung(block.hang)


class _Limited:
    """One block of a watchdog."""

    def __init__(self, watchdog: Watchdog, seconds: float, what: str, grace: float) -> None:
        self.watchdog, self.seconds, self.what, self.grace = watchdog, seconds, what, grace

    def __enter__(self) -> None:
        now, born = time.monotonic(), frozenset(child.pid for child in multiprocessing.active_children())
        self.block = _Block(self.seconds, self.grace, self.what, now, now + self.seconds + self.grace, born)
        self.watchdog._enter(self.block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = self.block
        for _ in range(MOST_RAISED):
            try:
                self.watchdog._leave(block)
                break
            except (Hung, RuntimeError):  # our signal, or torch's word that a worker was killed, in the middle of it
                if block.hang is None:
                    raise
        if block.hang is None:
            return
        for child in born_since(block.children) * 2:
            with contextlib.suppress(RuntimeError):
                child.kill()
                child.join(LAST_SECONDS)
        if error is None or isinstance(error, Exception):  # it was kept, or made another error of
            raise Hung(block.hang) from error


@contextlib.contextmanager
def refused_after(seconds: float | None, *, what: str, last: LastWord | None = None) -> Iterator[None]:
    """A block that is no run: what does not come back is an error that names the line.

    Raises:
        OverfitError: it did not come back within ``max_seconds``.
    """
    try:
        with Watchdog(last).limited(seconds, what=what):
            yield
    except Hung as hung:
        hang = hung.hang
        raise OverfitError(
            f"HUNG: {hang.text()}",
            where=what,
            allowed=f"to come back within max_seconds ({hang.limit:g} s)",
            hint="mend what that line waits for; raise max_seconds where it is merely slow",
        ) from None
