"""What is almost a name of ours: the right one is said, as a line to paste."""

from __future__ import annotations

import pytest

from pytest_overfit.cli import main

TEST = """
import pytest
import torch
from torch import nn

MARKER
def test_it(overfit):
    net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    overfit(net, (torch.randn(6, 4), torch.arange(6) % 3), nn.CrossEntropyLoss(), CALL)
"""


def said(pytester: pytest.Pytester, marker: str, call: str = "max_steps=2", **outcome: int) -> str:
    """What pytest shows of a test with a marker and a keyword."""
    pytester.makepyfile(test_it=TEST.replace("MARKER", marker).replace("CALL", call))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "ignore")
    result.assert_outcomes(**(outcome or {"failed": 1}))
    return result.stdout.str()


@pytest.mark.parametrize(
    ("marker", "line"),
    [
        ("@pytest.mark.overfit(objectve=0.5)", "@pytest.mark.overfit(objective=0.5)"),
        ("@pytest.mark.overfit(max_step=2, obejctive=1)", "@pytest.mark.overfit(max_steps=2, objective=1)"),
    ],
)
def test_a_keyword_of_a_marker(pytester: pytest.Pytester, marker: str, line: str) -> None:
    """The line of the marker, with all of its keywords as they are meant."""
    assert f"  change: test_it.py:5: {line}" in said(pytester, marker)


def test_two_keywords_of_a_call(pytester: pytest.Pytester) -> None:
    """Both in one line."""
    assert "nn.CrossEntropyLoss(), max_steps=2, max_seconds=9)" in said(pytester, "", "max_step=2, max_second=9")


def test_a_marker_that_is_almost_ours(pytester: pytest.Pytester) -> None:
    """It would be read by nobody, and the test pass with other settings; one that is registered is somebody's own."""
    text = said(pytester, "@pytest.mark.overift(objective=0.5)", errors=1)
    assert "@pytest.mark.overift: an unknown marker; did you mean @pytest.mark.overfit?" in text
    assert "  next: test_it.py:5: @pytest.mark.overfit(objective=0.5)" in text
    assert "pytest_overfit/" not in text
    pytester.makeini("[pytest]\nmarkers = overift: of somebody else")
    assert "unknown marker" not in said(pytester, "@pytest.mark.overift(objective=0.5)", failed=1)


def test_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With its arguments, as they were typed; nothing is guessed of what is like none."""
    for argv, meant in (
        (["inti", "."], "init ."),
        (["explian", "lr-low"], "explain lr-low"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
        assert f"next: pytest-overfit {meant}\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["qqq"])
    assert "invalid choice" in capsys.readouterr().err
