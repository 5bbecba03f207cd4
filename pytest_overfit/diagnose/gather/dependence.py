"""What the outputs of a model depend on: each argument, each view, the other samples, the future, each column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Probed
from pytest_overfit.diagnose.gather.mixing import look_at_mixing
from pytest_overfit.diagnose.gather.order import copied, look_at_order
from pytest_overfit.diagnose.gather.roots import RootCall, exchanged_in
from pytest_overfit.diagnose.gather.tensors import is_real, tensors_in
from pytest_overfit.run.influence import perturbed


@dataclass(frozen=True)
class Dependence:
    """See ``Probed``."""

    ignored: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    mixed: float | None = None
    mixed_certain: bool = False
    mixed_where: str = ""
    causal: str = ""
    leaks: tuple[tuple[str, str], ...] = ()


def ask(call: RootCall, *, samples: int | None, targets: list[Tensor], pairwise: bool) -> Dependence:
    """Asks one model, in whatever mode it is.

    Args:
        samples: the length of the axis of samples.
        targets: what the loss compared with, as it was compared.
        pairwise: something of the shape (samples, samples) is computed on the way: samples are compared on purpose.
    """
    base = call.again()
    if not base or not all(bool(torch.isfinite(t).all()) for t in base) or not _same(base, call.again()):
        return Dependence()
    arguments = list(call.arguments())
    ignored = tuple(name for name, tensor in arguments if tensor.numel() and _is_ignored(call, tensor, base))
    slices = tuple(
        found for name, tensor in arguments if name not in ignored for found in _slices(call, name, tensor, base)
    )
    columns = tuple(
        found for name, tensor in arguments if name not in ignored for found in _columns(call, name, tensor, base)
    )
    mixed, certain, where = look_at_mixing(call, arguments, base, samples, targets, pairwise)
    causal: str = ""
    leaks: tuple[tuple[str, str], ...] = ()
    for name, tensor in arguments:
        causal, leaks = look_at_order(call, name, tensor, base, targets)
        if causal or leaks:
            break
    return Dependence(
        ignored, slices, columns, mixed, certain, where, causal, (*leaks, *copied(arguments, targets, base))
    )


def _is_ignored(call: RootCall, tensor: Tensor, base: list[Tensor]) -> bool:
    changed = perturbed(tensor)
    return changed is not None and _unmoved(call, tensor, changed, base)


def _unmoved(call: RootCall, tensor: Tensor, changed: Tensor, base: list[Tensor]) -> bool:
    """Whether the outputs stay bit for bit what they are; what refuses another value has read it."""
    try:
        return _same(base, call.again(lambda t: changed if t is tensor else t))
    except Exception:
        return False


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _slices(call: RootCall, name: str, tensor: Tensor, base: list[Tensor]) -> Iterator[str]:
    """Views of a (B, S, C, H, W) argument that change nothing."""
    if tensor.dim() != 5 or not tensor.is_floating_point() or not 2 <= tensor.shape[1] <= 4:
        return
    for view in range(tensor.shape[1]):
        changed = tensor.detach().clone()
        changed[:, view] = changed[:, view].flip(-1) * 0.7
        if _unmoved(call, tensor, changed, base):
            yield f"{name}[:, {view}]"


def _columns(call: RootCall, name: str, tensor: Tensor, base: list[Tensor]) -> Iterator[str]:
    """A quarter or more of the columns of a (B, D) argument that change nothing."""
    if tensor.dim() != 2 or not tensor.is_floating_point() or tensor.shape[1] < 2 or tensor.shape[0] < 2:
        return
    leaf = tensor.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            output = call.module(*_with(call.args, tensor, leaf), **_with(call.kwargs, tensor, leaf))
            total = sum(
                (t.double() * torch.linspace(0.5, 1.5, t.numel(), dtype=torch.float64).view(t.shape)).sum()
                for t in tensors_in(output)
                if is_real(t) and t.requires_grad
            )
            (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True) if isinstance(total, Tensor) else (None,)
    except Exception:
        return
    if gradient is None:
        return
    dead = (gradient == 0).all(0) & (tensor.std(0) > 0)
    if 4 * int(dead.sum()) < tensor.shape[1] or bool(dead.all()):
        return
    changed = tensor.detach().clone()
    changed[:, dead] = changed[:, dead].roll(1, 0) * 0.7 + 0.1
    if _unmoved(call, tensor, changed, base):
        which = ", ".join(map(str, dead.nonzero().flatten().tolist()[:4]))
        yield f"{name}[:, ({which}{', ...' if int(dead.sum()) > 4 else ''})]"


def _with(nest: Any, old: Tensor, new: Tensor) -> Any:
    return exchanged_in(lambda t: new if t is old else t, nest)


def with_answers(found: Probed, answers: list[Dependence], calls: list[RootCall]) -> Probed:
    """What is known, with what all models answered."""
    several = len(calls) > 1
    ignored: list[str] = []
    for call, answer in zip(calls, answers, strict=False):
        prefix = f"{call.name}: " if several and call.name else ""
        ignored += [prefix + name for name in answer.ignored]
    slices = [name for answer in answers for name in (*answer.slices, *answer.columns)]
    mixed = max(
        (a for a in answers if a.mixed is not None), key=lambda a: (a.mixed_certain, a.mixed or 0.0), default=None
    )
    return replace(
        found,
        ignored=tuple(ignored),
        ignored_slices=tuple(slices),
        mixed=mixed.mixed if mixed else None,
        mixing_is_certain=bool(mixed and mixed.mixed_certain),
        mixed_where=mixed.mixed_where if mixed else "",
        causal=next((a.causal for a in answers if a.causal), ""),
        leaks=tuple(leak for a in answers for leak in a.leaks),
    )


@contextlib.contextmanager
def evaluating_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; every module gets its own mode back."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode
