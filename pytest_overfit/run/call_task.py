"""A model under a loss as a task: how a model is called, what counts as a prediction."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.as_loss import OfOutput
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.task import Heard, Precision, Terms, scalar_terms
from pytest_overfit.untrusted.objects import contents, is_a, items_of, state


@dataclass(frozen=True)
class CallTask:
    """A model under a loss, with its frozen batches on the device.

    Under ``loss(model, batch)`` the predictions are whatever the watched modules returned on the way; beside a
    ``predictor``, (model, batch) -> predictions, the loss is ``loss(predictions, batch)``.

    ``given`` is the model as the user gave it and as the loss gets it: a module, or a mapping or sequence of modules.
    ``model`` holds all of them as one module.
    """

    model: nn.Module
    given: Any
    loss: Callable[[Any, Any], Any] | None
    batch: Any
    device: torch.device
    precision: Precision = field(default_factory=Precision)
    val_batch: Any | None = None
    predictor: Callable[[Any, Any], Any] | None = None
    heard: Heard = field(default_factory=Heard)

    def forward(self, batch: Any) -> tuple[Any, Terms]:
        if self.loss is None:
            raise AssertionError("unreachable: without a loss the task is not repeatable")
        if self._is_plain:
            output, result = self.loss.both(self.given, batch)  # type: ignore[attr-defined]
            return Heard(outputs_of("", output)), scalar_terms(result)
        self.heard.clear()
        if self.predictor is not None:
            predictions = self.predict(batch)
            self.heard.clear()
            return predictions, scalar_terms(self.loss(predictions, batch))
        if self.precision.enabled:
            with self.precision.autocast(self.device):
                predictions, result = self._called(batch)
        else:
            predictions, result = self._called(batch)
        return predictions, scalar_terms(result)

    def _called(self, batch: Any) -> tuple[Heard, Any]:
        if self._hears_itself:
            output, result = self.loss.both(self.given, batch)  # type: ignore[union-attr]
            return Heard(outputs_of("", output)), result
        result = self.loss(self.given, batch)  # type: ignore[misc]
        return Heard(self.heard), result

    @cached_property
    def _hears_itself(self) -> bool:
        """Whether the outputs are at hand without a hook, which a model pays for at every call."""
        return type(self.loss) is OfOutput and isinstance(self.given, nn.Module)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether a forward pass is the call of the loss and nothing around it."""
        return self._hears_itself and self.predictor is None and not self.precision.enabled

    def predict(self, batch: Any) -> Any:
        """What the predictor gives, in float32 whatever the forward pass ran in.

        Raises:
            OverfitError: the model returns nothing.
        """
        assert self.predictor is not None
        with self.precision.autocast(self.device):
            predictions = self.predictor(self.given, batch)
        if predictions is None:
            raise OverfitError(
                "the model returned None",
                where=f"forward of {type(self.model).__name__}",
                allowed="a mapping of predictions",
                hint="return it at the end of forward",
            )
        return map_tensors(_in_float32, predictions) if self.precision.enabled else predictions

    @property
    def repeatable(self) -> bool:
        return self.loss is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Collects the outputs of the model, or of each of several, in ``heard``, for the length of the block."""

        def listener(prefix: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, args, output: self.heard.extend(outputs_of(prefix, output))

        named = [] if self._hears_itself else listened_to(self.given)
        handles = [nn.Module.register_forward_hook(module, listener(name)) for name, module in named]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def outputs_of(prefix: str, output: Any) -> list[tuple[str, Tensor]]:
    """The floating-point tensors that a module gave, by name."""
    if type(output) is Tensor:  # the common case, at every step of every run
        return [(prefix or "output", output)] if is_dense(output) and output.is_floating_point() else []
    return named_outputs(output if is_a(output, Tensor) else attributes_of(output), prefix)


def heard_in(predictions: Any) -> Heard:
    """Predictions by name: as they were heard, or those of a nest that a predictor gave."""
    return predictions if isinstance(predictions, Heard) else Heard(named_outputs(predictions))


class Several(nn.ModuleDict):
    """Several modules of one train step, each under the name that the user gave it, without becoming their parent."""


def as_one_module(given: Any, loss: Any = None) -> nn.Module:
    """The modules of a run as one: a module itself, or a holder of several; a loss with parameters is one of them.

    Raises:
        OverfitError: there is no module.
    """
    named = listened_to(given)
    _refuse_meta(named)
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        named = [(name or "model", module) for name, module in named] + [("loss", loss)]
    elif isinstance(given, nn.Module):
        return given
    several = Several()
    for name, module in named:
        key = name.replace(".", "_") or "model"
        while hasattr(several, key):  # it is taken, or what every module has: forward, type
            key += "_"
        several[key] = module
    return several


def _refuse_meta(named: list[tuple[str, nn.Module]]) -> None:
    for prefix, module in named:
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_meta and not is_lazy(tensor):
                raise OverfitError(
                    f"{f'{prefix}.' if prefix else ''}{name} is on the meta device: it has a shape and no values",
                    where="model",
                    allowed="parameters and buffers with values",
                    hint="model.to_empty(device='cpu') and an initialisation of your own, or build the model without "
                    "torch.device('meta')",
                )


def listened_to(given: Any) -> list[tuple[str, nn.Module]]:
    """The modules that a user gave, with their names; a single one has the empty name.

    Raises:
        OverfitError: it is neither a module nor a mapping or sequence of modules.
    """
    if isinstance(given, nn.Module):
        return [("", given)]
    items: list[tuple[str, Any]] = []
    if is_a(given, Mapping):
        items = [(str(name), module) for name, module in items_of(given)]
    elif is_a(given, list, tuple):
        items = [(str(index), module) for index, module in enumerate(contents(given))]
    if not items or not all(is_a(module, nn.Module) for _, module in items):
        raise OverfitError(
            f"a {type(given).__name__} where a model is wanted",
            where="model",
            allowed="a torch.nn.Module, a mapping or list of them, or a callable without arguments that returns one",
        )
    return items


def attributes_of(output: Any) -> Any:
    """An output object (a dataclass, a namedtuple, a ``ModelOutput``) as a mapping of its parts."""
    if is_a(output, Tensor, Mapping, list):
        return output
    if is_a(output, tuple):
        names, values = getattr(type(output), "_fields", ()), contents(output)
        return dict(zip(names, values, strict=True)) if values and len(names) == len(values) else output
    return state(output) or output


def count_positional(function: Callable[..., Any], most: int) -> int:
    """How many positional arguments a callable takes, at most ``most``; that many where its signature is not known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return most
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return most
    return min(most, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))
