"""Under ``--overfit-lang zh`` a reader meets no English sentence of ours, wherever a failure is read."""

from __future__ import annotations

import html
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plugin.conftest import TinyConfig

ENGLISH = re.compile(r"(?<![\w./=-])[a-z]{2,}(?: [a-z]{2,}){2,}")
MARKED = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
TAGS = re.compile(r"<(script|style|code|pre)\b.*?</\1>|<[^>]*>", re.DOTALL)
TEST = """
import torch


def test_learns(overfit):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    overfit(net, (torch.randn(8, 4), torch.randn(8, 1)), torch.nn.functional.mse_loss, lr=1e-7)
"""
OTHERS = (
    "session starts",
    "generated xml file",
    "test summary info",
    "seconds",
    " in ",
    "tensorboard",
    "pytest ",
    "warnings",
)


def english(text: str, code: re.Pattern[str] = MARKED) -> list[str]:
    """The lines with a sentence in them, beside code and errors of libraries."""
    lines = code.sub("\n", text).splitlines()
    return [line for line in lines if ENGLISH.search(html.unescape(line)) and "Error: " not in line]


def test_a_sentence_is_seen() -> None:
    """The test of this file can fail."""
    assert english("a 1\n the learning rate is low\nchange: --overfit-set a.b=1") == [" the learning rate is low"]


@pytest.mark.parametrize("what", ["config", "test"])
def test_whatever_is_read_of_a_failure_is_chinese(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Terminal, JUnit, step summary, annotations, record and pages."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    options = ["--overfit-lang=zh", "--overfit-report=report", "--junitxml=junit.xml", "-v", "-p", "no:warnings"]
    if what == "config":
        tiny()
        frozen = "--overfit-set=optim.frozen_module_names=['*head*']"
        options += ["--overfit-config=tiny.yaml", "--overfit-max-steps=20", frozen]
    else:
        path = pytester.makepyfile(test_it=TEST)
        options.append(str(path))
    result = pytester.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    ours = [line for line in result.outlines if not any(other in line for other in OTHERS)]
    assert english("\n".join(ours)) == [], "\n".join(english("\n".join(ours)))
    messages = [each.get("message", "") + (each.text or "") for each in ElementTree.parse("junit.xml").iter("failure")]
    assert messages
    left = english("\n".join(messages))
    assert left == [], "\n".join(left)
    written = [Path("summary.md"), *Path("report").rglob("*.md"), *Path("report").rglob("index.html")]
    assert len(written) == 5
    for path in written:
        left = english(path.read_text(encoding="utf-8"), TAGS if path.suffix == ".html" else MARKED)
        assert left == [], "\n".join([str(path), *left])
