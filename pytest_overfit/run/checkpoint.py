"""The weights that a run starts from, read without running what a file may hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.trainer.config import CheckpointConfig
from pytest_overfit.untrusted.files import open_regular

WEIGHTS = ("model", "state_dict")  # keys under which a trainer's checkpoint keeps the model's


def load_checkpoint(model: nn.Module, checkpoint: CheckpointConfig) -> tuple[str, ...]:
    """Loads the weights into a model in place, and returns what there is to say: keys that do not fit.

    Example:
        >>> load_checkpoint(model, CheckpointConfig(Path("checkpoint.pt")))                  # doctest: +SKIP
        ('checkpoint.pt: 1 of 240 tensors of the model is not in it: head.bias',)

    A ``.safetensors`` file, or one of ``torch.save`` with the state dict itself or under ``model`` or ``state_dict``.

    Raises:
        ConfigError: it cannot be read, fits nowhere, or does not fit and ``strict`` is set.
    """
    path = checkpoint.path
    if path is None:
        return ()
    weights = _read(path, checkpoint.key)
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    if len(missing) == len(own):
        raise ConfigError(
            f"{path.name} has none of the {len(own)} tensors of {type(model).__name__}, only {shorten(unexpected)}",
            where=checkpoint.key,
            allowed=f"weights of this model, such as {shorten(list(own))}",
            hint="is it a checkpoint of another model, or one with a prefix such as module. before every name?",
        )
    notes = [f"{len(missing)} of {len(own)} tensors of the model not in it: {shorten(missing)}"] if missing else []
    notes += [f"{len(unexpected)} of its {len(weights)} not in the model: {shorten(unexpected)}"] if unexpected else []
    if checkpoint.strict and notes:
        raise ConfigError(
            f"{path.name}: {'; '.join(notes)}",
            where=checkpoint.key,
            allowed="every tensor of the model and no other, since checkpoint.strict is on",
        )
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ConfigError(
            f"{path.name} does not fit {type(model).__name__}: {' '.join(str(error).split())}",
            where=checkpoint.key,
            allowed="tensors of the model's own shapes",
        ) from error
    return tuple(f"{path.name}: {note}" for note in notes)


def _read(path: Path, key: str) -> dict[str, Tensor]:
    try:
        with open_regular(path) as file:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                loaded: Any = load_file(path)
            else:
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OverfitError as error:
        raise ConfigError(f"{path}: {error.found}", where=key, allowed=error.allowed) from None
    except Exception as error:  # a third-party reader on an arbitrary file
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{path.name} cannot be read as tensors alone: {first}",
            where=key,
            allowed="a file of torch.save that weights_only=True reads, or a .safetensors file",
            hint="save model.state_dict() on its own; overfit.checkpoint=none trains from scratch",
        ) from error
    weights = next((loaded[name] for name in WEIGHTS if _is_weights(loaded, name)), loaded)
    if not isinstance(weights, Mapping):
        raise ConfigError(
            f"{path.name} holds a {type(weights).__name__}", where=key, allowed="a mapping of names to tensors"
        )
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}


def _is_weights(loaded: Any, name: str) -> bool:
    return isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping)
