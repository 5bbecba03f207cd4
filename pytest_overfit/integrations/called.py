"""Which modules of a model a train step calls itself: those whose outputs are its predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.run.gradient_watch import named_outputs


def called_modules(model: nn.Module, step: Callable[[], Any]) -> Any:
    """The model where the step calls it, else the outermost submodules that it calls: one, or name -> module.

    Example:
        >>> called_modules(module, lambda: module.training_step(batch, 0))      # doctest: +SKIP
        {'encoder': Encoder(...), 'head': Linear(...)}

    A module without parameters, or that returns nothing but scalars, is a loss or a metric and does not count. Where
    the step fails, or calls none, it is the model: whoever runs it next reports the error.
    """
    depth = 0
    found: dict[str, nn.Module] = {}

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal depth
            depth -= 1
            predicts = any(tensor.numel() > 1 for _, tensor in named_outputs(output))
            if depth == 0 and predicts and any(True for _ in module.parameters()):
                found.setdefault(name, module)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave(name), always_call=True),
        ]
    try:
        with users_code():
            step()
    except (Refused, Unanswerable):
        return model
    finally:
        for handle in handles:
            handle.remove()
    if not found or "" in found:
        return model
    return next(iter(found.values())) if len(found) == 1 else found
