"""Gradient checkpointing: what a forward pass leaves is made again in the backward one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.twins.course import Exchange, replay
from pytest_overfit.twins.side import Side

NEW = {"use_reentrant": False}  # the form that torch advises


def checkpointing(side: Side) -> TwinResult:
    """Gradient checkpointing by the model's own switch, else around every block."""
    again = _Again()
    exchange, how, off = _checkpointed(side, again)
    applied = exchange.applied or contextlib.nullcontext

    @contextlib.contextmanager
    def heard(context: RunContext) -> Iterator[None]:
        with applied(context), again.heard(context.task.model):
            yield

    if off:
        replay(side.context, 1, Exchange(applied=lambda context: again.heard(context.task.model)))
    result = side.against("checkpointing", replace(exchange, applied=heard), how)
    if result.outcome == "agreed" and not again.run:
        raise Unanswerable(f"{how} changes nothing: no module runs again in the backward pass")
    return result


class _Again:
    """Whether a module has run within a backward pass, as one does whose forward pass is made again."""

    run = False

    def hear(self, *_: Any) -> None:
        """Called whenever a module runs."""
        self.run |= torch._C._current_graph_task_id() != -1

    @contextlib.contextmanager
    def heard(self, model: nn.Module) -> Iterator[None]:
        """Listens for the length of the block."""
        with contextlib.ExitStack() as stack:
            for module in model.modules():
                stack.callback(module.register_forward_pre_hook(self.hear).remove)
            yield


def _checkpointed(side: Side, again: _Again) -> tuple[Exchange, str, bool]:
    """What is exchanged, in words, and whether it is switched off: it was on."""
    model = side.context.task.model
    modules: list[Any] = [m for _, root in listened_to(side.context.task.given) for m in root.modules()]
    for on, off, keywords in (
        ("gradient_checkpointing_enable", "gradient_checkpointing_disable", {"gradient_checkpointing_kwargs": NEW}),
        ("enable_gradient_checkpointing", "disable_gradient_checkpointing", {}),
        ("set_grad_checkpointing", "", {}),
    ):
        found = next((m for m in modules if callable(getattr(m, on, None)) and (not off or hasattr(m, off))), None)
        names = ("supports_gradient_checkpointing", "_supports_gradient_checkpointing")
        if found is None or any(getattr(found, name, True) is False for name in names):
            continue
        switch = partial(getattr(found, on), **keywords)
        ways = (switch, getattr(found, off)) if off else (partial(switch, True), partial(switch, False))
        if was_on := _changes_nothing(ways[0], model):
            ways = ways[1], ways[0]
        told = f"{type(found).__name__}{' without ' if was_on else '.'}{on}()"
        return Exchange(applied=partial(_switched, *ways), twice=True), told, was_on
    blocks = [(name, block) for name, block in blocks_in(model) if any(True for _ in block.parameters())]
    if not blocks:
        raise Unanswerable("the model has no switch for it and no blocks (elements of a ModuleList or Sequential)")
    around = Exchange(applied=partial(_around, [block for _, block in blocks], again), twice=True)
    return around, f"around {len(blocks)} block{'s' * (len(blocks) > 1)}: {blocks[0][0]}, ...", False


def _changes_nothing(switch: Callable[[], Any], model: nn.Module) -> bool:
    """Whether a switch leaves every flag of every module as it is: it was on."""
    before = [{k: v for k, v in vars(m).items() if isinstance(v, bool)} for m in model.modules()]
    with users_code():
        switch()
    return before == [{k: v for k, v in vars(m).items() if isinstance(v, bool)} for m in model.modules()]


@contextlib.contextmanager
def _switched(on: Callable[[], Any], off: Callable[[], Any], context: RunContext) -> Iterator[None]:
    with users_code():
        on()
    try:
        yield
    finally:
        off()


def blocks_in(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost blocks of a model: the elements of its lists and sequences."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and not any(name.startswith(each) for each in inside):
            inside.append(f"{name}." if name else "")
            yield from ((f"{name}.{key}".lstrip("."), block) for key, block in module.named_children())
            if not name:
                return


@contextlib.contextmanager
def _around(blocks: Sequence[nn.Module], again: _Again, context: RunContext) -> Iterator[None]:
    """Every block's forward pass is not kept but made again in the backward one."""

    def wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            again.hear()
            return forward(*args, **kwargs)

        return lambda *args, **kwargs: checkpoint(told, *args, use_reentrant=False, **kwargs)

    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        vars(block)["forward"] = wrapped(block.forward)
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del vars(block)["forward"]
            else:
                vars(block)["forward"] = forward
