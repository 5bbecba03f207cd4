"""Live progress of a session: one line that rewrites itself on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from pytest_overfit.run.observer import Observer
from pytest_overfit.run.phases import TRAINING
from pytest_overfit.text.progress import phase_line, progress_line
from pytest_overfit.text.terminal_width import columns, padded

REFRESH_SECONDS = 0.2  # between two looks of a terminal's line
LOG_SECONDS = 30.0  # between two lines of a log, and before the first
ROOM_FOR_CTRL_C = 2  # the terminal echoes ^C behind the line


class TerminalLine:
    """Rewrites one line of a terminal, and leaves pytest's own line as it was.

    It writes past pytest's own writer, whose idea of the current column it would spoil.
    """

    room: int | None = 80 - 1 - ROOM_FOR_CTRL_C  # characters, as the last look found

    def __init__(self, config: pytest.Config) -> None:
        self.reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self.capture: Any = config.pluginmanager.getplugin("capturemanager")
        self.written = 0.0
        self.width = 0
        self.before = ""

    def wants(self, now: float, *, begins: bool) -> bool:
        """Whether a text is to be written now; ``begins``: it is the first of its phase."""
        return begins or now - self.written >= REFRESH_SECONDS

    def write(self, text: str) -> None:
        """Shows a text in place of the one before."""
        self.written = time.monotonic()
        with self.capture.global_and_fixture_disabled():  # the terminal's width is known only with its stdout in place
            wide = shutil.get_terminal_size().columns
            if not self.width:
                self._begin(wide)
            self.room = max(20, wide - 1 - ROOM_FOR_CTRL_C)
            while columns(text) > self.room:
                text = text[: self.room - columns(text)]
            sys.stdout.write(f"\r{padded(text, self.width)}")
            sys.stdout.flush()
        self.width = max(self.width, columns(text), len(self.before))

    def close(self) -> None:
        """Leaves everything as if nothing had been shown."""
        if not self.width:
            return
        with self.capture.global_and_fixture_disabled():
            sys.stdout.write(f"\r{' ' * (self.width + ROOM_FOR_CTRL_C)}\r{self.before}")
            sys.stdout.flush()
        self.width = 0

    def _begin(self, wide: int) -> None:
        """Keeps what pytest has written on its line; where that is not known, or wraps, begins a new one."""
        self.before = str(getattr(self.reporter._tw, "_current_line", ""))
        if self.reporter._tw.width_of_current_line != len(self.before) or len(self.before) > wide - 3:
            self.before = ""
            self.reporter.ensure_newline()


class LogLines:
    """Adds a line now and then, once the run has lasted a while."""

    room: int | None = None

    def __init__(self, config: pytest.Config) -> None:
        self.reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self.capture: Any = config.pluginmanager.getplugin("capturemanager")
        self.written = time.monotonic()

    def wants(self, now: float, *, begins: bool) -> bool:
        return now - self.written >= LOG_SECONDS

    def write(self, text: str) -> None:
        self.written = time.monotonic()
        with self.capture.global_and_fixture_disabled():
            self.reporter.write_line(text)
            self.reporter.flush()

    def close(self) -> None:
        """What is in a log stays there."""


Screen = TerminalLine | LogLines


class Progress(Observer):
    """An observer that shows the phase of a run, its numbers and the time left."""

    def __init__(self, screen: Screen, title: str, planned: int, lang: str = "en") -> None:
        self.screen, self.title, self.planned, self.lang = screen, title, planned, lang
        self.phase = ""
        self.until: float | None = None
        self.began = time.monotonic()
        self.measured: tuple[float, int] | None = None  # the first step is slower than the others, and not counted

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        now = time.monotonic()
        begins, self.phase = name != self.phase, name
        if name == TRAINING:
            self.until = None if seconds_left is None else now + seconds_left
            self.measured, self.began = None, now
        if self.screen.wants(now, begins=begins):
            line = phase_line(self.title, name, detail, seconds_left, width=self.screen.room, lang=self.lang)
            self.screen.write(line)

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        now, step = time.monotonic(), first + len(rows)
        self.measured = self.measured or (now, step)
        if not rows or not self.screen.wants(now, begins=False):
            return
        since, counted = self.measured
        rate = (step - counted) / (now - since) if step > counted and now > since else None
        left = [] if rate is None else [(self.planned - step) / rate]
        left += [] if self.until is None else [self.until - now]
        self.screen.write(
            progress_line(
                *(self.title, step, self.planned, rows[-1]),
                steps_per_second=rate,
                elapsed=now - self.began,
                seconds_left=min(left, default=None),
                width=self.screen.room,
            )
        )

    def close(self) -> None:
        """The run is over, or was interrupted."""
        self.screen.close()


def screen_of(config: pytest.Config) -> Screen | None:
    """Where live progress of a session shows; nowhere where it would be noise: in an xdist worker, a quiet session."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.getoption("verbose") < 0:
        return None
    if config.pluginmanager.getplugin("capturemanager") is None:
        return None
    watched = reporter.isatty and not any(name in os.environ for name in ("CI", "BUILD_NUMBER"))
    return TerminalLine(config) if watched else LogLines(config)


@contextlib.contextmanager
def showing(screen: Screen | None, title: str, phase: str, lang: str) -> Iterator[None]:
    """Live progress of a phase that no observer is told of: the pair, the loader."""
    if screen is None:
        yield
        return
    with contextlib.closing(Progress(screen, title, 0, lang)) as progress:
        progress.on_phase(phase, "", None)
        yield


class PhaseClock(Observer):
    """An observer that adds up the seconds of every phase, those of several seeds together.

    Example:
        >>> clock.seconds                                                            # doctest: +SKIP
        {'warm-up': 0.31, 'training': 21.3, 'probes': 1.24, 'trials': 17.9}
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.running: tuple[str, float] | None = None

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        self.close()
        self.running = ("trials" if name.startswith("trial ") else name, time.monotonic())

    def close(self) -> None:
        """The phase that is running ends."""
        if self.running is not None:
            name, since = self.running
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - since
            self.running = None
