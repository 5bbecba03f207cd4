"""This process among those of its session: a worker of pytest-xdist, or a rank of a launcher."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_overfit.config.schema import Distributed
    from pytest_overfit.result import OverfitResult
    from pytest_overfit.run.place import Place


def place_of(request: pytest.FixtureRequest, distributed: Distributed) -> Place:
    """This process among the workers of pytest-xdist, or among the ranks of a launcher, which it then joins."""
    from pytest_overfit.run.place import Place

    session: Any = request.config.pluginmanager.getplugin("overfit_ranks")
    if session is not None:
        return Place(ranks=session.join(distributed))
    if not hasattr(request.config, "workerinput"):
        return Place()
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    of_all = request.getfixturevalue("tmp_path_factory").getbasetemp().parent
    return Place(workers, worker_number(), shared=of_all / "overfit_cores")


def agreed_verdict(place: Place, verdict: OverfitResult) -> OverfitResult:
    """The first rank's verdict where there are several: it alone compares with saved runs."""
    if place.ranks is None:
        return verdict
    from pytest_overfit.document.codec import result_from_json, result_to_json

    return place.ranks.share(verdict, result_to_json, result_from_json)


def worker_number() -> int:
    """The number of this worker of pytest-xdist, from 0."""
    return int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)


def turn_of(config: pytest.Config) -> int:
    """Whose turn it is to take a device: the number of the worker, or of the rank on this machine."""
    session: Any = config.pluginmanager.getplugin("overfit_ranks")
    return worker_number() if session is None else int(session.launch.local_rank)
