"""The helper that finds the shared reference data."""

from __future__ import annotations

import pytest

from tests.shared_data import shared_data


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_absent_data_skip_here_and_fail_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not there skips a test with its path as the reason, and fails it where CI=true."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"needs the shared reference data at .*nowhere"):
        shared_data("nowhere")
