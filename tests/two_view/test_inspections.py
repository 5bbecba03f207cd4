"""What the first items of a config look at, and the words for what is wrong."""

from __future__ import annotations

import pkgutil
import re

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.two_view.inspections import GIVEN, not_none


@pytest.mark.parametrize("fixture", GIVEN)
def test_a_fixture_that_gives_nothing_is_told_what_to_give(fixture: str) -> None:
    """Names of ours in the text are there to be imported."""
    with pytest.raises(OverfitError, match=f"return it at the end of `def {fixture}") as caught:
        not_none(None, fixture)
    for name in re.findall(r"pytest_overfit\.[\w.]+\w", str(caught.value)):
        assert pkgutil.resolve_name(name)
