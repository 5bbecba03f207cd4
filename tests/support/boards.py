"""TensorBoard files through TensorBoard's own reader."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def open_board(folder: Path) -> Any:
    """The loaded ``EventAccumulator`` of a run's folder, with every scalar kept."""
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    accumulator: Any = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of every scalar."""
    board = open_board(folder)
    return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
