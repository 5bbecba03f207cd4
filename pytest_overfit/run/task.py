"""What is trained on what: a model, a criterion and one frozen batch, behind two calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.names import OBJECTIVE_NAMES
from pytest_overfit.untrusted.objects import contents, defines, is_a, text_of

Terms = dict[str, Tensor]
MOST_SUMMED = 4  # names of a line


class Heard(list[tuple[str, Tensor]]):
    """Predictions by name, as a module that is listened to made them."""


@dataclass(frozen=True)
class Precision:
    """Automatic mixed precision of the forward pass, and of all of a ``loss(model, batch)`` or a step around it."""

    enabled: bool = False
    dtype: torch.dtype = torch.bfloat16

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype=self.dtype) if self.enabled else contextlib.nullcontext()

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """A gradient scaler that acts for float16 on an accelerator and passes everything through on a CPU."""
        acts = self.enabled and self.dtype is torch.float16 and device.type != "cpu"
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
    @property
    def repeatable(self) -> bool:
        """Whether ``forward`` can be called outside of a training step."""

    @property
    def heard(self) -> Heard:
        """What the model has predicted while it was listened to, by name; whoever reads it clears it."""

    def forward(self, batch: Any) -> tuple[Any, Terms]:
        """The predictions, and the scalar terms of the loss with ``objective`` among them."""

    def listening(self) -> contextlib.AbstractContextManager[Any]:
        """Around every use of ``forward``: a task may have to hear what its model predicts."""


class NoLossError(OverfitError):
    """What a loss or a train step returned is none; a run tells whose it is.

    Args:
        returned: what it was.
    """

    def __init__(self, returned: str, allowed: str, hint: str, *, is_nothing: bool = False) -> None:
        super().__init__(f"the loss returned {returned}", where="loss", allowed=allowed, hint=hint)
        self.returned, self.is_nothing = returned, is_nothing

    def __reduce__(self) -> tuple[object, ...]:
        return partial(NoLossError, is_nothing=self.is_nothing), (self.returned, self.allowed, self.hint)


def total_in(names: Iterable[str]) -> str:
    """The name that stands for the sum of the others; empty where none does.

    Example:
        >>> total_in(["ce", "total_loss"]), total_in(["ce", "l2"])
        ('total_loss', '')
    """
    return next((name for name in names if "total" in name.lower().split("_")), "")


def _no_objective(names: list[str]) -> NoLossError:
    if total := total_in(names):
        hint = f'name it so: "objective" in place of "{total}"; the other entries are terms beside it'
    else:
        hint = f'add what is minimised: "objective": {" + ".join(names[:MOST_SUMMED]) or "..."}'
    keys = f"a scalar tensor under one of the keys {', '.join(OBJECTIVE_NAMES)}"
    return NoLossError(f"no objective, only {', '.join(names) or 'an empty mapping'}", keys, hint)


def scalar_terms(result: Any) -> Terms:
    """What a loss or a train step returned, as a name -> scalar tensor mapping that starts with ``objective``.

    Example:
        >>> scalar_terms((torch.tensor(0.5), {"accuracy": 0.9}))
        {'objective': tensor(0.5000), 'accuracy': tensor(0.9000)}

    A scalar, a mapping that holds one under ``objective``, ``loss_objective`` or ``loss``, or a scalar first in a tuple
    (with a mapping of terms behind it). Entries that are no scalars are left out.

    Raises:
        NoLossError: nothing in it can be the objective.
    """
    if type(result) is Tensor and not (result.dim() or result.is_meta or result.is_complex()):
        return {"objective": result}  # the common case, at every step of every run
    given: Mapping[Any, Any] = {}
    if is_a(result, tuple, list) and (parts := contents(result)):
        given = parts[1] if len(parts) > 1 and is_a(parts[1], Mapping) else {}
        result = parts[0]
    if is_a(result, Mapping):
        given, name = result, next((name for name in OBJECTIVE_NAMES if name in result), None)
        if name is None:
            raise _no_objective(list(map(text_of, result)))
        result = result[name]
    objective = _as_scalar(result, "the objective")
    if objective is None:
        hint = "reduce it: .mean()" if isinstance(result, Tensor) else "return what is differentiated"
        allowed = "a scalar, a mapping of scalars with objective, or (scalar, mapping)"
        raise NoLossError(_described(result), allowed, hint, is_nothing=result is None)
    others = [(text_of(key), value) for key, value in given.items() if key not in OBJECTIVE_NAMES]
    terms = {name: _as_scalar(value, f"the term {name}") for name, value in others}
    return {"objective": objective, **{name: value for name, value in terms.items() if value is not None}}


def _as_scalar(value: Any, what: str) -> Tensor | None:
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.is_meta:
            raise _no_number(f"{what} is on the meta device: it has no value", "compute it of tensors with values")
        if value.numel() == 1 and value.is_complex():
            raise _no_number(f"{what} is complex ({value.dtype})", "return a real number of it: .abs() or .real")
        if value.dim() == 0:  # as it is: a reshape would be one more node of the graph at every step
            return value
        return value.reshape(()) if value.numel() == 1 else None
    if isinstance(value, (bool, str, bytes)) or not defines(value, "__float__"):
        return None
    try:
        return torch.tensor(float(value))
    except OverflowError as error:
        raise _no_number(f"{what} is a number beyond every float", "scale it, or leave it out") from error


def _no_number(observed: str, hint: str) -> OverfitError:
    return OverfitError(observed, where="loss", allowed="real numbers with a value", hint=hint)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
