"""TensorBoard files, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.report.tensorboard import TensorBoardLog, guide_names, run_folder, safe_name
from tests.support.boards import read_scalars


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    rows = read_scalars(folder)
    return {tag: [(step, round(value, 6)) for step, value in curve] for tag, curve in rows.items()}


def test_every_scalar_is_written_under_the_guides_name(tmp_path: Path) -> None:
    """Steps count from 1; train, val, learning rate and gradient norms."""
    log = TensorBoardLog(tmp_path)
    log.on_steps(0, [{"objective": 2.0, "loss_reg_depth": 0.5, "lr": 1e-3, "grad_norm/head": 3.0}])
    log.on_steps(1, [{"objective": 1.0, "loss_reg_depth": 0.25, "lr": 1e-3, "grad_norm/head": 2.0}])
    log.on_val(2, {"objective": 1.5})
    log.close()
    assert scalars(tmp_path) == {
        "train/loss_objective": [(1, 2.0), (2, 1.0)],
        "train/loss_reg_depth": [(1, 0.5), (2, 0.25)],
        "train/loss_depth": [(1, 0.5), (2, 0.25)],
        "val/loss_objective": [(2, 1.5)],
        "lr": [(1, 0.001), (2, 0.001)],
        "grad_norm/head": [(1, 3.0), (2, 2.0)],
    }


def test_log_freq_thins_the_curve_and_keeps_its_end(tmp_path: Path) -> None:
    """Every third step, and the last one whatever its number."""
    log = TensorBoardLog(tmp_path, every=3)
    log.on_steps(0, [{"objective": float(step)} for step in range(8)])
    log.close()
    assert scalars(tmp_path)["train/loss_objective"] == [(1, 0.0), (4, 3.0), (7, 6.0), (8, 7.0)]


def test_chosen_keys_are_the_only_losses(tmp_path: Path) -> None:
    """logging.scalar_keys_to_log picks; what it does not name is not written."""
    log = TensorBoardLog(tmp_path, keys={"train": ("loss_objective",)})
    log.on_steps(0, [{"objective": 2.0, "loss_camera": 0.5, "lr": 1e-3}])
    log.on_val(1, {"objective": 1.5, "loss_camera": 0.5})
    log.close()
    assert set(scalars(tmp_path)) == {"train/loss_objective", "lr", "val/loss_objective", "val/loss_camera"}


def test_the_losss_own_depth_term_is_kept() -> None:
    """A loss that gives loss_depth itself is not overruled."""
    assert guide_names({"loss_depth": 1.0, "loss_reg_depth": 2.0})["loss_depth"] == 1.0


@pytest.mark.parametrize(
    ("name", "safe"),
    [("a b/c:d.yaml", "a_b_c_d.yaml"), ("<script>", "script"), ("..", "run"), ("", "run"), ("x" * 200, "x" * 80)],
)
def test_folder_names_are_safe_everywhere(name: str, safe: str) -> None:
    """Whatever an experiment or a test is called."""
    assert safe_name(name) == safe


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
