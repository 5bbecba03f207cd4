"""A model under a loss as a task: how a model is called, what a loss may return, what counts as a prediction."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.names import OBJECTIVE_NAMES
from pytest_overfit.run.task import Heard, Precision, Terms, scalar_terms
from pytest_overfit.untrusted.objects import contents, is_a, items_of, state

LABELS = ("labels", "label_ids", "next_sentence_label", "start_positions", "end_positions", "mc_labels")
CRITERION_HINT = "pass loss(model, batch), or a criterion such as nn.CrossEntropyLoss() beside an (input, target) batch"


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
        self.heard.clear()
        if self.predictor is not None:
            predictions = self.predict(batch)
            self.heard.clear()
            return predictions, scalar_terms(self.loss(predictions, batch))
        with self.precision.autocast(self.device):
            terms = scalar_terms(self.loss(self.given, batch))
        return Heard(self.heard), terms

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
            def hear(module: nn.Module, args: Any, output: Any) -> None:
                if is_a(output, Tensor):  # the common case, at every step of every run
                    if is_dense(output) and output.is_floating_point():
                        self.heard.append((prefix or "output", output))
                else:
                    self.heard.extend(named_outputs(attributes_of(output), prefix))

            return hear

        named = listened_to(self.given)
        handles = [nn.Module.register_forward_hook(module, listener(name)) for name, module in named]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


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


def as_loss(loss: Any) -> Callable[[Any, Any], Any]:
    """``loss(model, batch)`` for whatever the user gave.

    A criterion (an ``nn.Module``, or a function of ``torch.nn.functional``) is called with the model's output and the
    target of an ``(input, target)`` batch, and so is a function of the user's that cannot take a model and can take
    these. Without a loss the model returns its own: a scalar, a mapping, or an object with ``.loss``; of a mapping of
    scalars without an objective the sum is minimised.
    """
    if loss is None:
        return _own_loss
    kind = type(loss) if isinstance(loss, nn.Module) else loss
    if str(getattr(kind, "__module__", "")).startswith(("torch.nn.", "torch._C._nn")):
        return partial(_criterion, loss)
    if not callable(loss):
        raise OverfitError(
            f"a {type(loss).__name__} where a loss is wanted",
            where="loss",
            allowed="a callable loss(model, batch), a criterion such as nn.CrossEntropyLoss(), or None",
        )
    ways = loss, partial(_criterion, loss)
    return _as_written(*(reversed(ways) if isinstance(loss, nn.Module) else ways))


def _as_written(way: Callable[[Any, Any], Any], other: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A loss of (model, batch), or of (output, target): what its first call takes, the likelier way first."""
    settled: list[Callable[[Any, Any], Any]] = []

    def called(model: Any, batch: Any) -> Any:
        if settled:
            return settled[0](model, batch)
        taken = way
        try:
            terms = way(model, batch)
        except (AttributeError, TypeError, ValueError) as error:
            if len(contents(batch) if is_a(batch, list, tuple) else ()) != 2:
                raise
            taken = other
            try:
                with users_code():
                    terms = other(model, batch)
            except Refused:
                raise error from None
        settled.append(taken)
        return terms

    return called


def _own_loss(model: Any, batch: Any) -> Any:
    if not callable(model):
        raise OverfitError(
            f"no loss was given, and the model is a {type(model).__name__} of models",
            where="loss",
            allowed="a callable loss(models, batch), or a step of your own",
            hint="the loss gets the models as you passed them",
        )
    if problem := _cannot_take(model, batch):
        raise OverfitError(
            f"no loss was given, and {type(model).__name__} cannot be called with this batch: {problem}",
            where="loss",
            allowed="a loss, or a model that takes the batch and returns its own loss",
            hint=CRITERION_HINT,
        )
    output = call_model(model, batch)
    if isinstance(output, Tensor) and output.numel() != 1:
        raise OverfitError(
            f"no loss was given, and the model returned a tensor of shape {tuple(output.shape)}",
            where="loss",
            allowed="a model that returns its own loss (a scalar, a mapping, an object with .loss), or a loss",
            hint=CRITERION_HINT,
        )
    if isinstance(output, Mapping):
        return _summed(output, model, batch)
    return output if is_a(output, Tensor) else _loss_in(output)


def _loss_in(output: Any) -> Any:
    """What an object has as ``loss``; itself where it has none, or does not tell."""
    try:
        with users_code():
            return getattr(output, "loss", output)
    except Refused:
        return output


def _summed(output: Mapping[str, Any], model: Any, batch: Any) -> Mapping[str, Any]:
    """A mapping of losses with their sum as the objective, as detection models return in training mode.

    Raises:
        OverfitError: it holds no loss.
    """
    if any(output.get(name) is not None for name in OBJECTIVE_NAMES):
        return output
    if output and all(isinstance(value, Tensor) and value.numel() == 1 for value in output.values()):
        return {"objective": sum(value.sum() for value in output.values()), **output}
    wanted = [name for name in _parameters_of(model) if name in LABELS]
    lacking = [name for name in wanted if not isinstance(batch, Mapping) or batch.get(name) is None]
    raise OverfitError(
        f"no loss was given, and {type(model).__name__} returned none, only {', '.join(map(str, output)) or 'nothing'}",
        where="loss",
        allowed="a model that returns its own loss (a scalar, a mapping of scalars, an object with .loss), or a loss",
        hint=f"the batch has no {' and no '.join(lacking)}, which {type(model).__name__} makes its loss of"
        if lacking
        else CRITERION_HINT,
    )


def _parameters_of(model: Any) -> list[str]:
    """The names of what a model is called with."""
    try:
        return list(inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters)
    except (TypeError, ValueError):
        return []


def _cannot_take(model: Callable[..., Any], batch: Any) -> str | None:
    """Why the signature of a model does not fit a batch; None where it does, or is not known."""
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
        call_model(signature.bind, batch)
    except TypeError as error:
        return str(error)
    except ValueError:
        return None
    return None


def call_model(model: Callable[..., Any], batch: Any) -> Any:
    """A mapping as keyword arguments, a tuple or list as positional ones, anything else as the only one."""
    if is_a(batch, Mapping):
        return model(**batch)
    if is_a(batch, list, tuple) and not hasattr(type(batch), "_fields"):
        return model(*contents(batch))
    return model(batch)


def _criterion(criterion: Callable[[Any, Any], Any], model: Any, batch: Any) -> Any:
    parts = contents(batch) if is_a(batch, list, tuple) else []
    if len(parts) != 2:
        if isinstance(criterion, nn.Module) and type(criterion).__module__.partition(".")[0] != "torch":
            return criterion(model, batch)  # a loss of the user's own that is written as a module
        raise OverfitError(
            f"a criterion with a batch that is a {type(batch).__name__}",
            where="loss",
            allowed="an (input, target) batch beside a criterion such as nn.CrossEntropyLoss()",
            hint="write the loss as a function: loss(model, batch)",
        )
    inputs, target = parts
    return criterion(model(**inputs) if is_a(inputs, Mapping) else model(inputs), target)


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
