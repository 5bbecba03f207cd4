"""What meets the targets of a batch in a loss: how much each weighs, and what one number for all of them reaches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.agreement import BackwardAgain
from pytest_overfit.diagnose.movement import NOTHING, ConstantAnswer, MetTarget, MetTargets
from pytest_overfit.diagnose.questions.backward_again import hooks_of, measure_backward
from pytest_overfit.diagnose.questions.operation_names import LOSSES, REGRESSORS
from pytest_overfit.diagnose.questions.targets import origin_of
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.update import into_training

DIFFERENCES = ("sub", "__sub__", "rsub", "__rsub__")


@dataclass(frozen=True)
class _Met:
    """A loss of torch's: its function, the key of the batch whose values it compares, and what it gave."""

    name: str
    key: str
    out: Tensor


class _Comparisons(TorchFunctionMode):
    """What of a forward pass compares predictions with numbers of the batch; ``answer`` stands in for predictions."""

    def __init__(self, batch: Any, model: nn.Module, answer: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.batch, self.answer = batch, answer
        self.modules, self.depth = {id(module) for module in model.modules()}, 0
        self.met: list[_Met] = []
        self.keys: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if len(args) < 2 or not (isinstance(args[0], Tensor) and isinstance(args[1], Tensor)):
            return func(*args, **kwargs)
        is_loss, is_difference = name in LOSSES, name in DIFFERENCES and not self.depth
        if not (is_loss or is_difference) or args[0].requires_grad == args[1].requires_grad:
            return func(*args, **kwargs)
        place = 1 if args[0].requires_grad else 0
        predicted, target = args[1 - place], args[place].detach()
        key = origin_of(self.batch, target)[0]
        given = list(args)
        regresses = is_difference or name in REGRESSORS
        if key and regresses and predicted.shape == target.shape and is_real(target):
            self.keys.append(key)
            if self.answer is not None:
                given[1 - place] = predicted * 0 + self.answer(target)
        out = func(*given, **kwargs)
        if key and is_loss and isinstance(out, Tensor):
            self.met.append(_Met(name, key, out))
        return out

    def scalars(self) -> list[_Met]:
        """Those that are one number, and have a gradient."""
        return [each for each in self.met if not each.out.dim() and each.out.requires_grad]

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
        >>> again, weighed, constant = back.ask(terms["objective"])  # doctest: +SKIP
    """

    def __init__(self, on: RunContext) -> None:
        self.on, self.asked = on, _Comparisons(on.task.batch, on.task.model)
        self.before = {name: set(held) for name, held in hooks_of(on.task.model).items()}

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Around a call in training mode under the run's seed."""
        return self.asked.listening()

    def ask(self, objective: Tensor) -> tuple[BackwardAgain | MetTargets | ConstantAnswer | None, ...]:
        """The answers; the graph of what the call gave is used up."""
        met = self.asked.scalars()
        weights, last = _weights(objective, [each.out for each in met]), [float(each.out.detach()) for each in met]
        into_training(self.on.task.model)
        again = measure_backward(self.on, objective, self.before)
        weighed, constant = _weighed(self.on, met, weights, last), _constant_answer(self.on, self.asked)
        self.asked.met.clear()
        return again, weighed, constant


def _weights(objective: Tensor, terms: Sequence[Tensor]) -> list[float | None]:
    """What an objective multiplies each of several numbers with."""
    if len(terms) < 2 or not objective.requires_grad:
        return []
    with users_code():
        found = torch.autograd.grad(objective, terms, allow_unused=True, retain_graph=True)
    return [None if weight is None else float(weight) for weight in found]


def _weighed(
    on: RunContext, met: Sequence[_Met], weights: Sequence[float | None], last: Sequence[float]
) -> MetTargets | None:
    """Losses that weigh next to nothing beside others, and how they fell."""
    heaviest = max((abs(weight) for weight in weights if weight is not None), default=0.0)
    light = [at for at, weight in enumerate(weights) if weight is not None and 0 < abs(weight) < NOTHING * heaviest]
    if not light:
        return None
    asked, kept = _Comparisons(on.task.batch, on.task.model), Snapshot()
    kept.add(on.task.model)
    with on.at_start(), asked.listening():
        on.seeded()
    kept.restore()
    first = asked.scalars()
    if [(each.name, each.key) for each in met] != [(each.name, each.key) for each in first]:
        return None
    rows = [(met[at], weights[at] or 0.0, float(first[at].out.detach()), last[at]) for at in light]
    return MetTargets(heaviest, tuple(MetTarget(each.name, each.key, *numbers) for each, *numbers in rows))


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
