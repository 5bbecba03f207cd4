"""What a config says of a trainer's own classes and files, as frozen records of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CheckpointConfig:
    """``checkpoint``: the weights that a run starts from.

    Args:
        path: None trains from scratch.
        strict: whether a missing or unexpected key is an error.
        key: the key of the config that named the path.
    """

    path: Path | None = None
    strict: bool = False
    key: str = "checkpoint.resume_checkpoint_path"


@dataclass(frozen=True)
class TrainerConfig:
    """A trainer whose own classes hand out the batches.

    Args:
        train, val: ``data.<split>``, mappings with a ``_target_`` and its arguments; relative paths in them are found.
        accum_steps: into how many parts the trainer cuts a batch to accumulate gradients.
        repeat_batch: whether every batch is doubled by its frames in reverse order.
        logged: the scalars that the trainer logs of a training step.
        own_clipper: the trainer clips by a class of its own, which wants a group for every parameter.
    """

    train: Mapping[str, Any]
    val: Mapping[str, Any] | None = None
    accum_steps: int = 1
    repeat_batch: bool = False
    logged: tuple[str, ...] = ()
    own_clipper: bool = False

    def split(self, name: str) -> Mapping[str, Any]:
        """The section of one split.

        Example:
            >>> TrainerConfig({"_target_": "data.Loader"}).split("train")
            {'_target_': 'data.Loader'}
        """
        section = self.train if name == "train" else self.val
        assert section is not None
        return section
