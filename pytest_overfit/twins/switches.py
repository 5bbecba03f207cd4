"""What is switched in place: mixed precision, kernels, compilation, fused optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.differentiated import differentiated
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.reachable import named
from pytest_overfit.run.task import Precision
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.run.update import Around, Row, Update
from pytest_overfit.twins.course import WEAK, Exchange, Tolerance
from pytest_overfit.twins.places import called_itself
from pytest_overfit.twins.side import Side
from pytest_overfit.untrusted.objects import attributes

BANDS = {  # of losses, as a share of the first (and as much more at each later step): the numbers have 8 and 11 bits
    torch.bfloat16: Tolerance(3e-2, None, None, torch.bfloat16, floor=1.0),
    torch.float16: Tolerance(1e-2, None, None, torch.float16, floor=1.0),
}
Parts = Iterator[Callable[[], TwinResult]]


def bfloat16(side: Side) -> TwinResult:
    """Autocast to bfloat16 against full precision."""
    return _precision(side, torch.bfloat16)


def float16(side: Side) -> TwinResult:
    """Autocast to float16, its loss scaled where the step is ours, against full precision."""
    return _precision(side, torch.float16)


def _precision(side: Side, dtype: torch.dtype) -> TwinResult:
    kind, task = str(dtype).removeprefix("torch."), side.context.task
    if any(p.dtype in BANDS for p in task.model.parameters()):
        raise Unanswerable("the model's own parameters are in half precision")
    if task.precision.enabled and side.context.step is not None:
        raise Unanswerable("autocast is around a step of its own")
    without = task.precision.enabled
    exchange = autocast(Precision() if without else Precision(True, dtype), side.context)
    how = f"full precision in place of {task.precision.dtype}" if without else f"autocast to {kind}"
    result = side.against(kind, exchange, how.replace("torch.", ""), BANDS[dtype])
    if result.outcome == "disagreed":
        return result
    if lost := _underflown(side):
        told = replace(result, outcome="disagreed", step=1, what=f"the gradient of {lost[0]}", size=1.0)
        return replace(told, gradients=lost[0].rpartition(".")[0] or lost[0], exchanged=f"{how}: it is all zeros")
    return result


def autocast(precision: Precision, context: RunContext) -> Exchange:
    """Another precision of the forward pass; around each step of one's own: autocast keeps what it has cast."""
    if context.step is None:
        return Exchange(task=lambda context: replace(context.task, precision=precision), redraws=True)

    def update(context: RunContext, watch: GradientWatch) -> Update:
        return _Cast(context.update(context.task, watch), lambda: precision.autocast(context.task.device))

    return Exchange(update=update, redraws=True)


class _Cast(Around):
    """An update whose every step is made in a precision."""

    def __init__(self, inner: Update, cast: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        super().__init__(inner)
        self.cast = cast

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        with self.cast():
            return self.inner(step, look=look, observe=observe)


def _underflown(side: Side) -> list[str]:
    """Parameters whose first gradient has become nothing but zeros, or has not come."""
    twin = side.last
    assert twin is not None
    lost = []
    for gradients, other in zip(side.reference.gradients[:1], twin.gradients[:1], strict=True):
        norms = {name: float(gradient.double().norm()) for name, gradient in gradients.items()}
        least = WEAK * max(norms.values(), default=0.0)
        lost += [n for n, norm in norms.items() if norm > least and not (n in other and bool(other[n].any()))]
    return lost


def fused(side: Side) -> Parts:
    """The optimizer's other forms: fused, foreach, or one tensor after the other."""
    optimizers = side.context.optimizers
    for form in ("foreach", "fused"):
        if any(form in group for optimizer in optimizers for group in optimizer.param_groups):
            yield partial(_form, side, form)
            continue
        yield lambda: TwinResult("fused", "not asked", why=f"{_kinds(optimizers)} has no such form")
        return


def _form(side: Side, form: str) -> TwinResult:
    on = not any(group.get(form) for optimizer in side.context.optimizers for group in optimizer.param_groups)

    @contextlib.contextmanager
    def applied(context: RunContext) -> Iterator[None]:
        for optimizer in context.optimizers:  # their groups come back with the start
            for group in optimizer.param_groups:
                group.update({name: name == form and on for name in ("foreach", "fused") if name in group})
        yield

    how = f"{_kinds(side.context.optimizers)} with {form}={on}"
    return side.against(f"fused ({form})", Exchange(applied=applied), how)


def _kinds(optimizers: Sequence[Optimizer]) -> str:
    return ", ".join(dict.fromkeys(type(each).__name__ for each in optimizers)) or "a run without an optimizer"


def attention(side: Side) -> Parts:
    """The kernels of scaled_dot_product_attention, and the model's own switch between forms of its attention."""
    model, asked = side.context.task.model, False
    flagged = [(name, m) for name, m in model.named_modules() if isinstance(vars(m).get("fused_attn"), bool)]
    if flagged:
        asked = True
        yield lambda: side.against(
            "attention (fused_attn)",
            Exchange(applied=_flipped([m for _, m in flagged], "fused_attn"), redraws=True),
            f"fused_attn of {flagged[0][0]} and {len(flagged) - 1} more the other way round",
        )
    switched: list[Any] = [m for m in model.modules() if hasattr(m, "set_attn_implementation")]
    now = getattr(getattr(switched[0], "config", None), "_attn_implementation", None) if switched else None
    if now in ("sdpa", "eager"):
        asked, other = True, "eager" if now == "sdpa" else "sdpa"

        @contextlib.contextmanager
        def implemented(context: RunContext) -> Iterator[None]:
            with contextlib.ExitStack() as stack, users_code():
                stack.callback(switched[0].set_attn_implementation, now)
                switched[0].set_attn_implementation(other)
                yield

        how = f"attn_implementation {other} in place of {now}"
        yield lambda: side.against(f"attention ({other})", Exchange(applied=implemented, redraws=True), how)
    calls = _sdpa_calls(side)
    if calls:
        kernels = Exchange(applied=lambda context: sdpa_kernel([SDPBackend.MATH]), redraws=True)
        how = f"the math kernel in {calls} calls of scaled_dot_product_attention"
        yield lambda: side.against("attention (math)", kernels, how)
    elif not asked:
        raise Unanswerable("no switch of the model, and no call of scaled_dot_product_attention")


def _flipped(modules: Sequence[nn.Module], name: str) -> Callable[[RunContext], Any]:
    @contextlib.contextmanager
    def applied(context: RunContext) -> Iterator[None]:
        before = [getattr(module, name) for module in modules]
        for module, value in zip(modules, before, strict=True):
            setattr(module, name, not value)
        try:
            yield
        finally:
            for module, value in zip(modules, before, strict=True):
                setattr(module, name, value)

    return applied


def _sdpa_calls(side: Side) -> int:
    """How often one forward pass calls scaled_dot_product_attention."""

    class Counting(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += func is torch.nn.functional.scaled_dot_product_attention
            return func(*args, **(kwargs or {}))

    context, counting = side.context, Counting()
    with context.at_start(), counting, users_code():
        if context.step is not None:
            differentiated(context.step, context.task.batch)
        else:
            context.task.forward(context.task.batch)
    return counting.calls


def compile(side: Side) -> TwinResult:
    """``torch.compile`` against eager; a run that is compiled already, eager against that."""
    if is_compiled(side.context):
        exchange, how = Exchange(applied=eager, redraws=True), "eager in place of compiled"
        return side.against("compile", exchange, how)
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if side.context.task.device.type == "cpu":
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise Unanswerable("there is no C++ compiler here") from None

    called_itself(side.context)

    @contextlib.contextmanager
    def applied(context: RunContext) -> Iterator[None]:
        torch._dynamo.reset()
        roots = [root for _, root in listened_to(context.task.given)]
        before = [root._compiled_call_impl for root in roots]
        try:
            with config.patch(fallback_random=True), users_code():
                for root in roots:
                    root.compile()
                yield
        finally:
            for root, call in zip(roots, before, strict=True):
                root._compiled_call_impl = call
            torch._dynamo.reset()

    return side.against("compile", Exchange(applied=applied), "torch.compile in place of eager")


def is_compiled(context: RunContext) -> bool:
    """Whether the model or its step is compiled by the user."""
    marked = [module for _, root in listened_to(context.task.given) for module in root.modules()]
    if any(isinstance(m, torch._dynamo.OptimizedModule) or m._compiled_call_impl is not None for m in marked):
        return True
    held = [thing for _, thing in named(*context.callables)]
    return any("_torchdynamo_orig_callable" in attributes(thing) for thing in held)


@contextlib.contextmanager
def eager(context: RunContext) -> Iterator[None]:
    """Whatever is compiled runs as it was written."""
    with torch.compiler.set_stance("force_eager"):
        yield
