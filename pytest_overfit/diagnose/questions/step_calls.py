"""Which calls move a train step on: seen by their code, however the user's file imported them."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pytest_overfit.diagnose.step_trace import CallKind

Told = Callable[[CallKind, FrameType], None]
OURS = ("pytest_overfit.run.", "pytest_overfit.diagnose.", "pytest_overfit.two_view.data.")
TOOL = 3  # of ``sys.monitoring``: none that Python reserves for debuggers, coverage and profilers
HEARING = "pytest_overfit.diagnose.questions.torch_functions"  # through which whatever the user calls goes
# What calls back, so that the user's line is further up.
BETWEEN = ("torch.", "contextlib", "functools", "pytest_overfit.integrations", "pytorch_lightning.",
           "lightning.pytorch.", "transformers.trainer", "accelerate.")  # fmt: skip
CALLERS = (
    "pytest_overfit.run.as_loss",
    "pytest_overfit.run.call_task",
    "pytest_overfit.run.task",
)  # of the user's model and loss, on behalf of the loop
UPDATES = ("torch.optim", "torch.nn.utils.clip_grad", "torch.nn.init", "torch.amp", *OURS)
INITIALISERS = ("uniform_", "normal_", "constant_", "zeros_", "ones_", "xavier_uniform_", "xavier_normal_",
                "kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "orthogonal_")  # fmt: skip


def _code(function: Any) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


def _watched() -> dict[int, tuple[CallKind, CodeType]]:
    """The calls by the identity of their code; the code is kept, so that the identity stays its own."""
    named: list[tuple[CallKind, Any]] = [
        ("backward", torch.autograd.backward),
        ("grad", torch.autograd.grad),
        ("scale", torch.amp.GradScaler.scale),
        ("zero_grad", Optimizer.zero_grad),
        ("zero_grad", nn.Module.zero_grad),
        ("clip", nn.utils.clip_grad_norm_),
        ("clip", nn.utils.clip_grad_value_),
        ("clip", getattr(nn.utils.clip_grad, "_clip_grads_with_norm_", None)),
        ("new_optimizer", Optimizer.__init__),
        ("load_optimizer", Optimizer.load_state_dict),
        ("load", nn.Module.load_state_dict),
        ("new_module", nn.Module.__init__),
        ("new_parameter", nn.Module.register_parameter),
        ("scheduler", LRScheduler.step),
        *(("init", getattr(nn.init, name)) for name in INITIALISERS),
    ]
    coded = [(kind, code) for kind, function in named if (code := _code(function)) is not None]
    return {id(code): (kind, code) for kind, code in coded}


_CODES = _watched()


def _is_within(frame: FrameType, kind: CallKind) -> bool:
    """Whether a call of a kind was made by another one of it, which a decorator may stand between."""
    for _ in range(2):
        if (back := frame.f_back) is None:
            return False
        if (found := _CODES.get(id(back.f_code))) is not None and found[0] == kind:
            return True
        frame = back
    return False


@contextlib.contextmanager
def calls_told(told: Told) -> Iterator[bool]:
    """Tells of every watched call of this thread within the block; False where somebody else listens already."""

    def called(frame: FrameType) -> None:
        kind = _CODES[id(frame.f_code)][0]
        if kind != "clip" or not _is_within(frame, "clip"):
            told(kind, frame)

    with _monitored(called) if sys.version_info >= (3, 12) else _profiled(called) as heard:
        yield heard


@contextlib.contextmanager
def _profiled(called: Callable[[FrameType], None]) -> Iterator[bool]:
    """By a profile, which costs a call for every call that is made, and another for its return."""
    if sys.getprofile() is not None:
        yield False
        return

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and id(frame.f_code) in _CODES:
            called(frame)

    sys.setprofile(profile)
    try:
        yield True
    finally:
        sys.setprofile(None)


@contextlib.contextmanager
def _monitored(called: Callable[[FrameType], None]) -> Iterator[bool]:
    """By the interpreter, which tells of single functions: the others cost nothing."""
    monitoring, thread = sys.monitoring, threading.get_ident()  # type: ignore[attr-defined, unused-ignore]
    tool, event = TOOL, monitoring.events.PY_START
    if monitoring.get_tool(tool) is not None:
        yield False
        return

    def started(code: CodeType, offset: int) -> None:
        if threading.get_ident() == thread:
            called(sys._getframe(1))

    monitoring.use_tool_id(tool, __name__)
    try:
        monitoring.register_callback(tool, event, started)
        for _, code in _CODES.values():
            monitoring.set_local_events(tool, code, event)
        yield True
    finally:
        for _, code in _CODES.values():
            monitoring.set_local_events(tool, code, monitoring.events.NO_EVENTS)
        monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


def users_line(frame: FrameType | None) -> str:
    """``file.py:12`` of the nearest frame that is neither a library's nor ours; empty where there is none."""
    while frame is not None:
        name, path = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name.startswith(OURS) and name != HEARING:
            return ""
        if not name.startswith((*BETWEEN, *OURS)) and name != "torch" and "/torch/" not in path:
            return f"{path.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def by_optimizer_or_us(frame: FrameType | None, deepest: int = 12) -> bool:
    """Whether what runs now is the update itself, or our own arithmetic, and not the user's model or loss."""
    for _ in range(deepest):
        if frame is None:
            return False
        name = frame.f_globals.get("__name__", "")
        if name in CALLERS:
            return False
        if name.startswith(UPDATES):
            return True
        if name != "torch" and not name.startswith("torch."):
            return False
        frame = frame.f_back
    return False
