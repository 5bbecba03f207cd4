"""What torch was given where it raises: the shapes of the call that it refuses, whose line it is, how it may read."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import torch

from pytest_overfit.diagnose.exchanged_lines import output_first_at
from pytest_overfit.diagnose.layer_sizes import Size, built_for, wanted_size
from pytest_overfit.diagnose.questions.loss_arguments import ARGUMENTS, exchanged_with_target
from pytest_overfit.diagnose.source_lines import (
    Edit,
    Source,
    called,
    line_to_change,
    renamed,
    respelt,
    swapped,
)
from pytest_overfit.run.stack_lines import is_library

if TYPE_CHECKING:
    import ast

REFUSALS = (RuntimeError, IndexError, ValueError, TypeError)  # what torch raises for tensors that do not fit
MOST = 4  # tensors of a call
CLASSIFIERS = {"cross_entropy": "CrossEntropyLoss", "nll_loss": "NLLLoss"}
REGRESSORS = {"mse_loss": "MSELoss", "l1_loss": "L1Loss", "smooth_l1_loss": "SmoothL1Loss", "huber_loss": "HuberLoss"}


@dataclass(frozen=True)
class RefusedCall:
    """A call of torch with the tensors that it got, and the user's line behind it."""

    what: str
    where: str
    change: str


def refused_call(error: BaseException) -> RefusedCall | None:
    """What the innermost call of torch with tensors was given; None where torch refused none.

    Example:
        >>> refused_call(error).what                                                   # doctest: +SKIP
        'mse_loss of input (6, 3), target (6,) int64'
    """
    frames = list(_frames(error.__traceback__))
    users = [place for place, (frame, _) in enumerate(frames) if not is_library(frame.f_code.co_filename)]
    behind = frames[users[-1] + 1 if users else 0 :]
    called = [found for each, _ in behind if (found := _call(each)) is not None]
    caller = frames[users[-1]] if users else calling()
    if not isinstance(error, REFUSALS) or not called or caller is None:
        return None
    frame, number = caller
    built = [each for each in called if _wanted(each) is not None]
    refused = next((each for each in built if each[1] is built[-1][1]), called[-1])
    name, module, tensors = refused
    at, source, size = f"{Path(frame.f_code.co_filename).name}:{number}", _source(frame), _wanted(refused)
    shown = ", ".join(f"{each} {_shape(tensor)}" for each, tensor in list(tensors.items())[:MOST])
    what, edit, change = f"{name} of {shown}", _edit(name, module, list(tensors.values())), ""
    if _exchanged(behind):
        what, edit = f"{what}, which are exchanged", output_first_at(at) if len(tensors) == 2 else None
    if size is not None:
        what = f"{type(module).__name__} with {size.name}={size.built} gets {size.given}, of {shown}"
        edit = None if size.last else built_for(module, size)
    if edit is not None:  # at that line, or at another one of a call over several lines, or where the layer is built
        change = line_to_change([source], edit, at=at) or line_to_change([source], edit)
    if size is not None and not change:
        place = _place(module, frames)
        first = f"give {place} its channels first: movedim(-1, 1)"
        change = first if size.last else f"build {place} with {size.name}={size.given}"
    return RefusedCall(what, f"{source.path}:{number}", change)


def calling() -> tuple[FrameType, int] | None:
    """The user's function that calls us now, and the line it is at."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return None if frame is None else (frame, frame.f_lineno)


def line_of_call(
    name: str, model: object, data: object, loss: object, renames: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, str]:
    """Where the user calls ``name`` now, and that line with all in its place and rightly spelt; empty where it is so.

    Without a name the renamed line is looked for in the whole file: a marker stands above the test.

    Example:
        >>> line_of_call("overfit", batch, net, None)                                        # doctest: +SKIP
        ('test_it.py:15', 'test_it.py:15: overfit(net, batch, nn.CrossEntropyLoss())')
    """
    caller = calling()
    if caller is None:
        return "", ""
    source, place = _source(caller[0]), f"{Path(caller[0].f_code.co_filename).name}:{caller[1]}"
    called_loss = loss is None or callable(loss)
    pairs = isinstance(data, torch.nn.Module) and not callable(model), callable(data) and not called_loss
    edits = [swapped(name, at) for at, wrong in enumerate(pairs) if wrong] or [respelt(renames)]
    return f"{source.path}:{caller[1]}", line_to_change([source], edits[0], at=place if name else "")


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _call(frame: FrameType) -> tuple[str, Any, Mapping[str, torch.Tensor]] | None:
    """The function of torch that a frame is of, or its module, and the tensors among its arguments."""
    name, code = frame.f_globals.get("__name__", ""), frame.f_code
    if not name.startswith(("torch.nn.functional", "torch.nn.modules.")) or name == "torch.nn.modules.module":
        return None
    arguments = inspect.getargs(code).args
    tensors = {each: frame.f_locals[each] for each in arguments if isinstance(frame.f_locals.get(each), torch.Tensor)}
    module = frame.f_locals.get("self") if arguments[:1] == ["self"] else None
    named = code.co_name if module is None else str(module).partition("\n")[0]
    return (named, module, tensors) if tensors else None


def _exchanged(behind: list[tuple[FrameType, int]]) -> bool:
    """Whether the outermost loss among these frames got its target in another place."""
    calls = filter(None, (_call(frame) for frame, _ in behind))
    loss = next(((name, tensors) for name, _, tensors in calls if name in ARGUMENTS), None)
    return loss is not None and bool(exchanged_with_target(loss[0], (), loss[1]))


def _wanted(call: tuple[str, Any, Mapping[str, torch.Tensor]]) -> Size | None:
    _, module, tensors = call
    return wanted_size(module, next(iter(tensors.values()))) if isinstance(module, torch.nn.Module) else None


def _place(module: torch.nn.Module, frames: list[tuple[FrameType, int]]) -> str:
    """The name of a module in the outermost one that runs around it, else its kind."""
    owners = (frame.f_locals.get("self") for frame, _ in frames)
    outer = (owner for owner in owners if isinstance(owner, torch.nn.Module) and owner is not module)
    named = (name for owner in outer for name, each in owner.named_modules() if each is module)
    return next(named, type(module).__name__)


def _shape(tensor: torch.Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{tuple(tensor.shape)}{'' if kind == 'float32' else f' {kind}'}"


def _source(frame: FrameType) -> Source:
    from pytest_overfit.diagnose.call_site import sources_of

    found = sources_of([frame.f_code], ())
    return found[0] if found else Source(frame.f_code.co_filename, "")


def _edit(name: str, module: Any, tensors: list[torch.Tensor]) -> Edit | None:
    """What the line should read, where the shapes say it."""
    if len(tensors) < 2:
        return None
    first, second = tensors[:2]
    if name in CLASSIFIERS and second.is_floating_point() and not first.is_floating_point():
        return swapped(name)
    last = first.dim() > 2 and first.shape[:-1] == second.shape
    if name in CLASSIFIERS and last:
        return _classes_second(name, CLASSIFIERS[name], name, CLASSIFIERS[name])
    ids = first.is_floating_point() and not second.is_floating_point()
    if name in REGRESSORS and ids and last:
        return _classes_second(name, REGRESSORS[name], "cross_entropy", "CrossEntropyLoss")
    if name in REGRESSORS and ids and second.shape == first.shape[:1] + first.shape[2:]:
        function, criterion = renamed(name, "cross_entropy"), renamed(REGRESSORS[name], "CrossEntropyLoss")
        return lambda node, source: function(node, source) or criterion(node, source)
    return None


def _classes_second(name: str, criterion: str, function: str, builds: str) -> Edit:
    """A call, or the criterion that makes it, as a classifier's, with the classes on the axis that torch wants."""
    import ast

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if called(node) == name and isinstance(node, ast.Call) and node.args:
            before = source.segment(node.func).removesuffix(name)
            moved = [f"{source.operand(node.args[0])}.movedim(-1, 1)"]
            rest = [source.segment(each) for each in (*node.args[1:], *node.keywords)]
            return node, f"{before}{function}({', '.join(moved + rest)})"
        if called(node) != criterion or not isinstance(node, ast.Call):
            return None
        made = source.segment(node).replace(criterion, builds, 1)
        return node, f"lambda output, target: {made}(output.movedim(-1, 1), target)"

    return edit
