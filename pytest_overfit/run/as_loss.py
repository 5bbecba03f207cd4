"""Whatever the user gave as a loss, as ``loss(model, batch)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.names import OBJECTIVE_NAMES
from pytest_overfit.run.task import total_in
from pytest_overfit.untrusted.objects import contents, is_a, text_of

LABELS = ("labels", "label_ids", "next_sentence_label", "start_positions", "end_positions", "mc_labels")
CRITERION_HINT = "pass loss(model, batch), or a criterion such as nn.CrossEntropyLoss() beside an (input, target) batch"


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
        return OfOutput(loss)
    if not callable(loss):
        raise OverfitError(
            f"a {type(loss).__name__} where a loss is wanted",
            where="loss",
            allowed="a callable loss(model, batch), a criterion such as nn.CrossEntropyLoss(), or None",
        )
    ways = loss, OfOutput(loss)
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
    names = [text_of(name) for name in output]
    if total := total_in(names):
        gave = f"no loss was given, and {type(model).__name__} returned {', '.join(names)}"
        raise OverfitError(
            f"{gave}: their sum counts what is in {total} twice",
            where="loss",
            allowed=f"the loss under one of the keys {', '.join(OBJECTIVE_NAMES)}, or its terms alone",
            hint=f'return it as "objective" in place of "{total}"',
        )
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


@dataclass(frozen=True)
class OfOutput:
    """A criterion as a loss: of the model's output and the target of an (input, target) batch."""

    criterion: Callable[[Any, Any], Any]

    def __call__(self, model: Any, batch: Any) -> Any:
        return self.both(model, batch)[1]

    def both(self, model: Any, batch: Any) -> tuple[Any, Any]:
        """The output and the loss.

        Raises:
            OverfitError: the batch is no pair.
        """
        criterion = self.criterion
        parts: Any = batch if type(batch) is tuple else contents(batch) if is_a(batch, list, tuple) else ()
        if len(parts) != 2:
            if isinstance(criterion, nn.Module) and type(criterion).__module__.partition(".")[0] != "torch":
                return None, criterion(model, batch)  # a loss of the user's own that is written as a module
            raise OverfitError(
                f"a criterion with a batch that is {_kind_of(batch)}",
                where="loss",
                allowed="an (input, target) batch beside a criterion such as nn.CrossEntropyLoss()",
                hint="write the loss as a function: loss(model, batch)",
            )
        inputs, target = parts
        named = type(inputs) is not Tensor and is_a(inputs, Mapping)
        output = model(**inputs) if named else model(inputs)
        return output, criterion(output, target)


def _kind_of(batch: Any) -> str:
    kind = type(batch).__name__
    return f"an empty {kind}" if is_a(batch, list, tuple, Mapping) and not len(batch) else f"a {kind}"
