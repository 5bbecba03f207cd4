"""A session that a launcher has started on several ranks: one report, one exit code, nobody left behind."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.launch import Launch, launched

if TYPE_CHECKING:
    from pytest_overfit.run.ranks.group import Ranks
    from pytest_overfit.settings.settings import Distributed

WORD_SECONDS = 10.0  # for the first rank to say what is wrong with every rank alike
END_SECONDS = 10.0  # for a process to end after its session: a launcher kills it 30 s after the first one has ended red
KEEPING = ("lfplugin", "nfplugin", "stepwiseplugin")  # write the cache at the end of a session


def prepare(config: pytest.Config) -> None:
    """Registers the hooks of a rank where torchrun, or what sets the same variables, has started this process.

    Raises:
        pytest.UsageError: the variables make no sense, or pytest-xdist is to spread tests as well.
    """
    try:
        launch = launched(os.environ)
    except OverfitError as error:
        raise pytest.UsageError(str(error)) from error
    if launch is None or hasattr(config, "workerinput"):
        return
    if config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "torchrun and pytest-xdist (-n) at once\n  allowed: one of them\n"
            "  next: torchrun trains one run on several ranks, -n spreads several runs"
        )
    if not launch.is_first:
        config.option.xmlpath = None
    config.pluginmanager.register(RankSession(config, launch), "overfit_ranks")


def leave_first(config: pytest.Config) -> None:
    """Before a usage error is told: another rank waits for the first one to tell it, and is ended by the launcher then.

    One that is still there after a while is wrong alone, and speaks for itself.
    """
    session: Any = config.pluginmanager.getplugin("overfit_ranks")
    if session is not None and not session.launch.is_first:
        time.sleep(WORD_SECONDS)


class RankSession:
    """The hooks of one rank."""

    def __init__(self, config: pytest.Config, launch: Launch) -> None:
        self.config, self.launch = config, launch
        self.ranks: Ranks | None = None
        self.lost: OverfitError | None = None
        self.told = False
        self.session: pytest.Session | None = None
        self.elsewhere: list[str] = []  # what other ranks have to say
        with contextlib.suppress(OSError, ValueError):  # past the capture of pytest, for the very last word
            self.stderr = os.dup(sys.__stderr__.fileno()) if sys.__stderr__ is not None else -1

    def join(self, distributed: Distributed) -> Ranks:
        """The ranks of this session, met at its first run.

        Raises:
            OverfitError: they could not be met.
        """
        if self.lost is not None:
            raise self.lost
        if self.ranks is None:
            from pytest_overfit.run.ranks.meeting import join

            try:
                self.ranks = join(self.launch, timeout=distributed.timeout, say=self.say)
            except OverfitError as error:
                self.lost = error
                raise
        return self.ranks

    def say(self, text: str) -> None:
        """Writes past whatever has captured the output of a thread that cannot be stopped."""
        with contextlib.suppress(OSError):
            os.write(self.stderr, f"{text}\n".encode())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """One rank is heard."""
        self.session = session
        reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
        if not self.launch.is_first and reporter is not None:
            reporter._tw._file = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the process ends

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        """After a rank is lost the session ends: whatever comes next would wait for it."""
        yield
        failure = None if self.ranks is None else self.ranks.guard.failure
        if failure is not None or self.lost is not None:
            why = f"rank {failure.rank} {failure.why}" if failure is not None else str(self.lost)
            self._tell_once(why)
            item.session.shouldfail = f"overfit: {why}"

    def _tell_once(self, why: str) -> None:
        """Of a rank that is not heard too: the one that reports may be the one that is lost."""
        if not self.launch.is_first and not self.told:
            self.told = True
            self.say(f"overfit on rank {self.launch.rank}: {why}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Every rank ends with the same code: the first one's, or where that is green the first that is not."""
        if not self.launch.is_first:
            for name in KEEPING:
                if session.config.pluginmanager.hasplugin(name):
                    session.config.pluginmanager.unregister(name=name)
        if self.ranks is None:
            return
        if self.ranks.guard.failure is not None:
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            return
        try:
            codes = [int(code) for code in self.ranks.gather(str(int(session.exitstatus)))]
        except (OverfitError, KeyboardInterrupt) as error:
            self.elsewhere.append(str(error))
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            return
        finally:
            self.ranks.guard.ending = True
        for rank, code in enumerate(codes):
            if code != codes[0]:
                self.elsewhere.append(f"rank {rank} ended with exit code {code}, rank 0 with {codes[0]}")
        session.exitstatus = next((code for code in codes if code), 0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.elsewhere:
            terminalreporter.write_line(f"overfit: {line}", red=True)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Ranks leave together: a launcher stops the others as soon as one has left with a failure."""
        if self.ranks is not None:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.ranks.await_end()
            red = self.session is not None and self.session.exitstatus == pytest.ExitCode.TESTS_FAILED
            if red and self.stderr >= 0:
                faulthandler.dump_traceback_later(END_SECONDS, exit=True, file=self.stderr)  # with 1, as it would have
            self.ranks.leave()
