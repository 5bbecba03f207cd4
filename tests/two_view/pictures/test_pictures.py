"""Frames as panels: one scale for both depths, invalid pixels marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pytest_overfit.report.board.tensorboard import TensorBoardLog
from pytest_overfit.two_view.application import take_pictures
from pytest_overfit.two_view.pair.pair_files import FramePicture
from pytest_overfit.two_view.pictures.drawing import INVALID
from pytest_overfit.two_view.pictures.frames import panels, picture_panels, write_pictures
from tests.support.batches import two_view_batch
from tests.support.boards import open_board
from tests.support.tiny import Memoriser


def picture(**changes: Any) -> FramePicture:
    truth = np.linspace(0.5, 1.5, 12, dtype=np.float32).reshape(3, 4)
    values: dict[str, Any] = {
        "frame": 0,
        "image": np.full((3, 4, 3), 200, np.uint8),
        "truth": truth,
        "valid": np.ones((3, 4), bool),
        "predicted": truth.copy(),
        "confidence": np.full((3, 4), 2.0, np.float32),
    }
    return FramePicture(**{**values, **changes})


def test_a_perfect_prediction_has_the_colours_of_the_truth() -> None:
    """Both depths share one scale, and the error is the scale's first colour everywhere."""
    drawn = panels(picture())
    assert (drawn["depth_predicted"] == drawn["depth_true"]).all()
    assert (drawn["depth_error"] == drawn["depth_error"][0, 0]).all()
    assert len(np.unique(drawn["depth_true"].reshape(-1, 3), axis=0)) > 5


def test_a_shifted_prediction_differs_in_colour_and_error() -> None:
    """The scale is that of the truth, so an offset shows."""
    base = picture()
    assert base.predicted is not None
    drawn = panels(picture(predicted=base.predicted + 0.05))
    assert (drawn["depth_predicted"] != drawn["depth_true"]).any()
    assert (drawn["depth_error"] != panels(base)["depth_error"]).any()


def test_invalid_pixels_are_grey() -> None:
    """Where there is no truth there is neither true depth nor error."""
    valid = np.ones((3, 4), bool)
    valid[0, 0] = False
    drawn = panels(picture(valid=valid))
    assert tuple(drawn["depth_true"][0, 0]) == INVALID
    assert tuple(drawn["depth_error"][0, 0]) == INVALID
    assert tuple(drawn["depth_true"][1, 1]) != INVALID


def test_non_finite_predictions_are_drawn_as_invalid() -> None:
    """A NaN in the prediction is marked and breaks nothing."""
    predicted = picture().truth.copy()
    predicted[2, 3] = np.nan
    assert tuple(panels(picture(predicted=predicted))["depth_predicted"][2, 3]) == INVALID


def test_what_the_model_does_not_give_is_left_out() -> None:
    """A camera-only model has no depth panels."""
    assert set(panels(picture(predicted=None, confidence=None))) == {"image", "depth_true"}


def test_every_frame_of_a_run_reaches_tensorboard(tmp_path: Path) -> None:
    """The frames of a batch, through the model, to images that TensorBoard's reader finds."""
    batch = two_view_batch()
    with torch.no_grad():
        pictures = take_pictures(Memoriser()(images=batch["images"]), batch)
    log = TensorBoardLog(tmp_path)
    log.on_steps(0, [{"objective": 1.0}] * 7)
    log.on_pictures(pictures)
    log.close()
    board = open_board(tmp_path)
    names = ("image", "depth_true", "depth_predicted", "depth_error", "confidence")
    assert set(board.Tags()["images"]) == {f"watch/frame_{i}/{name}" for i in (0, 1) for name in names} | {
        "watch/cameras"
    }
    image = board.Images("watch/frame_1/image")[0]
    assert (image.step, image.width, image.height) == (7, 56, 42)


def test_pictures_are_files_for_other_readers(tmp_path: Path) -> None:
    """One PNG per panel under a plain name, with the very pixels; written again, they replace each other."""
    pictures = [picture(), picture(frame=1, predicted=None)]
    folder = tmp_path / "deep" / "down"
    names = write_pictures(folder, pictures)
    assert names == write_pictures(folder, pictures)
    assert names[:2] == ("frame_0_image.png", "frame_0_depth_true.png")
    assert {path.name for path in folder.iterdir()} == set(names)
    panel = picture_panels(pictures)["frame_1/depth_true"]
    with Image.open(folder / "frame_1_depth_true.png") as image:
        assert (np.asarray(image) == panel).all()


def test_pictures_that_cannot_be_written_leave_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a file: the error comes through, the file of before stays."""
    write_pictures(tmp_path, [picture()])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_pictures(tmp_path, [picture(image=np.zeros((3, 4, 3), np.uint8))])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
