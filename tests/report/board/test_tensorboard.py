"""TensorBoard files, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.api import run_config
from pytest_overfit.report.board.layout import hyperparameters
from pytest_overfit.report.board.tensorboard import TensorBoardLog, guide_names
from pytest_overfit.run.sample import Sample
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.trainer.loading import load_config
from tests.support.batches import two_view_batch
from tests.support.boards import open_board, read_scalars
from tests.support.configs import write_tiny
from tests.support.tiny import Memoriser


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
        "watch/lr": [(1, 0.001), (2, 0.001)],
        "watch/grad_norm/head": [(1, 3.0), (2, 2.0)],
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
    assert set(scalars(tmp_path)) == {"train/loss_objective", "watch/lr", "val/loss_objective", "val/loss_camera"}


def test_the_losss_own_depth_term_is_kept() -> None:
    """A loss that gives loss_depth itself is not overruled."""
    assert guide_names({"loss_depth": 1.0, "loss_reg_depth": 2.0})["loss_depth"] == 1.0


def test_limits_are_lines_of_few_points(tmp_path: Path) -> None:
    """From the first step to the last, a share of the start among them."""
    log = TensorBoardLog(tmp_path, limits={"objective": Limit(0.01), "depth": Limit(0.1, relative=True)})
    log.on_steps(0, [{"objective": 2.0, "loss_reg_depth": 0.5}] * 30)
    log.on_steps(30, [{"objective": 1.0, "loss_reg_depth": 0.1}] * 10)
    log.close()
    found = scalars(tmp_path)
    assert found["watch/limits/objective"] == [(1, 0.01), (40, 0.01)]
    assert found["watch/limits/depth"] == [(1, 0.05), (40, 0.05)]
    assert "custom_scalars__config__" in open_board(tmp_path).Tags()["tensors"]


def test_a_run_that_is_killed_leaves_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is closed, and the curve and its limit are there."""
    monkeypatch.setattr("pytest_overfit.report.board.tensorboard.FLUSH_SECONDS", 0.0)
    log = TensorBoardLog(tmp_path, limits={"objective": Limit(0.01)})
    log.on_steps(0, [{"objective": 2.0}] * 5)
    log.on_steps(5, [{"objective": 1.0}] * 5)
    assert len(scalars(tmp_path)["train/loss_objective"]) == 10
    assert [step for step, _ in scalars(tmp_path)["watch/limits/objective"]] == [1, 5, 10]
    log.close()


def test_the_file_of_a_real_run_is_complete(tmp_path: Path) -> None:
    """Every kind of scalar, the pictures, the verdict and its text, in one file of one folder."""
    visuals = ("exp_name: tiny", "exp_name: tiny\nlogging: {log_visuals: true}")
    config = load_config(write_tiny(tmp_path, replace=(visuals, ("max_epochs: 10", "max_epochs: 2"))))
    limits = config.overfit.criteria.limits()
    folder = tmp_path / "board"
    log = TensorBoardLog(folder, limits=limits)
    batch = two_view_batch()
    result = run_config(config, Memoriser(), Sample(batch, batch, ()), observers=lambda seed: [log])
    log.on_result(result)
    log.close()
    assert len(list(folder.iterdir())) == 1
    found = scalars(folder)
    steps = result.record.steps
    splits = {
        f"{split}/{term}" for split in ("train", "val") for term in ("loss_objective", "loss_camera", "loss_depth")
    }
    kinds = {
        f"watch/{kind}_norm/{group}" for kind in ("grad", "update") for group in ("trunk", "confidence", "camera_head")
    }
    spread = {f"watch/confidence/{name}" for name in ("mean", "min", "max")}
    assert splits | kinds | spread | {"watch/lr", "watch/weight_decay"} <= found.keys()
    assert {tag for tag in found if tag.startswith("watch/limits/")} == {f"watch/limits/{name}" for name in limits}
    assert [found["watch/limits/camera"][end][0] for end in (0, -1)] == [1, steps]
    assert (
        found["watch/confidence/min"][-1][1]
        <= found["watch/confidence/mean"][-1][1]
        <= found["watch/confidence/max"][-1][1]
    )
    assert found["verdict/passed"] == [(steps, float(result.passed))]
    board = open_board(folder)
    assert "watch/cameras" in board.Tags()["images"]
    shown = sorted({*found, *board.Tags()["images"]})  # as TensorBoard orders its cards
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in shown))
    assert groups == ["train", "val", "verdict", "watch"]
    (text,) = board.Tensors("summary/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert [line[4:].rstrip() for line in shown.splitlines()] == [x.rstrip() for x in result.summary().splitlines()]
    started = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    verdict = hyperparameters(result, limits)["verdict"]
    assert str(verdict).encode() in started


class Checkerboard:
    """Pictures of another application, which draw themselves."""

    def panels(self) -> dict[str, Any]:
        return {"board/small": np.zeros((2, 3, 3), np.uint8)}

    def write(self, folder: Path) -> tuple[str, ...]:
        raise AssertionError("TensorBoard has a file of its own")


def test_any_pictures_that_draw_themselves_are_shown(tmp_path: Path) -> None:
    """A log asks pictures for their panels, and knows nothing of what they show."""
    log = TensorBoardLog(tmp_path)
    log.on_steps(0, [{"objective": 1.0}])
    log.on_pictures(Checkerboard())
    log.close()
    image = open_board(tmp_path).Images("watch/board/small")[0]
    assert (image.step, image.width, image.height) == (1, 3, 2)
