"""A process for each piece of work, forked after all imports, with a limit of time against those that never end."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

Work = Callable[[Callable[[Any], None]], Any]


@dataclass
class Ended:
    """How a piece of work ended: its answer, or the last thing that it told and why it gave none."""

    answer: Any = None
    told: Any = None
    why: str = ""


@dataclass
class _Running:
    process: Any
    since: float
    ended: Ended


def run_all(works: Sequence[Work], jobs: int, seconds: float) -> Iterator[Ended]:
    """Does every piece of work in a process of its own, ``jobs`` at a time; the answers in the order of the works.

    An answer comes as soon as it and those before it are there.

    Args:
        works: each is called with a function that tells the parent something on the way.
        seconds: after which a process is ended.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(enumerate(works))[::-1]
    running: dict[Connection, _Running] = {}
    done: dict[int, Ended] = {}
    places: dict[Connection, int] = {}
    given = 0
    while waiting or running:
        while waiting and len(running) < jobs:
            number, work = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()
            running[ours], places[ours] = _Running(process, time.monotonic(), Ended()), number
        ready = set(wait(list(running), timeout=1.0))
        for pipe in list(running):
            each = running[pipe]
            finished = _heard(pipe, each.ended) if pipe in ready else False
            if not finished and time.monotonic() - each.since > seconds:
                each.ended.why, finished = f"no end after {seconds:g} s", True
            if finished:
                each.process.kill() if each.ended.why else None
                each.process.join()
                pipe.close()
                done[places.pop(pipe)] = running.pop(pipe).ended
        while given in done:
            yield done.pop(given)
            given += 1


def _heard(pipe: Any, ended: Ended) -> bool:
    """Takes one message; whether it was the last."""
    try:
        kind, value = pipe.recv()
    except EOFError:
        ended.why = "the process died"
        return True
    if kind == "told":
        ended.told = value
        return False
    if kind == "raised":
        ended.why = value
    else:
        ended.answer = value
    return True


def _child(work: Work, pipe: Any) -> None:
    """Works, without a word on the terminal."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        answer = work(lambda told: pipe.send(("told", told)))
    except Exception as error:  # the plugin's are caught nearer to it: this is the program's own, or ours
        pipe.send(("raised", f"outside of the plugin: {type(error).__name__}: {str(error)[:200]}"))
    else:
        pipe.send(("answer", answer))
    pipe.close()
