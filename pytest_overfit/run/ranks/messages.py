"""What ranks tell each other, as plain data: JSON texts and tensors, and never a pickle that could run code."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.batch import map_tensors, named_tensors
from pytest_overfit.run.record import NonFinite


def packed(value: Any) -> str:
    """A small value as text: what JSON has, and ``NonFinite``.

    Example:
        >>> unpacked(packed(NonFinite(3, "loss term objective", None)))
        NonFinite(step=3, what='loss term objective', module=None)

    Raises:
        TypeError: it is of another kind.
    """
    return json.dumps({"non_finite": asdict(value)} if isinstance(value, NonFinite) else {"plain": value})


def unpacked(text: str) -> Any:
    """The value of a text of ``packed``."""
    told = json.loads(text)
    return NonFinite(**told["non_finite"]) if "non_finite" in told else told["plain"]


def tensors_of(batch: Any) -> bytes:
    """The tensors of a batch, with their keys."""
    buffer = io.BytesIO()
    torch.save({key: tensor.detach() for key, tensor in named_tensors(batch)}, buffer)
    return buffer.getvalue()


def with_tensors(batch: Any, data: bytes) -> Any:
    """A batch like this one with the tensors of another one; everything else in it stays.

    Raises:
        OverfitError: the other one has other tensors.
    """
    theirs: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True)
    keys = [key for key, _ in named_tensors(batch)]
    if keys != [*theirs]:
        other = sorted({*keys} ^ {*theirs}) or keys
        raise OverfitError(
            f"the batches of two ranks have other tensors: {', '.join(other[:3])}",
            where="torchrun",
            allowed="batches of one structure on every rank",
            hint="draw the same batch on every rank: seed what draws it",
        )
    values = iter(theirs.values())

    def exchanged(tensor: Tensor) -> Tensor:
        twin = next(values)
        return twin.requires_grad_() if tensor.requires_grad else twin

    return map_tensors(exchanged, batch)
