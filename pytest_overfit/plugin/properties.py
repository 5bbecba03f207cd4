"""The numbers of a run on the reports of its items: JUnit shows them, and pytest-xdist carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_overfit.plugin.collection import ConfigFile
from pytest_overfit.plugin.items import FINDING

if TYPE_CHECKING:
    from pytest_overfit.report.record.document import Document

PROPERTIES = pytest.StashKey[list[tuple[str, str]]]()
OF_THE_RUN = frozenset({"overfit.verdict", "overfit.state", "overfit.steps", "overfit.margin", "overfit.causes"})


def keep_properties(node: pytest.Item, document: Document) -> None:
    """Keeps the properties of a run: with the config file whose items share it, or with its test."""
    from pytest_overfit.report.ci.junit import user_properties

    holder = node.parent if isinstance(node.parent, ConfigFile) else node
    holder.stash.setdefault(PROPERTIES, []).extend(user_properties(document))


def attach_properties(item: pytest.Item, report: pytest.TestReport) -> None:
    """Puts them onto a report: of a test all of them, of a config's item those of the run and its own."""
    if isinstance(item.parent, ConfigFile):
        wanted = [pair for pair in item.parent.stash.get(PROPERTIES, []) if pair[0] in OF_THE_RUN]
        if FINDING in item.stash and item.config.getini("overfit_properties"):
            from pytest_overfit.report.ci.junit import told

            wanted.append((f"overfit.{item.name}", told(item.stash[FINDING])))
    else:
        wanted = item.stash.get(PROPERTIES, [])
        item.stash[PROPERTIES] = []  # a rerun of the test starts its own list
    item.user_properties.extend(wanted)
    report.user_properties.extend(wanted)
