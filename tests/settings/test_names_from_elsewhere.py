"""What people call our keywords elsewhere is no loss term."""

from __future__ import annotations

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.settings.keywords import MARKER
from pytest_overfit.settings.ladder import OTHER_NAMES, layer_of_keywords


@pytest.mark.parametrize(("name", "keyword"), OTHER_NAMES.items())
def test_a_name_from_elsewhere_gets_the_keyword(name: str, keyword: str) -> None:
    with pytest.raises(ConfigError) as caught:
        layer_of_keywords(MARKER, {name: 3})
    assert str(caught.value).endswith(f"next: did you mean {keyword!r}? pytest-overfit explain {keyword}")
