"""Autograd functions that are not torch's: does their backward give the slope of their forward?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.agreement import Slope
from pytest_overfit.diagnose.questions.tensors import graph_nodes, is_real, tensors_in
from pytest_overfit.errors.asking import users_code

OURS_OR_TORCHS = ("torch.", "pytest_overfit.")
WIDTH = 1e-3  # of the size of an input
Kept = dict[type, tuple[Any, ...]]


def custom_functions(root: Tensor) -> set[type]:
    """The autograd functions in the graph of a number that somebody else has written."""
    kinds = {getattr(node, "_forward_cls", None) for node in graph_nodes(root)}
    return {kind for kind in kinds if isinstance(kind, type) and not kind.__module__.startswith(OURS_OR_TORCHS)}


def function_slopes(kinds: set[type], run: Callable[[], Any]) -> tuple[Slope, ...]:
    """The slopes of functions along a random direction, of what they are given when ``run`` calls them.

    What returns its input as it is (a gradient that is turned around, scaled or clipped) is left out: that is meant.
    """
    kept: Kept = {}
    with _arguments(kinds, kept):
        run()
    return tuple(
        slope
        for kind, args in sorted(kept.items(), key=lambda each: each[0].__name__)
        if (slope := _slope(kind, args)) is not None
    )


@contextlib.contextmanager
def _arguments(kinds: set[type], kept: Kept) -> Iterator[None]:
    """Keeps the arguments of the first call of each function within the block."""

    def keeping(kind: type, forward: Any) -> Any:
        def hear(*args: Any) -> Any:
            new_style = "setup_context" in vars(kind)
            kept.setdefault(kind, args if new_style else args[1:])
            return forward(*args)

        return staticmethod(hear)

    own = {kind: vars(kind).get("forward") for kind in kinds}
    try:
        for kind in kinds:
            kind.forward = keeping(kind, kind.forward)  # type: ignore[attr-defined]
        yield
    finally:
        for kind, forward in own.items():
            if forward is None:
                del kind.forward  # type: ignore[attr-defined]
            else:
                kind.forward = forward  # type: ignore[attr-defined]


def _slope(kind: Any, args: tuple[Any, ...]) -> Slope | None:
    """Of a random combination of the outputs, along its own gradient.

    None where there is nothing to differentiate, where it is the identity, and where it has steps: there an estimator
    is meant.
    """
    place = next((i for i, each in enumerate(args) if is_real(each) and each.requires_grad and each.numel()), None)
    if place is None:
        return None
    start, generator = args[place].detach(), torch.Generator().manual_seed(0)
    others = [each.detach() if isinstance(each, Tensor) else each for each in args]

    def given(x: Tensor) -> list[Tensor]:
        return [t for t in tensors_in([kind.apply(*others[:place], x, *others[place + 1 :])]) if is_real(t)]

    with torch.enable_grad(), users_code():
        x = start.clone().requires_grad_()
        outputs = [out for out in given(x * 1) if out.requires_grad]
        if not outputs or any(out.shape == start.shape and torch.equal(out.detach(), start) for out in outputs):
            return None
        wanted = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
        nothing = [torch.zeros_like(each) for each in wanted]
        (gradient,) = torch.autograd.grad(outputs, x, wanted, retain_graph=True, materialize_grads=True)
        (unasked,) = torch.autograd.grad(outputs, x, nothing, materialize_grads=True)
    size = float(gradient.square().mean().sqrt())
    if not 0 < size < math.inf:
        return None
    direction, width = gradient / size, WIDTH * (float(start.abs().mean()) or 1.0)

    def slope(width: float) -> float:
        with torch.no_grad(), users_code():
            ends = zip(given(start + width * direction), given(start - width * direction), wanted, strict=True)
            return sum(float(((up.double() - down) * each).sum()) for up, down, each in ends) / (2 * width)

    found, wide = Slope(kind.__name__, size * gradient.numel(), slope(width / 4)), slope(width)
    blind = float(unasked.abs().max()) > 0.5 * float(gradient.abs().max())
    return replace(found, blind=blind) if replace(found, gradient=wide).agrees else None
