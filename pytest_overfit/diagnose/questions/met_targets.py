"""What meets the targets of a batch in a loss, and what one number for all of them reaches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.agreement import BackwardAgain
from pytest_overfit.diagnose.movement import ConstantAnswer
from pytest_overfit.diagnose.questions.backward_again import hooks_of, measure_backward
from pytest_overfit.diagnose.questions.operation_names import REGRESSORS
from pytest_overfit.diagnose.questions.targets import origin_of
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.update import into_training

DIFFERENCES = ("sub", "__sub__", "rsub", "__rsub__")


class _Comparisons(TorchFunctionMode):
    """What of a forward pass compares predictions with numbers of the batch; ``answer`` stands in for predictions."""

    def __init__(self, batch: Any, model: nn.Module, answer: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.batch, self.answer = batch, answer
        self.modules, self.depth = {id(module) for module in model.modules()}, 0
        self.keys: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if len(args) < 2 or not (isinstance(args[0], Tensor) and isinstance(args[1], Tensor)):
            return func(*args, **kwargs)
        compares = name in REGRESSORS or (name in DIFFERENCES and not self.depth)
        if not compares or args[0].requires_grad == args[1].requires_grad:
            return func(*args, **kwargs)
        place = 1 if args[0].requires_grad else 0
        predicted, target = args[1 - place], args[place].detach()
        key = origin_of(self.batch, target)[0]
        given = list(args)
        if key and predicted.shape == target.shape and is_real(target):
            self.keys.append(key)
            if self.answer is not None:
                given[1 - place] = predicted * 0 + self.answer(target)
        return func(*given, **kwargs)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """The block tells what the model's own modules do from what is done outside of them."""

        def enter(module: nn.Module, args: Any) -> None:
            self.depth += id(module) in self.modules

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self.depth -= id(module) in self.modules

        with contextlib.ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(enter).remove)
            stack.callback(register_module_forward_hook(leave, always_call=True).remove)
            stack.enter_context(self)
            yield


class LookBack:
    """What one call of the loss says of its gradients, and of the targets of the batch in it.

    Example:
        >>> back = LookBack(on)  # doctest: +SKIP
        >>> with back.listening():  # doctest: +SKIP
        ...     heard, terms = on.seeded()
        >>> again, constant = back.ask(terms["objective"])  # doctest: +SKIP
    """

    def __init__(self, on: RunContext) -> None:
        self.on, self.asked = on, _Comparisons(on.task.batch, on.task.model)
        self.before = {name: set(held) for name, held in hooks_of(on.task.model).items()}

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Around a call in training mode under the run's seed."""
        return self.asked.listening()

    def ask(self, objective: Tensor) -> tuple[BackwardAgain | ConstantAnswer | None, ...]:
        """The answers; the graph of what the call gave is used up."""
        into_training(self.on.task.model)
        again = measure_backward(self.on, objective, self.before)
        return again, _constant_answer(self.on, self.asked)


def _constant_answer(on: RunContext, seen: _Comparisons) -> ConstantAnswer | None:
    """The objective of the model with one number, the mean of all targets, in place of every prediction.

    Asked only where targets that differ do so by less than the limit, in squares or as they are.
    """
    limit = on.plan.limits.get("objective")
    if limit is None or limit.below is None:
        return None
    most = math.inf if limit.relative else limit.below
    tensors = dict(dense_tensors(on.task.batch))
    spread = {key: float(tensors[key].detach().double().std()) for key in dict.fromkeys(seen.keys)}
    key = next((key for key, size in spread.items() if size > 0), None)
    if key is None or all(min(size, size**2) > most for size in spread.values()):
        return None
    asked = _Comparisons(on.task.batch, on.task.model, lambda target: target.mean())
    into_training(on.task.model)
    with asked.listening():
        reached = float(on.seeded()[1]["objective"].detach())
    return ConstantAnswer(key, spread[key], reached)
