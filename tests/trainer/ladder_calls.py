"""What the tests of the ladder ask: the settings of a call, and the problems of one."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.settings.keywords import MARKER
from pytest_overfit.settings.ladder import Layer, Resolved, layer_of_keywords, resolve_settings
from pytest_overfit.settings.settings import OverfitSettings

CALL = "overfit(...)"
SAYS = "overfit.budget.max_steps={}"
# What each rung says of max_steps, weakest first; under a config the file stands in the middle.
RUNGS = ("ini", "file", "command line", MARKER, CALL)


def resolved(*layers: Layer) -> Resolved:
    return resolve_settings(layers, where="test_a.py::test_a")


def of_call(**keywords: Any) -> OverfitSettings:
    return resolved(layer_of_keywords(CALL, keywords)).settings


def problems_of(*layers: Layer) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolved(*layers)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{len(lines)} problem{'s' if len(lines) > 1 else ''} in the settings of test_a.py::test_a"
    return [line.strip() for line in lines]
