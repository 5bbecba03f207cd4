"""Under pytest-xdist the items of one config file go to one worker: they share one training run."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from pytest_overfit.collect import CONFIGS


class OneRunScheduling(LoadScopeScheduling):
    """Spreads tests one by one, and the items of a config file as one unit."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if (self.config.rootpath / path) in self.config.stash[CONFIGS] else nodeid


def make_scheduler(config: pytest.Config, log: Any) -> OneRunScheduling | None:
    """Our scheduler in the place of ``--dist load`` when the session has configs; every other mode stays as it is."""
    if config.getoption("dist", "no") != "load" or not config.stash.get(CONFIGS, None):
        return None
    return OneRunScheduling(config, log)
