"""``pytest-overfit pair show``: the contact sheet of a pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.cli import main
from tests.shared_data import shared_data
from tests.two_view.pair_command.support import files_in, run, size_of


def test_show_draws_a_sheet_into_the_folder(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without options it lies beside the pair, which is still the pair that it was; a second time it is replaced."""
    code, out, err = run(capsys, "pair", "show", pair_folder)
    sheet = pair_folder / "contact_sheet.png"
    assert (code, err) == (0, "")
    width, height = size_of(sheet)
    assert out.startswith(f"{sheet}: {width} x {height} pixels\nvalid ")
    sheet.write_bytes(b"old")
    assert run(capsys, "pair", "show", pair_folder)[0] == 0
    assert size_of(sheet) == (width, height)
    assert not [name for name in files_in(pair_folder) if name.endswith(".part")]
    assert run(capsys, "pair", "check", pair_folder, "--img-size", "112")[0] == 0


def test_show_works_on_real_frames_and_on_their_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut, shown as files, shown as the loader hands them out."""
    root = shared_data("real_rgbd", "cropped")
    assert main(["pair", "create", "--source-root", str(root), "--output-root", str(tmp_path / "pair")]) == 0
    for words in ([], ["--img-size", "140", "--aspect-ratio", "0.75", "--no-remove-sky"]):
        output = tmp_path / f"sheet{len(words)}.PNG"
        code, out, _ = run(capsys, "pair", "show", tmp_path / "pair", "--output", output, *words)
        assert code == 0
        assert "geometry contradicts in " in out
        assert size_of(output)[0] == 2284


def test_show_names_the_problems_of_a_pair(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sheet is drawn all the same: it is there to look at what is wrong."""
    (pair_folder / "seg" / "0002" / "aerial.jpeg.png").unlink()
    code, out, _ = run(capsys, "pair", "show", pair_folder)
    assert code == 0
    assert "problem: remove_sky is on, but aerial.jpeg has no mask" in out
    assert (pair_folder / "contact_sheet.png").is_file()


def test_show_says_what_cannot_be_read_or_written(
    pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clean message each: no pair, no folder for the output, a folder in its place, a batch that is none."""
    code, _, err = run(capsys, "pair", "show", tmp_path / "none")
    assert (code, err) == (1, f"pytest-overfit: {tmp_path}/none/train.npz: no such file\n")
    output = tmp_path / "missing" / "sheet.png"
    code, _, err = run(capsys, "pair", "show", pair_folder, "--output", output)
    assert code == 1
    assert err.startswith(f"pytest-overfit: {output}: cannot be written: No such file or directory\n")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    code, _, err = run(capsys, "pair", "show", pair_folder, "--output", folder)
    assert code == 1
    assert "cannot be written: Is a directory" in err
    assert not list(tmp_path.glob(".*"))
    code, _, err = run(capsys, "pair", "show", pair_folder, "--img-size", 100)
    assert (code, err.splitlines()[0]) == (1, "pytest-overfit: img_size 100")
