"""Is an output held against the target of its own place, or of one at another corner of the row or of the image?

A corner of an input moves the outputs that read it, a corner of a target the slopes of those that are held against it.
Where the model reads only what is near, both have to be the same corner of the output.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.pairs import Turned
from pytest_overfit.diagnose.questions.held_outputs import Forward, Held, called, freed
from pytest_overfit.diagnose.questions.model_calls import one_exchanged
from pytest_overfit.diagnose.questions.own_answers import generator_states
from pytest_overfit.diagnose.questions.tensors import dense_tensors
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.isolation import seed_everything

LEAST, MOST_SEEDS, MOST_TENSORS = 4, 6, 6
Forwards = Callable[[int], Forward]
MOVED = 1e-6  # of the largest element
Corner = tuple[int, ...]  # 0 or -1 along every axis of places
Corners = Mapping[str, set[Corner]]  # by output


def measure_places(
    forward: Forwards, evaluated: Forwards, batch: Any, named: list[tuple[str, nn.Module]], seed: int,
    *, heard: Collection[Tensor], in_order: bool,
) -> Turned | None:  # fmt: skip
    """An output that is held against the target of another corner than the one it is made of.

    Images may be stored otherwise than their targets, and a program turn them on purpose: it is a mistake where a model
    turns what it gets and the loss nothing, or where chance turns one of both.

    Args:
        forward: as the run does it, by a seed; ``evaluated``: the same in evaluation mode.
        named: the modules whose outputs the loss takes; ``heard``: what they returned.
        in_order: the models are given the tensors of the batch, and nothing that was made of them.
    """
    for grid in sorted(grid for grid in _grids(batch) if any(_axes(t, grid) for t in heard)):
        found: list[Turned | None] = []
        for each in range(seed, seed + MOST_SEEDS):
            with contextlib.suppress(Refused):
                turned, drew = _turned(forward(each), evaluated(each), batch, named, grid, each)
                found.append(turned)
                if not drew:
                    break
        for turned in filter(None, found):
            if None in found:
                return replace(turned, drawn=True)
            if in_order and turned.held == turned.corner:
                return turned
    return None


def _grids(batch: Any) -> set[tuple[int, ...]]:
    """The sizes of places that two tensors of a batch, or one that is both, may have in common."""
    shapes = [t.shape[1:] for _, t in dense_tensors(batch) if t.dim() > 1]
    found = {tuple(shape[at : at + 2]) for shape in shapes if len(shape) == 3 for at in (0, 1)}
    found |= {(size,) for shape in shapes if len(shape) == 2 for size in shape}
    found |= {tuple(shape) for shape in shapes if len(shape) == 1}
    return {grid for grid in found if min(grid) >= LEAST}


def _turned(
    forward: Forward, evaluated: Forward, batch: Any, named: list[tuple[str, nn.Module]], grid: Corner, seed: int
) -> tuple[Turned | None, bool]:
    """What is turned, and whether anything but the models draws random numbers."""
    placed = [(key, t) for key, t in dense_tensors(batch) if _axes(t, grid) is not None][:MOST_TENSORS]
    corners = [(0,), (-1,)] if len(grid) == 1 else [(0, 0), (0, -1)]
    answers: dict[tuple[str, Corner], dict[str, set[Corner]]] = {}
    with freed(named) as free:
        held = Held(forward, free, batch)
        seed_everything(seed)
        before = generator_states()
        base = _slopes(held, batch)
        drew = before != generator_states()
        if not any(_axes(t, grid) for t in base.values()):
            return None, False
        for (key, tensor), corner in itertools.product(placed, corners):
            answers[key, corner] = {}
            for other in _changed(tensor, grid, corner):
                other_slopes = _slopes(held, map_tensors(partial(one_exchanged, tensor, other), batch))
                for name, moved in _moved(base, other_slopes, grid).items():
                    answers[key, corner].setdefault(name, set()).update(moved)
    if not any(len(moved) == 1 for each in answers.values() for moved in each.values()):
        return None, drew

    def outputs(each: Any) -> Mapping[str, Tensor]:
        with freed(named) as free:
            evaluated(each)
        return {called(place): t.detach() for place, t in free.leaves.items()}

    plain = outputs(batch)
    for corner in corners:
        made: dict[str, set[Corner]] = {}
        givens: dict[str, str] = {}
        for key, tensor in placed:
            for other in _changed(tensor, grid, corner):
                now = outputs(map_tensors(partial(one_exchanged, tensor, other), batch))
                for name, moved in _moved(plain, now, grid).items():
                    made.setdefault(name, set()).update(moved)
                    givens.setdefault(name, key)
        for (key, at), each in answers.items():
            for name, where in each.items() if at == corner else ():
                near = made.get(name, set())
                if len(where) == 1 and 0 < len(near) <= len(grid) and not where & near:
                    return Turned(givens[name], key, name, corner, min(near), min(where)), drew
    return None, drew


def _slopes(held: Held, batch: Any) -> dict[str, Tensor]:
    heard, terms = held(batch)
    leaves = dict(heard)
    if not leaves or not terms["objective"].requires_grad:
        return {}
    with users_code():
        found = torch.autograd.grad(terms["objective"], list(leaves.values()), allow_unused=True)
    return {name: g for name, g in zip(leaves, found, strict=True) if g is not None}


def _axes(tensor: Tensor, grid: Corner) -> tuple[int, ...] | None:
    """The axes of places, where there is one choice; behind that of samples."""
    count = len(grid)
    found = [at for at in range(1, tensor.dim() - count + 1) if tuple(tensor.shape[at : at + count]) == grid]
    return tuple(range(found[0], found[0] + count)) if len(found) == 1 and tensor.dim() <= count + 2 else None


def _changed(tensor: Tensor, grid: Corner, corner: Corner) -> Iterator[Tensor]:
    """A tensor with other values at one corner of every sample: larger ones, and smaller ones."""
    axes = _axes(tensor, grid) or ()
    if not tensor.numel():
        return
    for sign in (1, -1):
        changed = tensor.detach().clone()
        here = changed.movedim(axes, tuple(range(len(axes))))[corner]
        if tensor.is_floating_point():
            here.add_(3 * sign * (float(tensor.double().std()) or 1.0))
        elif tensor.dtype is torch.bool:
            here.logical_not_()
        else:
            here.copy_(torch.where(here == tensor.max(), tensor.min(), tensor.max()) if sign > 0 else here.roll(1, 0))
        yield changed


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor], grid: Corner) -> dict[str, set[Corner]]:
    """By output, the corners at which it is another one."""
    found: dict[str, set[Corner]] = {}
    for name, old in before.items():
        new, axes = after.get(name), _axes(old, grid)
        if new is None or axes is None or new.shape != old.shape:
            continue
        gap = (new - old).abs().movedim(axes, tuple(range(len(axes))))
        least = MOVED * float(old.abs().max())
        corners = itertools.product((0, -1), repeat=len(grid))
        if moved := {corner for corner in corners if float(gap[corner].max()) > least}:
            found[name] = moved
    return found
