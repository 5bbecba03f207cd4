"""What is trained on what: a model, a criterion and one frozen batch, behind two calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.names import OBJECTIVE_NAMES

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Precision:
    """Automatic mixed precision of the forward pass; the loss is always computed in float32."""

    enabled: bool = False
    dtype: torch.dtype = torch.bfloat16

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype=self.dtype) if self.enabled else contextlib.nullcontext()

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """A gradient scaler that acts for float16 on CUDA and passes everything through elsewhere."""
        acts = self.enabled and self.dtype is torch.float16 and device.type == "cuda"
        return torch.amp.GradScaler(device.type if acts else "cpu", enabled=acts)


class Task(Protocol):
    """What the loop needs: a model, its frozen batches, and one call from a batch to predictions and loss terms."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def batch(self) -> Any: ...
    @property
    def val_batch(self) -> Any | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> Precision: ...

    def forward(self, batch: Any) -> tuple[Any, Terms]:
        """The predictions, and the scalar terms of the loss with ``objective`` among them."""


@dataclass(frozen=True)
class TwoViewTask:
    """A two-view model under a criterion: ``model(images=...)``, then ``criterion(predictions, batch)`` -> terms.

    ``batch`` and ``val_batch`` are frozen batches on the device (see ``pytest_overfit.data``).
    """

    model: nn.Module
    criterion: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
    batch: Mapping[str, Any]
    val_batch: Mapping[str, Any] | None
    device: torch.device
    precision: Precision = Precision()

    def forward(self, batch: Mapping[str, Any]) -> tuple[Any, Terms]:
        predictions = self.predict(batch)
        return predictions, self.terms(predictions, batch)

    def predict(self, batch: Mapping[str, Any]) -> Any:
        with self.precision.autocast(self.device):
            predictions = self.model(images=batch["images"])
        return _as_float32(predictions) if self.precision.enabled else predictions

    def terms(self, predictions: Any, batch: Mapping[str, Any]) -> Terms:
        """The scalar terms of the loss; ``objective`` is among them under that name."""
        return scalar_terms(self.criterion(predictions, batch))


def scalar_terms(result: Any) -> Terms:
    """Normalises what a loss returned to a name -> scalar tensor mapping that holds ``objective``.

    Raises:
        OverfitError: nothing in it can be the objective.
    """
    if isinstance(result, Tensor):
        result = {"objective": result}
    if not isinstance(result, Mapping):
        raise OverfitError(
            f"the loss returned a {type(result).__name__}", where="loss", allowed="a scalar tensor or a mapping of them"
        )
    terms = {
        str(key): value.reshape(()) for key, value in result.items() if isinstance(value, Tensor) and value.numel() == 1
    }
    name = next((name for name in OBJECTIVE_NAMES if name in terms), None)
    if name is None:
        raise OverfitError(
            f"the loss returned no objective, only {', '.join(map(str, result)) or 'an empty mapping'}",
            where="loss",
            allowed=f"a scalar tensor under one of the keys {', '.join(OBJECTIVE_NAMES)}",
        )
    objective = terms.pop(name)
    return {"objective": objective, **terms}


def _as_float32(predictions: Any) -> Any:
    if isinstance(predictions, Tensor):
        return predictions.float() if predictions.is_floating_point() else predictions
    if isinstance(predictions, Mapping):
        return {key: _as_float32(value) for key, value in predictions.items()}
    if isinstance(predictions, (list, tuple)):
        return [_as_float32(value) for value in predictions]
    return predictions
