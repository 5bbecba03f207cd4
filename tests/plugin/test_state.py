"""What the plugin keeps: one record per session and per test, and no ``request`` behind its door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_overfit.plugin
from tests.plugin.conftest import TinyConfig

FILES = sorted(Path(pytest_overfit.plugin.__file__).parent.glob("*.py"))


def uses(source: str, name: str) -> int:
    """How often a program names something, text and comments left out."""
    nodes = [*ast.walk(ast.parse(source))]
    return sum(name in (getattr(node, "attr", None), getattr(node, "id", None)) for node in nodes)


def users(name: str) -> dict[str, int]:
    """Module of the plugin -> how often it names something."""
    counts = {path.stem: uses(path.read_text(encoding="utf-8"), name) for path in FILES}
    return {module: count for module, count in counts.items() if count}


def test_a_request_ends_at_the_door() -> None:
    """Fixtures, and the test functions of a config's items, turn it into plain values."""
    assert set(users("FixtureRequest")) == {"__init__", "requester", "config_items"}
    assert set(users("getfixturevalue")) == {"requester"}


def test_state_is_kept_in_two_records() -> None:
    """Of the session, and of a test."""
    assert users("StashKey") == {"state": 2}


def test_a_name_is_found() -> None:
    """The two tests above can fail."""
    assert uses("KEY = pytest.StashKey[int]()", "StashKey") == 1
    assert uses("def f(request: pytest.FixtureRequest): request.getfixturevalue('a')", "getfixturevalue") == 1
    assert uses("'''StashKey'''  # StashKey", "StashKey") == 0


def test_the_plugin_module_is_glue() -> None:
    """It is read in one sitting."""
    assert len(Path(pytest_overfit.plugin.__file__).read_text(encoding="utf-8").splitlines()) <= 200


def test_nothing_outlives_its_test(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A model, a batch and the rows of a test are let go of with it."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from pytest_overfit.plugin.state import ITEM

        during = []

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_call(item):
            yield
            state = item.stash[ITEM]
            during.append((state.model is not None, state.sample is not None, state.runs != []))

        def pytest_sessionfinish(session):
            assert during == [(True, True, True)]
            assert not any(ITEM in item.stash for item in session.items)
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.overfit(config="tiny.yaml", max_steps=2, diagnose=False)
        def test_it(overfit_result): assert not overfit_result.passed
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
