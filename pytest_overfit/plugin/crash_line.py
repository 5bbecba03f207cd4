"""The one line by which others know a failure: pytest's short summary, ``--tb=line``, JUnit, a pane of tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.plugin.config_collector import node_id
from pytest_overfit.plugin.state import FileState, ItemState
from pytest_overfit.text.failure import error_line
from pytest_overfit.trainer.written_keys import place_of, written_keys

PACKAGE = Path(__file__).parents[1]
SET = re.compile(r"--overfit-set '?(?P<key>[\w.]+)=")
KEYS = {"pair": "data.train.dataset", "loader": "data.train", "run": "overfit.budget", "config": ""}


def tell_first_line(item: pytest.Item, state: ItemState, report: pytest.TestReport) -> None:
    """The first line of what failed, and the line of the call or of the key of a config, in place of ours.

    The whole text stays with the report.
    """
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    if not report.failed or crash is None:
        return
    report.overfit_error = str(crash.message).strip()  # type: ignore[attr-defined]
    crash.message = error_line(report.overfit_error)
    if state.file is not None and state.finding is not None:
        text = f"{state.finding.where or ''} {report.overfit_error}"
        path, crash.lineno = key_line(item.path, state.file, item.name, text)
        crash.path = str(path)
    if report.when == "call" and item.config.getoption("tbstyle", "auto") == "line":  # which shows that line alone
        for trace, *_ in getattr(report.longrepr, "chain", ()):
            trace.reprentries = []
    if Path(crash.path).is_relative_to(PACKAGE):  # a fixture of ours: its test is what a reader has
        crash.path, crash.lineno = str(item.path), (item.location[1] or 0) + 1
    place = node_id(Path(crash.path), item.config.rootpath)
    report.overfit_place = f"{place}:{crash.lineno}"  # type: ignore[attr-defined]
    if Path(crash.path) == item.path:
        report.location = (report.location[0], crash.lineno - 1, report.location[2])
    elif state.file is not None:  # the key is written in a file that the config extends
        report.location = (place, crash.lineno - 1, report.location[2])


def key_line(path: Path, file: FileState, name: str, text: str = "") -> tuple[Path, int]:
    """Where the key is written that a text tells to change, or that an item is about; the first line of none.

    Args:
        text: what failed, and what to change.
    """
    if not file.keys:
        file.keys = written_keys(path, file.config.overrides)
    told = SET.search(text)
    named = max(
        (key for key in file.keys if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text)), key=len, default=""
    )
    if told or "." in named:
        return place_of(file.keys, told["key"] if told else named, path)
    return place_of(file.keys, KEYS.get(name, f"overfit.criteria.{name}"), path)
