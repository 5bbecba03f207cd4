"""This process among those of its session: a worker of pytest-xdist, or a rank of a launcher."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.plugin.live_progress import showing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_overfit.result import OverfitResult
    from pytest_overfit.run.place import Place
    from pytest_overfit.run.record import Hang
    from pytest_overfit.run.watchdog import LastWord
    from pytest_overfit.settings.settings import Distributed
    from pytest_overfit.trainer.config import OverfitConfig

RECORDER = pytest.StashKey[Any]()  # the Recorder of the run of a test
STDERR = pytest.StashKey[int]()  # past the capture of pytest, for a last word


def place_of(request: pytest.FixtureRequest, distributed: Distributed) -> Place:
    """This process among the workers of pytest-xdist, or among the ranks of a launcher, which it then joins."""
    from pytest_overfit.run.place import Place

    session: Any = request.config.pluginmanager.getplugin("overfit_ranks")
    if session is not None:
        return Place(ranks=session.join(distributed))
    last = last_word(request)
    if not hasattr(request.config, "workerinput"):
        return Place(last=last)
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    of_all = request.getfixturevalue("tmp_path_factory").getbasetemp().parent
    return Place(workers, worker_number(), shared=of_all / "overfit_cores", last=last)


def last_word(request: pytest.FixtureRequest) -> LastWord:
    """Ends this process where user code hangs and cannot be stopped: the line is told, and the record keeps it."""
    from pytest_overfit.run.watchdog import LastWord

    config = request.config

    def tell(hang: Hang) -> None:
        if RECORDER in request.node.stash:
            request.node.stash[RECORDER].hung(hang)

    if STDERR not in config.stash:
        capture: Any = config.pluginmanager.getplugin("capturemanager")
        with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
            config.stash[STDERR] = os.dup(2)
        config.add_cleanup(lambda: os.close(config.stash[STDERR]))
    timed = config.pluginmanager.hasplugin("faulthandler") and float(config.getini("faulthandler_timeout") or 0) > 0
    return LastWord(config.stash[STDERR], tell, native=not timed)


@contextlib.contextmanager
def limited_stage(request: pytest.FixtureRequest, config: OverfitConfig, name: str) -> Iterator[None]:
    """What comes before a run: shown while it goes, and within the seconds that a run has.

    Raises:
        OverfitError: it did not come back.
    """
    from pytest_overfit.run.watchdog import refused_after

    seconds = config.overfit.budget.max_seconds
    with showing(request.config, config.exp_name, name):
        if seconds is None:
            yield
            return
        with refused_after(seconds, what=name, last=last_word(request)):
            yield


def agreed_verdict(place: Place, verdict: OverfitResult) -> OverfitResult:
    """The first rank's verdict where there are several: it alone compares with saved runs."""
    if place.ranks is None:
        return verdict
    from pytest_overfit.report.record.codec import result_from_json, result_to_json

    return place.ranks.share(verdict, result_to_json, result_from_json)


def worker_number() -> int:
    """The number of this worker of pytest-xdist, from 0."""
    return int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)


def turn_of(config: pytest.Config) -> int:
    """Whose turn it is to take a device: the number of the worker, or of the rank on this machine."""
    session: Any = config.pluginmanager.getplugin("overfit_ranks")
    return worker_number() if session is None else int(session.launch.local_rank)
