"""What the user gave to be called: whether it can be called as a run does, and whose return value is no loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import from_here
from pytest_overfit.run.stack_lines import is_library
from pytest_overfit.run.subject import Subject, is_factory
from pytest_overfit.run.task import NoLossError

LOSS = "loss(model, batch), or loss(output, target) beside an (input, target) batch"
STEP = "step(model, batch, optimizer), or as many of these as it needs, in this order"


def check_calls(subject: Subject) -> None:
    """Whether each function that was given takes what a run calls it with.

    Raises:
        OverfitError: one does not; with its own place in the user's source.
    """
    for what, function, counts, allowed in _calls(subject):
        wanted = _signature(function)
        if wanted is not None and not any(_takes(wanted, count) for count in counts):
            raise OverfitError(f"{_named(function)} takes {wanted}", where=what, allowed=allowed)


def _calls(subject: Subject) -> Iterator[tuple[str, Any, tuple[int, ...], str]]:
    if is_factory(subject.model):
        allowed = "a module, or a factory that is called without arguments: lambda: Net(width=64)"
        yield "model", subject.model, (0,), allowed
    if callable(subject.loss) and not isinstance(subject.loss, nn.Module):
        yield "loss", subject.loss, (2,), LOSS
    if callable(subject.step):
        yield "step", subject.step, (0, 1, 2, 3), STEP
    if callable(subject.optimizer) and not isinstance(subject.optimizer, Optimizer):
        yield "optimizer", subject.optimizer, (1,), "an optimizer, or a factory that is called with the parameters"
    for schedule in subject.schedules.values():
        yield "schedule", schedule, (1,), "a function of the progress from 0 to 1"


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """What a function of the user's takes; None where it is a library's, or does not tell."""
    if _place(function) is None:
        return None
    try:
        return inspect.signature(function, follow_wrapped=False)  # a decorator may give what is missing
    except (TypeError, ValueError):
        return None


def _takes(wanted: inspect.Signature, count: int) -> bool:
    try:
        wanted.bind(*range(count))
    except TypeError:
        return False
    return True


def told_whose(error: NoLossError, subject: Subject) -> OverfitError:
    """What a function of the user's returned in place of a loss, with its name and place."""
    what, function = ("loss", subject.loss) if subject.step is None else ("step", subject.step)
    whose = f"the {what}" if _place(function) is None else _named(function)
    allowed = error.allowed if what == "loss" else f"the loss of the step: {error.allowed}"
    hint = "end it with `return loss`" if what == "step" and error.is_nothing else error.hint
    return OverfitError(f"{whose} returned {error.returned}", where=what, allowed=allowed, hint=hint)


def _named(function: Any) -> str:
    """``loss (train.py:12)``, ``the lambda (test_it.py:7)``, ``Net (model.py:3)``."""
    name = getattr(function, "__name__", type(function).__name__)
    return f"{'the lambda' if name == '<lambda>' else name} ({_place(function)})"


def _place(function: Any) -> str | None:
    """File and line where a function or a class of the user's begins; None of anything else."""
    function = inspect.unwrap(function) if callable(function) else function
    function = getattr(function, "__func__", function)
    if not isinstance(function, type) and not hasattr(function, "__code__"):
        function = inspect.getattr_static(type(function), "__call__", None)
    code = getattr(function, "__code__", None) or getattr(getattr(function, "__init__", None), "__code__", None)
    if code is None or is_library(code.co_filename):
        return None
    return f"{from_here(code.co_filename)}:{code.co_firstlineno}"
