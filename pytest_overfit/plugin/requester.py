"""Who requests a run, or a piece of one: pytest's ``request`` as plain values. It goes no further than here."""

from __future__ import annotations

import contextlib
import os
import re
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.plugin.resolved_options import Options
from pytest_overfit.plugin.screen import showing
from pytest_overfit.plugin.state import FileState, ItemState, SessionState, item_state, session_state
from pytest_overfit.settings.keywords import COMMAND_LINE, INI, MARKER
from pytest_overfit.settings.ladder import Layer, layer_of_keywords, layer_of_overrides
from pytest_overfit.settings.problems import misspelt

if TYPE_CHECKING:
    from pytest_overfit.plugin.session_records import SessionRecords
    from pytest_overfit.run.place import Place
    from pytest_overfit.run.record import Hang
    from pytest_overfit.run.watchdog import LastWord
    from pytest_overfit.settings.settings import Distributed
    from pytest_overfit.trainer.config import OverfitConfig

Value = TypeVar("Value")
Markers = tuple[Mapping[str, Any], Sequence[object]]  # keywords and positional arguments


class NoConfig(pytest.fail.Exception):  # type: ignore[misc, name-defined]
    """No config was named for a test, and there is not exactly one in the session."""


@dataclass(frozen=True)
class Requester:
    """A test, or an item of a config file.

    Args:
        folder: that paths of its markers are relative to.
        markers: what its overfit markers say, the nearest one last; None without any.
        fixture: the value of a fixture by name.
        state: its own; ``file``: of its config file; ``session``: of all of them.
        records: where somebody wants records of the runs.
    """

    nodeid: str
    name: str
    folder: Path
    markers: Markers | None
    fixture: Callable[[str], Any]
    state: ItemState
    session: SessionState
    records: SessionRecords | None

    @property
    def file(self) -> FileState | None:
        """Of an item of a config file."""
        return self.state.file

    @property
    def keywords(self) -> Mapping[str, Any]:
        """What its overfit markers say by keyword."""
        return {} if self.markers is None else self.markers[0]

    @property
    def title(self) -> str:
        """The config file, or the test, as pytest names it."""
        return self.nodeid if self.file is None else self.file.nodeid


def requester_of(request: pytest.FixtureRequest) -> Requester:
    """Whoever asks for a fixture of ours."""
    item = request.node
    told(lambda: refuse_misspelt_marker(item))
    return Requester(
        nodeid=item.nodeid,
        name=item.name,
        folder=item.path.parent,
        markers=markers_of(item),
        fixture=request.getfixturevalue,
        state=item_state(item),
        session=session_state(request.config),
        records=request.config.pluginmanager.getplugin("overfit_records"),
    )


def hand_over(request: pytest.FixtureRequest, value: Value) -> Value:
    """A ``unittest.TestCase`` takes no fixture as an argument: it finds the value as an attribute."""
    if isinstance(request.instance, unittest.TestCase):
        setattr(request.instance, str(request.fixturename), value)
    return value


def markers_of(item: pytest.Item) -> Markers | None:
    """What all overfit markers of a test say, the nearest one last; None without any."""
    found = list(item.iter_markers("overfit"))[::-1]
    keywords = {name: value for marker in found for name, value in marker.kwargs.items()}
    return (keywords, [value for marker in found for value in marker.args]) if found else None


def refuse_misspelt_marker(item: pytest.Item) -> None:
    """A marker that is almost ours would leave a run with other settings than its test says.

    Raises:
        ConfigError: there is one, and nobody has registered it.
    """
    registered = {re.split(r"[:(]", line)[0].strip() for line in item.config.getini("markers")}
    for name in (marker.name for marker in item.iter_markers() if marker.name not in registered):
        if misspelt(name, ["overfit"]):
            hint = _marker_line(item, name) or "register it, where it is a marker of your own"
            raise ConfigError(f"an unknown marker; did you mean {MARKER}?", where=f"@pytest.mark.{name}", hint=hint)


def _marker_line(item: pytest.Item, name: str) -> str:
    """The line with a misspelt marker as it should read; empty where it stands in another file."""
    lines = item.path.read_text(encoding="utf-8", errors="replace").splitlines()
    number = next((at for at, line in enumerate(lines, 1) if f"mark.{name}" in line), None)
    if number is None:
        return ""
    return f"{item.path.name}:{number}: {lines[number - 1].strip().replace(f'mark.{name}', 'mark.overfit')}"


def given(requester: Requester, fixture: str) -> Any:
    """What a fixture gives under a config.

    Raises:
        OverfitError: nothing.
    """
    from pytest_overfit.two_view.inspections import not_none

    return not_none(requester.fixture(fixture), fixture)


def marker_layer(markers: Markers | None) -> Layer | None:
    """What the overfit markers of a test say; None without any.

    Raises:
        ConfigError: a keyword of a marker is none.
    """
    return None if markers is None else layer_of_keywords(MARKER, *markers)


def layers_of(options: Options, markers: Markers | None) -> tuple[Layer, ...]:
    """What speaks for a test's run without a config, weakest first: ini file, command line, markers.

    Raises:
        ConfigError: an override is malformed, or a keyword of a marker is none.
    """
    marker = marker_layer(markers)
    return (
        layer_of_overrides(INI, options.ini_overrides),
        layer_of_overrides(COMMAND_LINE, options.overrides),
        *((marker,) if marker else ()),
    )


def told(build: Callable[[], Value]) -> Value:
    """What ``build`` gives to an ordinary test: there an ``OverfitError`` is shown without the frames it came through.

    The items of a config file get the error itself, and make a finding of it.
    """
    try:
        return build()
    except OverfitError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def config_of(requester: Requester) -> OverfitConfig:
    """The config behind a test: its file's, its marker's, or the only one of the session."""
    found = told(lambda: own_config(requester))
    if found is not None:
        return found
    configs = list(requester.session.configs.values())
    if len(configs) == 1:
        return configs[0]
    error = ConfigError(
        f"{len(configs)} configs to choose from",
        where=requester.nodeid,
        allowed="exactly one",
        hint="name it: @pytest.mark.overfit(config='path/to/config.yaml'), or give one --overfit-config",
    )
    raise NoConfig(str(error), pytrace=False)


def own_config(requester: Requester) -> OverfitConfig | None:
    """The config of a test's file or marker; None where neither names one."""
    if requester.file is not None:
        return requester.file.config
    layer = marker_layer(requester.markers)
    return None if layer is None or layer.config is None else requester.session.load(layer, requester.folder)


def config_or_none(requester: Requester) -> OverfitConfig | None:
    """The config that a test runs under, or None where it runs any model.

    A test with a marker runs under the config that the marker names; one without under the only one of the session.
    """
    if requester.state.without_config or (requester.markers is not None and own_config(requester) is None):
        return None
    try:
        return requester.fixture("overfit_config")  # type: ignore[no-any-return]  # which may be overridden
    except NoConfig:
        return None


def place_of(requester: Requester, distributed: Distributed) -> Place:
    """This process among the workers of pytest-xdist, or among the ranks of a launcher, which it then joins."""
    from pytest_overfit.run.place import Place

    session = requester.session
    if session.ranks is not None:
        return Place(ranks=session.ranks.join(distributed))
    last = _last_word(requester)
    if not session.is_worker:
        return Place(last=last)
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    of_all = requester.fixture("tmp_path_factory").getbasetemp().parent
    return Place(workers, worker_number(), shared=of_all / "overfit_cores", last=last)


def turn_of(session: SessionState) -> int:
    """Whose turn it is to take a device: the number of the worker, or of the rank on this machine."""
    return worker_number() if session.ranks is None else session.ranks.launch.local_rank


def worker_number() -> int:
    """The number of this worker of pytest-xdist, from 0."""
    return int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)


@contextlib.contextmanager
def limited_stage(requester: Requester, config: OverfitConfig, name: str) -> Iterator[None]:
    """What comes before a run: shown while it goes, and within the seconds that a run has.

    Raises:
        OverfitError: it did not come back.
    """
    from pytest_overfit.run.watchdog import refused_after

    seconds = config.overfit.budget.max_seconds
    with showing(requester.session.screen(), config.exp_name, name, requester.session.options.lang):
        if seconds is None:
            yield
            return
        with refused_after(seconds, what=name, last=_last_word(requester)):
            yield


def _last_word(requester: Requester) -> LastWord:
    """Ends this process where user code hangs and cannot be stopped: the line is told, and the record keeps it."""
    from pytest_overfit.run.watchdog import LastWord

    def tell(hang: Hang) -> None:
        if requester.state.recorder is not None:
            requester.state.recorder.hung(hang)
        if requester.records is not None:
            requester.records.last_word(f"hung: {hang.text()}")

    return LastWord(requester.session.stderr(), tell, native=requester.session.native)
