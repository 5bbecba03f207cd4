"""What the outputs of a model depend on: each argument, each view, the other samples, the future, each column."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Leak, Probed
from pytest_overfit.diagnose.questions.held_outputs import Forward
from pytest_overfit.diagnose.questions.mixing import measure_mixing
from pytest_overfit.diagnose.questions.model_calls import InnerCall, ModelCall, before_its_loss
from pytest_overfit.diagnose.questions.own_labels import next_tokens, places_without_effect, shifted_otherwise
from pytest_overfit.diagnose.questions.tensors import is_real, shows_all
from pytest_overfit.diagnose.questions.token_order import copied, measure_order
from pytest_overfit.errors.asking import Questions, Refused, Unanswerable
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.influence import perturbed
from pytest_overfit.run.task import Heard, Terms

Asked = Callable[[Callable[[Tensor], Tensor]], list[Tensor]]  # of a call whose tensors are exchanged: its outputs


@dataclass(frozen=True)
class Dependence:
    """See ``Probed``; ``random``: outputs in evaluation mode are; ``carried``: under one seed too."""

    ignored: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    mixed: float | None = None
    mixed_certain: bool = False
    mixed_where: str = ""
    mixed_by: str = ""
    causal: str = ""
    leaks: tuple[Leak, ...] = ()
    unplaced: str = ""
    random: bool = False
    carried: bool = False


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
    answer, base = call.answered()
    if not any(tensor.numel() for tensor in base):
        return Dependence()  # a loss of its own, whole numbers, or no element at all: nothing to be moved
    if not all(bool(torch.isfinite(t).all()) for t in base):
        raise Unanswerable("in evaluation mode they are not finite")
    if not _same(base, call.again()):
        questions.leave_out(f"what the outputs{of} depend on", "in evaluation mode the next call gives other ones")
        return Dependence(random=True, carried=True)
    arguments = list(call.arguments())
    ignored, slices = list[str](), list[str]()
    every = call.all_of(answer)
    shown = questions.ask(f"what the outputs{of} show", lambda: shows_all(answer), otherwise=False)
    if not shown:
        questions.leave_out(f"whether the outputs{of} read their inputs", "they are computed when they are asked for")
    for name, tensor in arguments if shown else ():
        with questions.asking(f"whether the outputs{of} read {name}"):
            if tensor.numel() and _is_ignored(call, tensor, every, call.everything):
                ignored.append(name)
                continue
            slices += _unread_parts(call, name, tensor, base)
    if not _same(base, call.again(seed=1)):  # or what was exchanged before has left something of it
        question = f"what places, samples, padding and documents move the outputs{of}"
        questions.leave_out(question, "in evaluation mode they are random")
        return Dependence(tuple(ignored), tuple(slices), random=True, carried=not _same(base, call.again()))
    known = {name for name, _ in arguments}
    within = [(name, t) for name, t in call.arguments(mapped=True) if name not in known and t.numel()]
    given = [*arguments, *((name, t) for name, t in within if not _is_ignored(call, t, base))]
    inner = call if samples is None or any(t.dim() for t in base) else before_its_loss(call, samples) or call
    made = base if inner is call else inner.again()
    if isinstance(inner, InnerCall) and inner is not call:
        given = [(name, t) for name, t in given if not _is_ignored(inner, t, made)]  # else they are the loss's
        targets = targets or next_tokens(inner, given)
    mixed, certain, where, by = questions.ask(
        f"whether samples move the outputs{of} of others",
        lambda: measure_mixing(inner, given, made, samples, targets, pairwise),
        otherwise=(None, False, "", ""),
    )
    causal, leaks = _order(inner, given, made, targets, of, questions)
    if inner is not call and not leaks and len(base) == 1:
        own = questions.ask(
            f"where the labels{of} are predicted", lambda: shifted_otherwise(call, base[0]), otherwise=None
        )
        leaks = () if own is None else (own,)
    question = f"whether the outputs{of} know the places of their inputs"
    unplaced = questions.ask(question, lambda: places_without_effect(inner, given, made), otherwise="")
    twins = questions.ask(
        f"whether an input{of} is its target", lambda: tuple(copied(call, arguments, targets, base)), otherwise=()
    )
    return Dependence(tuple(ignored), tuple(slices), mixed, certain, where, by, causal, (*leaks, *twins), unplaced)


def _order(
    call: ModelCall,
    given: list[tuple[str, Tensor]],
    base: list[Tensor],
    targets: list[Tensor],
    of: str,
    questions: Questions,
) -> tuple[str, tuple[Leak, ...]]:
    """The first of what a model is given along which its outputs read earlier places alone, or what leaks there."""
    for name, tensor in given:
        with questions.asking(f"whether the outputs{of} read the future of {name}"):
            causal, leaks = measure_order(call, name, tensor, base, targets)
            if causal or leaks:
                return causal, leaks
    return "", ()


def read_by(call: ModelCall, *, several: bool) -> Iterator[str]:
    """The arguments that the outputs of a model follow in either mode, named as ``with_answers`` names them.

    A decoder may read in training what it writes itself in evaluation.
    """
    for mode in (evaluating_mode, contextlib.nullcontext):
        with mode(call.module):
            every = call.everything()
            for name, tensor in call.arguments():
                if tensor.numel() and not _is_ignored(call, tensor, every, call.everything):
                    yield f"{_prefix(call, several)}{name}"


def _prefix(call: ModelCall, several: bool) -> str:
    return f"{call.name}: " if several and call.name else ""


def _is_ignored(call: ModelCall, tensor: Tensor, base: list[Tensor], asked: Asked | None = None) -> bool:
    """Whether neither another value nor, of numbers that are all alike, a rising one moves the outputs.

    A softmax or a norm gives the same for numbers that are all raised by one.

    Args:
        asked: what gives the outputs that are looked at; None: those that are no whole numbers.
    """
    changed, asked = perturbed(tensor), asked or call.again
    if changed is None or not _unmoved(asked, tensor, changed, base):
        return False
    if not is_real(tensor) or tensor.numel() < 2 or bool((tensor != tensor.reshape(-1)[0]).any()):
        return True
    rising = torch.linspace(-1.0, 1.0, tensor.numel(), device=tensor.device).reshape(tensor.shape).to(tensor.dtype)
    return _unmoved(asked, tensor, tensor.detach() + rising, base)


def _unmoved(asked: Asked, tensor: Tensor, changed: Tensor, base: list[Tensor]) -> bool:
    """Whether the outputs stay bit for bit what they are; what refuses another value has read it."""
    try:
        return _same(base, asked(lambda t: changed if t is tensor else t))
    except Refused:
        return False


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _unread_parts(call: ModelCall, name: str, tensor: Tensor, base: list[Tensor]) -> Iterator[str]:
    """A quarter or more of the columns of (B, D) and (B, T, D), the channels or views of larger ones, that change
    nothing: without a slope, and once they are those of another sample.
    """
    if tensor.dim() < 2 or not tensor.is_floating_point() or (tensor.shape[0] < 2 and tensor.dim() < 4):
        return
    axis = tensor.dim() - 1 if tensor.dim() < 4 else 1
    gradient = call.slopes(tensor)
    if gradient is None:
        return
    slopes, values = (t.movedim(axis, 0).flatten(1) for t in (gradient, tensor.detach()))
    dead = (slopes == 0).all(1) & (values.std(1) > 0)
    if 4 * int(dead.sum()) < len(dead) or bool(dead.all()):
        return
    changed = tensor.detach().clone()
    parts = changed.movedim(axis, 0)
    parts[dead] = parts[dead].roll(1, 1) * 0.7 + 0.1
    if _unmoved(call.again, tensor, changed, base):
        which = ", ".join(map(str, dead.nonzero().flatten().tolist()[:4]))
        places = ":, " * axis + f"({which}{', ...' if int(dead.sum()) > 4 else ''})"
        yield f"{name}[{places}]"


def with_answers(found: Probed, answers: list[Dependence], calls: list[ModelCall]) -> Probed:
    """What is known, with what all models answered."""
    several = len(calls) > 1
    ignored: list[str] = []
    for call, answer in zip(calls, answers, strict=False):
        ignored += [_prefix(call, several) + name for name in answer.ignored]
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
        mixed_by=mixed.mixed_by if mixed else "",
        causal=next((a.causal for a in answers if a.causal), ""),
        leaks=tuple(leak for a in answers for leak in a.leaks),
        unplaced=next((a.unplaced for a in answers if a.unplaced), ""),
    )


@contextlib.contextmanager
def evaluating_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; every module gets its own mode back, by ``train()``, which may be its own code."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        try:
            module.train(modes[0][1])
        finally:
            for each, mode in modes:
                each.training = mode


def evaluated(on: RunContext) -> Forward:
    """Its forward pass in evaluation mode, under its seed."""

    def look(batch: Any) -> tuple[Heard, Terms]:
        with evaluating_mode(on.task.model):
            return on.seeded(batch)

    return look
