"""Under pytest-xdist the items of one config file go to one worker: they share one training run."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling

from pytest_overfit.plugin.collection import CONFIGS
from pytest_overfit.plugin.options import absolute

# --dist modes that would tear a config file apart; loadscope and loadfile keep it whole, each runs everything twice.
SPREADING = ("load", "worksteal", "loadgroup")


class OneRunScheduling(LoadGroupScheduling):
    """Spreads tests one by one (marked groups together), and the items of a config file as one unit."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        is_config = absolute(path, self.config.rootpath) in self.config.stash[CONFIGS]
        return path if is_config else str(super()._split_scope(nodeid))


def make_scheduler(config: pytest.Config, log: Any) -> OneRunScheduling | None:
    """Our scheduler where the session has configs and its own mode would spread their items."""
    if config.getoption("dist", "no") not in SPREADING or not config.stash.get(CONFIGS, None):
        return None
    return OneRunScheduling(config, log)
