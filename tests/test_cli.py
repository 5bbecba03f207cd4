"""``pytest-overfit``: its verbs are found by name, and other packages add theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_overfit.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: init|explain|doctor|pair|report"),
        (["pear"], "invalid choice: 'pear'"),
    ],
)
def test_a_verb_has_to_be_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """None, and one that there is not, exit with 2."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """That of the package."""
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"pytest-overfit {version('pytest-overfit')}\n"


def test_only_the_verb_that_is_asked_for_is_imported() -> None:
    """The list of verbs costs none of their modules; a verb costs its own, and neither costs pytest."""
    for words, seen in (["--help"], [False, False]), (["pair", "--help"], [True, False]):
        code = (
            "import sys; from pytest_overfit.cli import main\n"
            f"try: main({words!r})\n"
            "except SystemExit: pass\n"
            "names = 'two_view.pair_command', 'report.report_command'\n"
            "print([f'pytest_overfit.{name}' in sys.modules for name in names], 'pytest' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == f"{seen} False"


def test_another_package_adds_a_verb(tmp_path: Path) -> None:
    """An entry point names its module; it is listed, and called with what was parsed."""
    (tmp_path / "their_verb.py").write_text(
        "def add_arguments(parser):\n"
        "    parser.add_argument('word')\n"
        "    parser.set_defaults(run=lambda options, parser: print('said', options.word) or 3)\n"
    )
    info = tmp_path / "their_verb-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-verb\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest_overfit.commands]\nsay = their_verb\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest_overfit.cli"]
    listed = subprocess.run([*command, "--help"], capture_output=True, text=True, env=environment, check=True)
    assert "of their_verb" in listed.stdout
    called = subprocess.run([*command, "say", "hello"], capture_output=True, text=True, env=environment, check=False)
    assert (called.returncode, called.stdout) == (3, "said hello\n")


def test_whoever_reads_may_stop() -> None:
    """As `head` does; what is left to be written is let go."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest_overfit.cli", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
