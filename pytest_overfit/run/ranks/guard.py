"""Signs of life: every rank tells what it is doing, and whoever is lost is named by the others.

A daemon thread beats on the store of the launcher. The main thread may be blocked in a collective, in user code or
for ever: only the thread can say so, and only a signal gets the main thread out.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from pytest_overfit.run.stack_lines import is_library
from pytest_overfit.run.watchdog import GRACE, Stopped
from pytest_overfit.settings.launch import Launch

BEAT_SECONDS = 0.5
STALE_SECONDS = 2.0  # without a beat, once something has gone wrong: the process is gone
SETTLE_SECONDS = 4.0  # for beats to become stale after a collective has failed
GRACE_SECONDS = 1.5  # for a main thread to find out by itself
# The same for a run that has a limit of its own: a rank in a collective waits for the lost one to go.
HUNG_SECONDS = 6.0
LAST_SECONDS = 15.0  # after the signal; then the process ends without a report
FAILED = "failed"
GONE = (RuntimeError, OSError)  # what torch raises for a store or a group that is no more
WAITING = (f"torch{os.sep}distributed", f"torch{os.sep}autograd", str(Path(__file__).resolve().parent))


@dataclass(frozen=True)
class Failure:
    """Which rank was lost, and how; ``interrupted`` by Ctrl-C, which is nobody's fault."""

    rank: int
    why: str
    interrupted: bool = False


@dataclass
class Peer:
    """What is known of a rank: its last beat, its progress, and when they last changed."""

    beat: int = -1
    moves: int = -1
    doing: str = "not heard of yet"
    line: str = ""
    waits: bool = False
    allowance: float = 0.0
    seen: float = 0.0
    moved: float = 0.0

    def text(self) -> str:
        return f"{self.doing}{', ' if self.line else ''}{self.line}"


class Guard:
    """Beats for this rank and watches the others.

    Args:
        store: its own connection to the store: the main thread may hold the other one.
        timeout: seconds without progress after which a rank counts as hanging.
        abort: breaks collectives off that do not end by themselves.
        say: the last word, where even the signal does not get the main thread out.
    """

    def __init__(
        self,
        store: Any,
        launch: Launch,
        *,
        timeout: float,
        abort: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.store, self.launch, self.timeout, self.abort, self.say = store, launch, timeout, abort, say
        self.me = Peer(beat=0, moves=0, doing="starting")
        now = time.monotonic()
        self.peers = {rank: Peer(seen=now, moved=now) for rank in range(launch.size)}
        self.failure: Failure | None = None
        self.failed_at = 0.0
        self.until = math.inf
        self.seconds = 0.0
        self.last_seconds = LAST_SECONDS
        self.watching = self.ending = False
        self.signalled = False
        self.main = threading.main_thread().ident
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._loop, name="overfit-guard", daemon=True)
        self.previous: Any = None

    def start(self) -> None:
        """Begins to beat; from now on SIGTERM ends a run with a report instead of the process."""
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGTERM, self._on_signal)
        self.thread.start()

    def stop(self) -> None:
        """No more beats. SIGTERM stays held: a launcher sends it to the ranks that end after a red first one."""
        self.stopping.set()
        self.thread.join(timeout=5)

    def moved(self, doing: str, allowance: float = 0.0) -> None:
        """This rank makes progress; what it does now may take so many seconds longer than the timeout."""
        self.me.doing, self.me.allowance = doing, allowance
        self.me.moves += 1

    def limit(self, seconds: float | None) -> None:
        """From now on a run has so many seconds; None: as long as the ranks make progress."""
        self.last_seconds, self.seconds = (LAST_SECONDS, 0.0) if seconds is None else (HUNG_SECONDS, seconds)
        self.until = math.inf if seconds is None else time.monotonic() + seconds + GRACE

    def left(self) -> float | None:
        """Seconds until the limit of the run; None where it has none."""
        return None if math.isinf(self.until) else max(0.0, self.until - GRACE - time.monotonic())

    def fail(self, failure: Failure) -> None:
        """Tells all ranks that the run has ended badly; the first word counts."""
        if self.failure is None:
            self.failure, self.failed_at = failure, time.monotonic()
            with contextlib.suppress(*GONE):
                if not self.store.check([FAILED]):
                    text = {"rank": failure.rank, "why": failure.why, "interrupted": failure.interrupted}
                    self.store.set(FAILED, json.dumps(text))

    def explain(self, error: BaseException | None = None) -> Failure:
        """Who was lost, after a collective has failed: whoever beats no more, else whoever is not waiting."""
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until and self.failure is None and not self._stale(STALE_SECONDS):
            time.sleep(0.1)
        if self.failure is None:
            self.fail(self._culprit() or Failure(self.launch.rank, _first_line(error)))
        assert self.failure is not None
        return self.failure

    def _loop(self) -> None:
        while not self.stopping.wait(BEAT_SECONDS):
            try:
                self._beat()
                self._listen()
            except (
                *GONE,
                ValueError,
                TypeError,
            ) as error:  # the store is gone, and with it the launcher or the rank that kept it
                if self.stopping.is_set():
                    return
                if self.failure is None:
                    why = f"the store of the launcher is gone ({_first_line(error)})"
                    self.failure, self.failed_at = Failure(0, why), time.monotonic()
            if self.failure is None and self.watching:
                self._judge()
            if self.failure is not None:
                self._get_out()

    def _beat(self) -> None:
        self.me.beat += 1
        self.me.line, self.me.waits = _where(sys._current_frames().get(self.main or 0))
        told = [self.me.beat, self.me.moves, self.me.doing, self.me.line, self.me.waits, self.me.allowance]
        self.store.set(f"beat/{self.launch.rank}", json.dumps(told))

    def _listen(self) -> None:
        now = time.monotonic()
        for rank, peer in self.peers.items():
            if not self.store.check([f"beat/{rank}"]):
                continue
            beat, moves, peer.doing, peer.line, peer.waits, peer.allowance = json.loads(self.store.get(f"beat/{rank}"))
            peer.seen = now if beat != peer.beat else peer.seen
            peer.moved = now if moves != peer.moves else peer.moved
            peer.beat, peer.moves = beat, moves
        if self.failure is None and self.store.check([FAILED]):
            self.failure, self.failed_at = Failure(**json.loads(self.store.get(FAILED))), now

    def _judge(self) -> None:
        """A rank is lost that shows no sign of life, or no progress, for the whole timeout."""
        now = time.monotonic()
        late = {r for r, peer in self.peers.items() if now - peer.moved > self.timeout + peer.allowance}
        idle = {r for r, peer in self.peers.items() if peer.waits}
        if now > self.until:
            if (found := self._culprit()) is not None:
                self.fail(replace(found, why=f"{found.why}; the run had {self.seconds:g} s (max_seconds)"))
        elif self._stale(self.timeout) or late - idle or len(late) == self.launch.size:
            found = self._culprit()
            if found is not None:
                self.fail(found)

    def _stale(self, seconds: float) -> list[int]:
        now = time.monotonic()
        return [r for r, peer in self.peers.items() if r != self.launch.rank and now - peer.seen > seconds]

    def _culprit(self) -> Failure | None:
        now = time.monotonic()
        if gone := self._stale(STALE_SECONDS):
            peer = self.peers[gone[0]]
            return Failure(gone[0], f"died: no sign of life for {now - peer.seen:.1f} s, last seen in {peer.text()}")
        busy = [rank for rank, peer in self.peers.items() if not peer.waits]
        behind = sorted(busy or self.peers, key=lambda rank: (self.peers[rank].moved, self.peers[rank].moves))
        peer = self.peers[behind[0]]
        return Failure(behind[0], f"hangs: alive, without progress for {now - peer.moved:.1f} s in {peer.text()}")

    def _get_out(self) -> None:
        """A main thread that has not found out by itself is stopped; one that cannot be ends the process."""
        if not self.watching or self.ending or time.monotonic() < self.failed_at + GRACE_SECONDS:
            return
        if not self.signalled:
            self.signalled = True
            with contextlib.suppress(*GONE):
                self.abort()
            if self.main is not None and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(self.main, signal.SIGTERM)
        elif time.monotonic() > self.failed_at + GRACE_SECONDS + self.last_seconds:
            assert self.failure is not None
            self.say(f"overfit: rank {self.failure.rank} {self.failure.why}")
            os._exit(1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.ending:  # the report is being written
            return
        if self.watching:
            self.ending = True
            raise Stopped
        signal.signal(signal.SIGTERM, self.previous or signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _where(frame: FrameType | None) -> tuple[str, bool]:
    """The line of user code that a thread is in, and whether it waits for other ranks."""
    inner, waits = frame, False
    while inner is not None and is_library(inner.f_code.co_filename):
        waits = waits or any(part in inner.f_code.co_filename for part in WAITING)
        inner = inner.f_back
    shown = inner or frame
    if shown is None:
        return "", False
    return f"{shown.f_code.co_name} at {Path(shown.f_code.co_filename).name}:{shown.f_lineno}", waits


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip() if error is not None else ""
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}" if error is not None else "lost"
