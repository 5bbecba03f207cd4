"""A process that stands where the training of this one began: everything in it is as it was built."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pytest_overfit.errors.asking import Unanswerable, spoken

PARENT_DEATH = 1  # of Linux's prctl: this process ends with the one that forked it
POLL = 0.5  # seconds, after which the watchdog is heard
SECONDS = 300.0  # that another process may take: far beyond what a few steps do


class Elsewhere:
    """Forked before the first step, it waits for one job, does it, and ends. Without a job it ends with its parent.

    A run that has used an accelerator, a daemon, or a system without ``fork`` has no such process.

    Example:
        >>> there = Elsewhere(lambda job: {"double": 2 * job["number"]})
        >>> there.do({"number": 21})
        {'double': 42}

    Args:
        work: from a job to its result, both of what ``pickle`` takes.
    """

    def __init__(self, work: Callable[[Mapping[str, Any]], Any]) -> None:
        self.why = cannot_fork()
        if self.why:
            return
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=_serve, args=(work, theirs))
        with warnings.catch_warnings():  # of threads: those of a pool are gone there, and it has one of its own
            warnings.simplefilter("ignore")
            self.process.start()
        theirs.close()

    def start(self, job: Mapping[str, Any]) -> None:
        """Hands over the job.

        Raises:
            Unanswerable: there is no such process.
        """
        if self.why:
            raise Unanswerable(self.why)
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send_bytes(pickle.dumps(dict(job)))

    def result(self, seconds: float = SECONDS) -> Any:
        """What came of the job.

        Raises:
            Unanswerable: the user's code raised there, or did not come back in time.
        """
        until, data = time.monotonic() + seconds, b""
        while not (told := self.pipe.poll(POLL)) and time.monotonic() < until:
            pass
        with contextlib.suppress(EOFError, OSError):
            data = self.pipe.recv_bytes() if told else data
        self.close()
        if not data:
            raise Unanswerable(f"the other process died, or did not come back within {seconds:g} s")
        done, value = pickle.loads(data)
        if not done:
            raise Unanswerable(value)
        return value

    def do(self, job: Mapping[str, Any]) -> Any:
        """What comes of a job."""
        self.start(job)
        return self.result()

    def close(self) -> None:
        """Ends the process, and waits for it."""
        if self.why:
            return
        self.why = "the other process has ended"
        self.process.kill()
        self.process.join()
        self.pipe.close()


def cannot_fork() -> str:
    """Why this process cannot be forked; empty where it can."""
    if not hasattr(os, "fork") or sys.platform != "linux":
        return f"{sys.platform} cannot fork a process that has used torch"
    if multiprocessing.current_process().daemon:
        return "a daemon cannot be forked"
    used = [kind for kind in ("cuda", "xpu") if (at := getattr(torch, kind, None)) and at.is_initialized()]
    return f"a process that has used {used[0]} cannot be forked" if used else ""


def _serve(work: Callable[[Mapping[str, Any]], Any], pipe: Connection) -> None:
    """What the other process does until it ends; whatever is raised in it is an answer.

    Answers are pickled here: what torch sends through a connection itself ends with the process that sent it.
    """
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as it lives
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    job = pickle.loads(pipe.recv_bytes())
    torch.set_num_threads(1)  # the pool of a forked process has no threads, and would wait for them
    told = (False, "")
    try:
        told = (True, work(job))
    except Unanswerable as error:
        told = (False, str(error))
    except BaseException as error:
        told = (False, f"the other process raised {spoken(error)}")
        raise
    finally:
        pipe.send_bytes(pickle.dumps(told))


def folder() -> tempfile.TemporaryDirectory[str]:
    """Where two processes leave files for each other."""
    return tempfile.TemporaryDirectory(prefix="overfit-twin-")
