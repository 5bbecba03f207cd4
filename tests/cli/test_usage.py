"""What every verb of ``pytest-overfit pair`` says of a command or a file that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_overfit.cli import main
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.cli.support import run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pair", "create", "--render", "--source-root", "x"], "--render makes its own source"),
        (["pair", "create", "--seed", "3"], "--seed is the seed of --render"),
        (["pair", "create", "--pair-index", "one"], "invalid int value: 'one'"),
        (["pair", "create", "--source"], "unrecognized arguments: --source"),
        (["pair", "check"], "the following arguments are required: DIR"),
        (["pair", "show", "x", "--output", "sheet.jpg"], "--output sheet.jpg: the sheet is a PNG file, name it so"),
        (["pair", "show", "x", "--img-size", "wide"], "invalid int value: 'wide'"),
        (["pair"], "the following arguments are required: VERB"),
        ([], "the following arguments are required: pair"),
        (["pear"], "invalid choice: 'pear'"),
    ],
)
def test_usage_errors_exit_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot be meant exits with 2 and says what is wrong with it."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


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


def test_bad_input_is_one_message_without_traceback(
    source: RenderedSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be used exits with 1 and one clean message on stderr."""
    root = source.source_root
    code, out, err = run(capsys, "pair", "create", "--source-root", root, "--pair-index", 7)
    assert (code, out) == (1, "")
    assert err == f"pytest-overfit: {root}/train.npz: pair_index 7 of 1 pairs\n  allowed: 0 to 0\n"
    code, out, err = run(capsys, "pair", "check", tmp_path / "none")
    assert (code, out) == (1, "")
    assert err == f"pytest-overfit: {tmp_path}/none/train.npz: no such file\n"
