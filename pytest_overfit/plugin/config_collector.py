"""From config files to test items: every criterion of a config is a test, with one training run behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_overfit.plugin.config_items import RUN, check_of
from pytest_overfit.plugin.resolved_options import absolute
from pytest_overfit.plugin.state import STAGES, FileState, SessionState
from pytest_overfit.trainer.config import OverfitConfig

REGRESSION = "regression"  # the item of --overfit-compare-fail
DEFECTS = "defects"  # judged by probes: without them there is nothing to judge
# --dist modes that would tear a config file apart; loadscope and loadfile keep it whole, each runs everything twice.
SPREADING = ("load", "worksteal", "loadgroup")


class ConfigCollection:
    """The hooks of a session with configs."""

    def __init__(self, session: SessionState) -> None:
        self.session = session

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """A collector for the configs of this session; every other YAML file is none of our business."""
        config = self.session.configs.get(file_path)
        if config is None:
            return None
        self.session.reached.add(file_path)
        nodeid = node_id(file_path, self.session.root)
        file: ConfigFile = ConfigFile.from_parent(parent, path=file_path, nodeid=nodeid)
        names = _names(config, compared=bool(self.session.options.compare_fail))
        file.overfit_state = FileState(file.nodeid, config, names)
        return file

    @pytest.hookimpl(trylast=True)  # after -k and its like: what is added here must not be deselected
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """A config that gave no test would be a silent pass. (One that --lf leaves out was reached, and passed before.)

        Raises:
            pytest.UsageError: pytest never reached the file, say because its folder is in norecursedirs or ignored.
                Under pytest-xdist, whose workers cannot raise one, an item is added that fails.
        """
        for path in [path for path in self.session.configs if path not in self.session.reached]:
            problem = pytest.UsageError(
                f"{path}: no test was collected from this config\n"
                "  allowed: a file that pytest reaches from its path arguments\n"
                "  next: name the file itself, or look at norecursedirs and --ignore"
            )
            if not self.session.is_worker:
                raise problem
            items.append(Unreached.from_parent(session, name=path.name, problem=problem))

    @pytest.hookimpl(tryfirst=True)  # before the workers of pytest-xdist tell what they have
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The items of a config in the order in which they depend on each other, in the places that they have.

        Others shuffle tests, or put those first that failed: then the run would be made in whichever criterion comes
        first.
        """
        places: dict[ConfigFile, list[int]] = {}
        for place, item in enumerate(session.items):
            if isinstance(item, ConfigItem) and isinstance(item.parent, ConfigFile):
                places.setdefault(item.parent, []).append(place)
        for file, theirs in places.items():
            names = file.overfit_state.items
            in_order = sorted((session.items[place] for place in theirs), key=lambda item: names.index(item.name))
            file.overfit_state.selected = tuple(item.name for item in in_order)
            for place, item in zip(theirs, in_order, strict=True):
                session.items[place] = item

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """The items of one config file go to one worker: they share one training run.

        None where the session has no configs, or where its own mode does not spread their items.
        """
        if config.getoption("dist", "no") not in SPREADING or not self.session.configs:
            return None
        from xdist.scheduler import LoadGroupScheduling

        session = self.session

        class OneRunScheduling(LoadGroupScheduling):
            """Spreads tests one by one (marked groups together), and the items of a config file as one unit."""

            def _split_scope(self, nodeid: str) -> str:
                path = nodeid.partition("::")[0]
                is_config = absolute(path, session.root) in session.configs
                return path if is_config else str(super()._split_scope(nodeid))

        return OneRunScheduling(config, log)


class ConfigFile(pytest.Module):
    """A config file as a test file. It is a Module so that fixtures of every scope work in a conftest beside it."""

    overfit_state: FileState

    def _getobj(self) -> ModuleType:
        return ModuleType(self.path.stem)

    def collect(self) -> Iterator[pytest.Item]:
        for name in self.overfit_state.items:
            yield ConfigItem.from_parent(self, name=name, callobj=check_of(name))


class ConfigItem(pytest.Function):
    """One item of a config file."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.name  # a line: pytest asserts that a skip has one


class Unreached(pytest.Item):
    """Fails in the place of a config that pytest did not reach."""

    def __init__(self, *, problem: pytest.UsageError, **rest: Any) -> None:
        super().__init__(**rest)
        self.problem = problem

    def runtest(self) -> None:
        pytest.fail(str(self.problem), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


def node_id(path: Path, rootdir: Path) -> str:
    """The path relative to the rootdir, with ``..`` outside of it: there pytest's own ids are empty, and all alike."""
    try:
        return Path(os.path.relpath(path, rootdir)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _names(config: OverfitConfig, *, compared: bool) -> tuple[str, ...]:
    """The items of a config file, in the order in which they run and are reported."""
    settings = config.overfit
    judged = [name for name in settings.criteria.names() if settings.diagnose or name != DEFECTS]
    return (*STAGES, RUN, *judged, *((REGRESSION,) if compared else ()))
