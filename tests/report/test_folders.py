"""Names of folders, and new folders for logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.report.folders import folder_name, run_folder


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b/c:d.yaml", "a_b_c_d.yaml"),
        ("<script>", "script"),
        ("..", "run"),
        ("", "run"),
        ("x" * 200, "x" * 80),
        ("nul.txt", "_nul.txt"),
    ],
)
def test_folder_names_are_safe_everywhere(name: str, safe: str) -> None:
    """Whatever an experiment or a test is called."""
    assert folder_name(name, slice(80)) == safe


def test_what_is_left_out_ends_no_name() -> None:
    """Neither end is a separator, also where the name is cut there."""
    assert folder_name("a/" * 10, slice(4)) == "a_a"
    assert folder_name("a/" * 10, slice(-4, None)) == "a_a"


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    """Nothing is mixed or overwritten."""
    folders = {run_folder(tmp_path, "same")[0] for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and folder.parent == tmp_path / "same" for folder in folders)


def test_a_place_that_cannot_be_written_is_replaced_with_a_note(tmp_path: Path) -> None:
    """A file in the way of the folder."""
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    folder, note = run_folder(blocked, "run")
    assert folder.is_dir()
    assert note is not None
    assert note.startswith(f"{blocked} cannot be written (")
    assert str(folder.parents[1]) in note
