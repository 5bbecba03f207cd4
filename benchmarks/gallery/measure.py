"""Runs of the plugin over the cases of the gallery, in one process or several, and their rows for the table."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from benchmarks.gallery.case import Bug
from benchmarks.gallery.families import FAMILIES
from benchmarks.gallery.registry import CASES
from benchmarks.gallery.table import Key, Kind, Right, Row, Verdict
from benchmarks.gallery.verify import run_plain
from benchmarks.zoo.case import Setup, run


@dataclass(frozen=True)
class Seen:
    """What one run of the plugin said: ``causes`` best first, ``missed`` criteria, ``raised`` in place of a result."""

    passed: bool
    causes: tuple[str, ...]
    missed: tuple[str, ...]
    raised: str
    seconds: float

    @property
    def said(self) -> str:
        """The findings that were missed, or the exception, in a few words."""
        return self.raised or ", ".join(self.missed) or "passed"


def judge(setup: Setup, seed: int) -> Seen:
    """One run of the plugin over a setup, as a user would call it."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            result = run(setup, seed)
    except Exception as error:  # what the model or the step raises comes through, and is a detection
        frame = traceback.extract_tb(error.__traceback__)[-1]
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        at = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        return Seen(False, (), (), f"{type(error).__name__}: {first} [{at}]", time.perf_counter() - started)
    causes = tuple(cause.id for cause in getattr(result, "causes", ()))
    missed = tuple(finding.name for finding in result.findings if not finding.passed)
    return Seen(result.passed, causes, missed, "", time.perf_counter() - started)


def judge_all(keys: Sequence[Key], jobs: int = 1) -> dict[Key, Seen]:
    """One run of every case and seed. Several processes share the cases; none shares the clock of a busy core."""
    if jobs == 1:
        return {key: judge_case(key) for key in keys}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return dict(zip(keys, pool.map(judge_case, keys), strict=True))


def judge_case(key: Key) -> Seen:
    """One run of a bug, or of a healthy family."""
    case, seed = key
    bug = CASES[case]
    return judge((FAMILIES[case] if bug is None else bug.build)(seed), seed)


def row_of(key: Key, seen: Seen) -> Row:
    """What the table keeps of a run."""
    case, seed = key
    bug = CASES[case]
    kind: Kind = "healthy" if bug is None else bug.kind
    by = seen.raised.partition(":")[0] or " ".join(seen.missed)
    return Row(case, seed, kind, _verdict(bug, seen), by, " ".join(seen.causes[:3]), _right(bug, seen))


def _verdict(bug: Bug | None, seen: Seen) -> Verdict:
    if seen.raised:
        return "raised"
    if bug is None:
        return "passed" if seen.passed else "blamed"
    return "missed" if seen.passed else "detected"


def _right(bug: Bug | None, seen: Seen) -> Right:
    if bug is None:
        return ""
    if first_is_right(bug, seen):
        return "first"
    return "in three" if in_three(bug, seen) else "no"


def first_is_right(bug: Bug, seen: Seen) -> bool:
    """The best cause is one of those that count as right."""
    return seen.causes[:1] != () and seen.causes[0] in bug.causes


def in_three(bug: Bug, seen: Seen) -> bool:
    """One of the three best is."""
    return any(cause in bug.causes for cause in seen.causes[:3])


def plain_seconds(bug: Bug) -> float:
    """The seconds of a plain loop of the same setup with its first seed."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_plain(bug.build(0))
    return time.perf_counter() - started
