"""`pytest-overfit explain`: the section of a cause, offline."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_overfit.cli import main
from pytest_overfit.commands.explain_command import filled
from pytest_overfit.settings.cause_ids import IDS
from pytest_overfit.settings.keywords import Setting, keys_of_a_config, table_of_settings


@pytest.mark.parametrize("cause", IDS)
def test_every_cause_is_explained(cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its section and no other one: what it is, an example, how it is mended."""
    assert main(["explain", cause]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"### {cause}\n")
    assert said.count("\n### ") == 0
    assert "result = run_overfit(" in said or "pytest --overfit-config" in said or "```" in said
    assert "**Fix**" in said


def test_prose_is_as_wide_as_the_terminal_and_code_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list item goes on below its text."""
    monkeypatch.setenv("COLUMNS", "60")
    main(["explain", "tie-lost"])
    prose, code, *_ = capsys.readouterr().out.split("```")
    assert max(map(len, prose.splitlines())) <= 60 < max(map(len, code.splitlines()))
    assert filled("- one two three\n- four", 12) == "- one two\n  three\n- four"


def test_a_typo_names_the_nearest_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed but that."""
    assert main(["explain", "tie-lots"]) == 1
    told = capsys.readouterr()
    assert (told.out, "did you mean tie-lost?" in told.err) == ("", True)


@pytest.mark.parametrize("row", [*table_of_settings(), *keys_of_a_config()], ids=lambda row: row.key)
def test_every_setting_is_explained(row: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    """By its keyword, where no cause has that name, and by its key: what it takes, its default, and where it is set."""
    for name in {row.name, row.key} - {"", *IDS}:
        assert main(["explain", name]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert said.startswith(f"### {name} ")
        assert f"- **Takes**: {' '.join(row.kind.split())}" in said
        assert f"`overfit.{row.key}` in a config" in said


def test_without_a_cause_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, below its group."""
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(IDS)
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in lines if line.startswith("  "))


def test_no_torch_is_needed() -> None:
    """A section is text."""
    code = "import sys; from pytest_overfit.cli import main; main(['explain', 'lr-low']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
