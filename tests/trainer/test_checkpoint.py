"""Weights to start from: loaded, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.build import load_checkpoint
from pytest_overfit.trainer.config import CheckpointConfig


def saved(tmp_path: Path, content: Any) -> CheckpointConfig:
    torch.save(content, tmp_path / "a.pt")
    return CheckpointConfig(tmp_path / "a.pt")


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_weights_are_found_where_trainers_keep_them(tmp_path: Path, key: str | None) -> None:
    """The state dict itself, or under its usual keys beside whatever else was saved."""
    weights = nn.Linear(2, 2).state_dict()
    model = nn.Linear(2, 2)
    assert load_checkpoint(model, saved(tmp_path, weights if key is None else {key: weights, "epoch": 3})) == ()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    """By their suffix."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "a.safetensors")
    assert load_checkpoint(nn.Linear(2, 2), CheckpointConfig(tmp_path / "a.safetensors")) == ()


def test_keys_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """Missing and unexpected ones, with their number."""
    weights = {**nn.Linear(2, 2).state_dict(), "head.weight": torch.ones(1)}
    del weights["bias"]
    assert load_checkpoint(nn.Linear(2, 2), saved(tmp_path, weights)) == (
        "a.pt: 1 of 2 tensors of the model not in it: bias",
        "a.pt: 1 of its 2 not in the model: head.weight",
    )


class Runs:
    """Would run code on loading."""

    def __reduce__(self) -> Any:
        return print, ("this must not be printed",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"module.weight": torch.ones(2, 2)}, "has none of the 2 tensors of Linear, only module.weight"),
        ({"weight": torch.ones(3, 3)}, "does not fit Linear"),
        ({"weight": torch.ones(2, 2), "evil": Runs()}, "cannot be read as tensors alone"),
        ([torch.ones(2)], "holds a list"),
    ],
)
def test_what_cannot_be_used_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, says: str
) -> None:
    """A prefix on every name, another shape, a file with code in it, no mapping."""
    with pytest.raises(ConfigError, match=r"^checkpoint\.resume_checkpoint_path") as caught:
        load_checkpoint(nn.Linear(2, 2), saved(tmp_path, content))
    assert says in str(caught.value)
    assert "must not be printed" not in capsys.readouterr().out
