"""The registry of criteria: each is found by its name, and a name that there is not is an error."""

from __future__ import annotations

import pytest

from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.criteria_registry import BUILT_IN, LAST, Entry, entries


@pytest.mark.parametrize("entry", [*BUILT_IN, LAST], ids=lambda entry: entry.name)
def test_ours(entry: Entry) -> None:
    """Every criterion that is named loads under its name, with a line for the docs."""
    assert entry is entries()[entry.name]
    criterion = entries()[entry.name].load()
    assert criterion.name == entry.name
    assert criterion.help


def test_a_misspelt_criterion_is_an_error() -> None:
    """The record knows its keywords."""
    with pytest.raises(TypeError, match=r"no criterion is named 'monotonc'; did you mean 'monotonic'\?"):
        Criteria(monotonc=False)
    with pytest.raises(AttributeError, match="no criterion is named 'monotonc'"):
        _ = Criteria().monotonc
