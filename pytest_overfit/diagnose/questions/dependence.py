"""What the outputs of a model depend on: each argument, each view, the other samples, the future, each column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Leak, Probed
from pytest_overfit.diagnose.questions.mixing import measure_mixing
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.tensors import is_real, tensors_in
from pytest_overfit.diagnose.questions.token_order import copied, measure_order
from pytest_overfit.errors.asking import Questions, Refused, Unanswerable, users_code
from pytest_overfit.run.influence import perturbed


@dataclass(frozen=True)
class Dependence:
    """See ``Probed``."""

    ignored: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    mixed: float | None = None
    mixed_certain: bool = False
    mixed_where: str = ""
    causal: str = ""
    leaks: tuple[Leak, ...] = ()


def depend(
    call: ModelCall, *, samples: int | None, targets: list[Tensor], pairwise: bool, questions: Questions
) -> Dependence:
    """Asks one model, in whatever mode it is. One question after the other: what one breaks off the others answer.

    Args:
        samples: the length of the axis of samples.
        targets: what the loss compared with, as it was compared.
        pairwise: something of the shape (samples, samples) is computed on the way: samples are compared on purpose.
    """
    of = f" of {call.name}" if call.name else ""
    base = call.again()
    if not any(tensor.numel() for tensor in base):
        return Dependence()  # a loss of its own, whole numbers, or no element at all: nothing to be moved
    if not all(bool(torch.isfinite(t).all()) for t in base):
        raise Unanswerable("in evaluation mode they are not finite")
    if not _same(base, call.again()):
        raise Unanswerable("in evaluation mode they are random")
    arguments = list(call.arguments())
    ignored: list[str] = []
    slices: list[str] = []
    for name, tensor in arguments:
        with questions.asking(f"whether the outputs{of} read {name}"):
            if tensor.numel() and _is_ignored(call, tensor, base):
                ignored.append(name)
                continue
            slices += _slices(call, name, tensor, base)
            slices += _columns(call, name, tensor, base)
    mixed, certain, where = questions.ask(
        f"whether samples move the outputs{of} of others",
        lambda: measure_mixing(call, arguments, base, samples, targets, pairwise),
        otherwise=(None, False, ""),
    )
    causal: str = ""
    leaks: tuple[Leak, ...] = ()
    for name, tensor in arguments:
        with questions.asking(f"whether the outputs{of} read the future of {name}"):
            causal, leaks = measure_order(call, name, tensor, base, targets)
        if causal or leaks:
            break
    twins = questions.ask(
        f"whether an input{of} is its target", lambda: tuple(copied(arguments, targets, base)), otherwise=()
    )
    return Dependence(tuple(ignored), tuple(slices), mixed, certain, where, causal, (*leaks, *twins))


def _is_ignored(call: ModelCall, tensor: Tensor, base: list[Tensor]) -> bool:
    """Whether neither another value nor, of numbers that are all alike, a rising one moves the outputs.

    A softmax or a norm gives the same for numbers that are all raised by one.
    """
    changed = perturbed(tensor)
    if changed is None or not _unmoved(call, tensor, changed, base):
        return False
    if not is_real(tensor) or tensor.numel() < 2 or bool((tensor != tensor.reshape(-1)[0]).any()):
        return True
    rising = torch.linspace(-1.0, 1.0, tensor.numel(), device=tensor.device).reshape(tensor.shape).to(tensor.dtype)
    return _unmoved(call, tensor, tensor.detach() + rising, base)


def _unmoved(call: ModelCall, tensor: Tensor, changed: Tensor, base: list[Tensor]) -> bool:
    """Whether the outputs stay bit for bit what they are; what refuses another value has read it."""
    try:
        return _same(base, call.again(lambda t: changed if t is tensor else t))
    except Refused:
        return False


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _slices(call: ModelCall, name: str, tensor: Tensor, base: list[Tensor]) -> Iterator[str]:
    """Views of a (B, S, C, H, W) argument that change nothing."""
    if tensor.dim() != 5 or not tensor.is_floating_point() or not 2 <= tensor.shape[1] <= 4:
        return
    for view in range(tensor.shape[1]):
        changed = tensor.detach().clone()
        changed[:, view] = changed[:, view].flip(-1) * 0.7
        if _unmoved(call, tensor, changed, base):
            yield f"{name}[:, {view}]"


def _columns(call: ModelCall, name: str, tensor: Tensor, base: list[Tensor]) -> Iterator[str]:
    """A quarter or more of the columns of a (B, D) argument that change nothing."""
    if tensor.dim() != 2 or not tensor.is_floating_point() or tensor.shape[1] < 2 or tensor.shape[0] < 2:
        return
    leaf = tensor.detach().clone().requires_grad_()
    with torch.enable_grad():
        output = call.output(lambda t: leaf if t is tensor else t)
        total = sum(
            (t.double() * torch.linspace(0.5, 1.5, t.numel(), dtype=torch.float64, device=t.device).view(t.shape)).sum()
            for t in tensors_in(output)
            if is_real(t) and t.requires_grad
        )
    if not isinstance(total, Tensor):
        return
    with users_code():
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
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


def with_answers(found: Probed, answers: list[Dependence], calls: list[ModelCall]) -> Probed:
    """What is known, with what all models answered."""
    several = len(calls) > 1
    ignored: list[str] = []
    for call, answer in zip(calls, answers, strict=False):
        prefix = f"{call.name}: " if several and call.name else ""
        ignored += [prefix + name for name in answer.ignored]
    slices = [name for answer in answers for name in answer.slices]
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
