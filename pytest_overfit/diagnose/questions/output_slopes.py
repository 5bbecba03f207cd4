"""Agrees, within the model: what its outputs do when a part's weights move, against the gradient that the part gets.

A part that is read through ``.data``, under ``no_grad``, by way of numpy or a cache moves the outputs and has no
gradient for it. Where the rest of the network goes around it the part still learns, and nothing else shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.agreement import Slope
from pytest_overfit.diagnose.questions.tensors import graph_nodes, is_real
from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.run.task import Heard, Terms

MOST_PARTS = 8  # each costs two forward passes
STEADY = 0.1  # of a ratio: the same one in every direction
CLOSE, BEYOND = 0.05, 5  # of a slope, and of what it changes over half the distance: what is another one
CONFIRMED = 0.02  # of a slope: the same where it was another one elsewhere
ASIDE, SMALL = 0.01, 0.01  # how far, of a parameter's size; the size of one that is zero
SEEN = 100  # roundings of the outputs: a change that is none


def measure_output_slopes(
    forward: Callable[[], tuple[Heard, Terms]], model: nn.Module, within: str = "", *, directions: int = 2,
    close: float = CLOSE,
) -> tuple[Slope, ...]:  # fmt: skip
    """The parts along which outputs slope otherwise than their gradient says, in every direction that is tried.

    The furthest apart comes last: around others leads a way that is right. Before it what only some outputs lack.

    Args:
        forward: outputs and terms with their graphs, repeatable, as the run makes them.
        within: the module whose parts are asked.
        close: the share of a slope from which on it is another one.
    """
    heard, terms = forward()
    outputs = {name: t for name, t in heard if is_real(t) and t.requires_grad and t.numel() > 1}
    objective = terms["objective"]
    if not outputs or not objective.requires_grad:
        return ()
    read = _read(outputs, objective)
    source = torch.Generator().manual_seed(0)
    along = {name: torch.randn(outputs[name].shape, generator=source).to(outputs[name]) for name in read}
    size = sum(float(outputs[name].detach().double().square().sum()) for name in read) ** 0.5
    plain = (p for p in model.parameters() if type(p) in (nn.Parameter, Tensor) and is_real(p))
    learning = [p for p in plain if p.requires_grad and p.numel()]
    least = SEEN / ASIDE * size * max(torch.finfo(t.dtype).eps for t in (*learning, *along.values()))

    def total(found: Mapping[str, Tensor], names: Sequence[str] = read) -> Tensor:
        return sum((found[name].double() * along[name]).sum() for name in names)  # type: ignore[return-value]

    reached = {name: {id(getattr(n, "variable", None)) for n in graph_nodes(outputs[name])} for name in read}
    given = _differentiated(total(outputs), learning)
    if len(given) < len(learning):  # by a term of its own: a codebook
        elsewhere = _differentiated(objective, learning).keys() - given.keys()
        learning = [p for p in learning if id(p) not in elsewhere]
    del outputs, heard, terms, objective

    def measured(names: Sequence[str] = read) -> float:
        with torch.no_grad():
            return float(total(dict(forward()[0]), names))

    held_still, here = padding_of(model), cache(measured)
    found = []
    for part, held in parts_of(model.get_submodule(within) if within else model, {id(p) for p in learning}).items():
        name, slopes = f"{within}.{part}".strip("."), []
        for _ in range(directions):
            slope, near, bend = _slopes(name, held, given, held_still, measured, here, source)
            curved = BEYOND * abs(slope.measured - near.measured)  # or has steps
            if slope.is_flat or _is_known(slope, max(least, curved, bend), close) or name == within != "":
                break
            slopes.append(slope)
        else:
            whole = [name for name in read if any(id(p) in reached[name] for p in held)]
            meant = 0 < len(whole) < len(read)
            if meant:
                ask = partial(measured, whole)
                meant = _is_known(_slopes(name, held, given, held_still, ask, ask, source)[0], least)
            apart, one = _as_one(slopes)
            found.append((not meant, apart, replace(one, elsewhere=meant)))
    return tuple(slope for *_, slope in sorted(found, key=itemgetter(0, 1)))


def _read(outputs: Mapping[str, Tensor], objective: Tensor) -> list[str]:
    """The outputs that the objective has a gradient along."""
    with users_code():
        gradients = torch.autograd.grad(objective, list(outputs.values()), retain_graph=True, allow_unused=True)
    read = [name for name, g in zip(outputs, gradients, strict=True) if g is not None and bool((g != 0).any())]
    if not read:
        raise Unanswerable("the loss reads no output of the model as it is")
    return read


def _is_known(slope: Slope, least: float, close: float = CLOSE) -> bool:
    """Whether a gradient is that of a slope, but for so much; a NaN says nothing against it."""
    known = max(close * max(abs(slope.measured), abs(slope.gradient)), least)
    return not abs(slope.measured - slope.gradient) > known


class _Otherwise(TorchFunctionMode):
    """The next place in place of the largest or the smallest."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in ("argmax", "argmin"):
            return out
        given: dict[str, Any] = {**dict(zip(("input", "dim"), args, strict=False)), **(kwargs or {})}
        source, dim = given["input"], given.get("dim")
        return (out + 1) % (source.numel() if dim is None else source.shape[dim])


def follows_choice(forward: Callable[[], Heard]) -> bool:
    """Whether the outputs are others where another place is chosen than that of the largest; so where it is refused.

    Args:
        forward: outputs, the same in every call.
    """
    try:
        with torch.no_grad(), users_code():
            plain = [t for _, t in forward() if is_real(t)]
            with _Otherwise():
                other = [t for _, t in forward() if is_real(t)]
    except Refused:
        return True
    return len(plain) != len(other) or not all(map(torch.equal, plain, other))


def _as_one(slopes: Sequence[Slope]) -> tuple[float, Slope]:
    """How far gradient and slope of a part lie apart in all directions at least, and one slope for them."""
    apart = min(abs(s.gradient - s.measured) / max(abs(s.gradient), abs(s.measured)) for s in slopes)
    ratios = [each.gradient / each.measured for each in slopes]
    steady = max(ratios) - min(ratios) <= STEADY * max(map(abs, ratios))
    return apart, replace(slopes[0], ratio=ratios[0] if steady else None)


def _differentiated(value: Tensor, parameters: Sequence[Tensor]) -> dict[int, Tensor]:
    """The gradients of those that have one, by id.

    As training gets them, by what accumulates: what recomputes on its way back, such as a reversible block or reentrant
    checkpointing, hands nothing to whoever asks for single gradients.
    """
    if any(getattr(p, "_post_accumulate_grad_hooks", None) for p in parameters):
        raise Unanswerable("a hook acts on the gradients as they arrive")
    kept = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        with users_code():
            value.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        return {id(p): p.grad for p in parameters if p.grad is not None}
    finally:
        for p, grad in zip(parameters, kept, strict=True):
            p.grad = grad


def padding_of(model: nn.Module) -> dict[int, int]:
    """The rows of tables that get no gradient on purpose, by the id of the table."""
    tables = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    return {id(m.weight): m.padding_idx for m in tables if m.padding_idx is not None}


def _slopes(
    name: str, held: Sequence[Tensor], given: Mapping[int, Tensor], still: Mapping[int, int],
    measured: Callable[[], float], here: Callable[[], float], source: torch.Generator,
) -> tuple[Slope, Slope, float]:  # fmt: skip
    """Along one random direction of a part, over some distance and over half of it; how far both ways lie apart.

    Where a unit has its kink just here, as a rectifier at 0, the slopes of the two ways differ by twice what its
    gradient misses of their mean. What is cut from a graph is as smooth as the rest.
    """
    directions = []
    for p in held:
        draw = torch.randn(p.shape, generator=source).to(p) * (p.detach().square().mean().sqrt() or SMALL)
        if id(p) in still:
            draw[still[id(p)]] = 0.0
        directions.append((p, draw))
    gradient = sum(float((given[id(p)] * d).double().sum()) for p, d in directions if id(p) in given)
    kept = [p.detach().clone() for p in held]
    found, both = [], 0.0
    for width in (ASIDE, ASIDE / 2):
        values = []
        for distance in (width, -width):
            with torch.no_grad():
                for (p, d), old in zip(directions, kept, strict=True):
                    p.copy_(old + distance * d)
            values.append(measured())
        found.append(Slope(name, gradient, (values[0] - values[1]) / (2 * width)))
        both, confirmed = sum(values), _is_known(found[0], 0.0, CONFIRMED)
        if confirmed:
            break
    with torch.no_grad():
        for p, old in zip(held, kept, strict=True):
            p.copy_(old)
    return found[0], found[-1], 0.0 if confirmed else abs(both - 2 * here()) / width


def innermost_slopes(
    forward: Callable[[], tuple[Heard, Terms]], model: nn.Module, to_start: Callable[[], None], *, failed: bool
) -> tuple[Slope, ...]:
    """The innermost part that slopes otherwise than its gradient says, at the start as well: that is how it is built.

    Args:
        forward: as ``measure_output_slopes`` takes it.
        to_start: brings the run's start back, for good.
        failed: training led astray, where nothing may be smooth: the start is asked where the end says nothing.
    """

    def at_start(**how: Any) -> tuple[Slope, ...]:
        to_start()
        return measure_output_slopes(forward, model, **how)

    slopes = outermost = measure_output_slopes(forward, model)
    if failed and not slopes:
        slopes = outermost = at_start()
    while inner := measure_output_slopes(forward, model, slopes[-1].where) if slopes else ():
        slopes = inner
    if not slopes:
        return ()
    before = {slope.where for slope in at_start(directions=1, close=CONFIRMED)}
    return slopes[-1:] if any(slope.where in before for slope in outermost) else ()


def parts_of(model: nn.Module, learning: set[int]) -> dict[str, list[Tensor]]:
    """Modules that together hold what learns, the largest taken apart until there are so many."""
    parts: dict[str, nn.Module] = {"": model}
    while True:
        inner = {name: _children(module, learning) for name, module in parts.items()}
        opened = max(
            (name for name in parts if inner[name] and len(parts) - 1 + len(inner[name]) <= MOST_PARTS),
            key=lambda name: sum(id(p) in learning for p in parts[name].parameters()),
            default=None,
        )
        if opened is None:
            break
        del parts[opened]
        parts |= {f"{opened}.{child}".lstrip("."): module for child, module in inner[opened].items()}
    seen: set[int] = set()
    found: dict[str, list[Tensor]] = {}
    for name, module in parts.items():
        held: list[Tensor] = [p for p in module.parameters() if id(p) in learning and id(p) not in seen]
        seen |= {id(p) for p in held}
        if held:
            found[name] = held
    return found


def _children(module: nn.Module, learning: set[int]) -> dict[str, nn.Module]:
    """Its children that learn; none where it has parameters of its own that do."""
    if any(id(p) in learning for p in module.parameters(recurse=False)):
        return {}
    return {
        name: child for name, child in module.named_children() if any(id(p) in learning for p in child.parameters())
    }
