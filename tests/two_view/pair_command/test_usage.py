"""What every verb of ``pytest-overfit pair`` says of a command or a file that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.cli import main
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.two_view.pair_command.support import run


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
    ],
)
def test_usage_errors_exit_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot be meant exits with 2 and says what is wrong with it."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


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
