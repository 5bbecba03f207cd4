"""The supervision map: which samples, places and labels count in which term of a loss, and which teach nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.call_task import attributes_of, listened_to
from pytest_overfit.run.elements import dressed, is_strided, numbers_of
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.loss_call import Along, LossCall, exchanged, lives
from pytest_overfit.run.supervision_record import LabelsTaught, OneNumber, Supervision, Taught

MOST_OUTPUTS, MOST_CLASSES, FEW = 6, 12, 4
BY_CHANCE = 1e-3  # labels that count are strewn: a row without any may be an accident of so few of them
Slopes = Mapping[str, Mapping[str, Tensor]]  # term -> output -> (where the term has a slope along it)


def measure_taught(call: LossCall, supervision: Supervision) -> tuple[Taught, ...]:
    """What counts in every term, by its slope along every output; of a step, in what it differentiates.

    Of a loss in the graph of its first call; one forward pass more of a step, and where a class counts nowhere.

    Args:
        supervision: which tensors of the batch are inputs, targets, or neither.
    """
    found: list[Taught] = []
    for term, outputs in _slopes(call, call.task.batch).items():
        batch = _numbers(call.task.batch)
        lines = [_taught(term, output, grid, batch, supervision) for output, grid in outputs.items()]
        found += sorted(lines, key=lambda line: line.whole)[:MOST_OUTPUTS]
    return tuple(_with_classes(call, line, supervision) for line in found)


def _slopes(call: LossCall, batch: Any) -> Slopes:
    return _of_step(call, batch) if call.step is not None else _of_terms(call.along_outputs(batch))


def _numbers(batch: Any) -> Mapping[str, Tensor]:
    found = {key: numbers_of(tensor) for key, tensor in named_tensors(batch) if is_strided(tensor)}
    return {key: tensor for key, tensor in found.items() if tensor is not None and tensor.dim()}


def _with_classes(call: LossCall, line: Taught, seen: Supervision) -> Taught:
    """The line with the class that is left out for its label alone, though the output has a place for it.

    Another label in its place counts, and where another one stood it does not. Padding is no class: it ends rows, or
    begins them; nor is what anything else in the batch is zero for, or one value that it has nowhere else.
    """
    labels = line.labels
    if labels is None or line.term != "objective" or labels.unexplained:
        return line
    tensor = dict(named_tensors(call.task.batch))[labels.key]
    numbers = _numbers(call.task.batch)
    others = [t for key, t in numbers.items() if key != labels.key]
    for name, other in (
        (name, next(iter(labels.counted))) for name in labels.left_out if 0 <= int(name) < line.classes
    ):
        value, live, plain = int(name), int(other), numbers[labels.key]
        if _is_told(plain == value, others):
            continue
        turned = torch.where(plain == value, live, torch.where(plain == live, value, plain)).to(tensor.dtype)
        batch = exchanged(call.task.batch, {id(tensor): dressed(turned, tensor)})
        with contextlib.suppress(Refused):
            grid = _slopes(call, batch).get(line.term, {}).get(line.output)
            now = None if grid is None else _taught(line.term, line.output, grid, _numbers(batch), seen).labels
            if now is not None and now.key == labels.key and now.left_out.keys() == labels.left_out.keys():
                return replace(line, labels=replace(labels, silenced=name))
    return line


def _is_told(places: Tensor, others: Iterable[Tensor]) -> bool:
    if places.dim() > 1:
        rows = places.flatten(1).int()
        if any(torch.equal(each.cummin(1).values, each) for each in (rows, rows.flip(1))):
            return True
    for tensor in (t for t in others if t.shape[: places.dim()] == places.shape):
        here, there = tensor[places], tensor[~places]
        if not here.any() and bool(there.reshape(len(there), -1).any(1).all()):
            return True
        if tensor.dim() == places.dim() > 1 and len(torch.unique(here)) == 1 and not bool((there == here[0]).any()):
            return True
    return False


def _of_terms(along: Along) -> Slopes:
    found: dict[str, dict[str, Tensor]] = {}
    for term, outputs in along.items():
        grids = {name: grid for name, shape, grid in outputs if shape.numel() > 1}
        if lines := {name: grid for name, grid in grids.items() if grid is not None}:
            found[term] = lines
    return found


def _of_step(call: LossCall, batch: Any) -> Slopes:
    """The gradients of a step's outputs, as they come in."""
    found: dict[str, Tensor] = {}

    def hear(prefix: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            for name, tensor in named_outputs(attributes_of(output), prefix):
                if tensor.requires_grad and tensor.numel() > 1:
                    tensor.register_hook(partial(arrived, name))  # type: ignore[no-untyped-call]

        return hook

    def arrived(name: str, gradient: Tensor) -> None:
        before, grid = found.get(name), lives(gradient)
        found[name] = grid if before is None or before.shape != grid.shape else before | grid

    handles = [nn.Module.register_forward_hook(module, hear(name)) for name, module in listened_to(call.task.given)]
    try:
        call.look(batch, lambda outputs, terms: None)
    finally:
        for handle in handles:
            handle.remove()
    return {"objective": found} if found else {}


def _taught(term: str, output: str, grid: Tensor, batch: Mapping[str, Tensor], seen: Supervision) -> Taught:
    labels, places = _labels(grid, batch, seen)
    alike = sum(bool(grid.dim()) and len(tensor) == len(grid) for tensor in batch.values())
    samples = len(grid) if alike > 1 or alike == len(batch) == 1 else None
    silent = [] if samples is None else (~places.reshape(samples, -1).any(1)).nonzero()[:, 0].tolist()
    if labels is not None and samples is not None and silent:
        labels = replace(labels, unlabelled=tuple(_unlabelled(silent, labels, places, batch)))
    classes = grid.numel() // max(1, places.numel()) if labels is not None else 0
    targets = {key: t for key, t in batch.items() if key in seen.answers and key not in (*seen.inputs, *seen.unread)}
    one = _one_number(grid, targets) if labels is None else None
    return Taught(term, output, int(places.sum()), places.numel(), samples, tuple(silent), labels, classes, one)


def _one_number(grid: Tensor, targets: Mapping[str, Tensor]) -> OneNumber | None:
    """A target of many numbers of which the places that count have one, and the others none like it."""
    for key, tensor in targets.items():
        for places, numbers in _aligned(grid, tensor.cpu()) if tensor.is_floating_point() else ():
            live, others = torch.unique(numbers[places]), torch.unique(numbers[~places])
            if len(live) == 1 and min(int(places.sum()), len(others)) >= FEW and not bool((others == live).any()):
                return OneNumber(key, float(live), len(others))
    return None


def _labels(grid: Tensor, batch: Mapping[str, Tensor], seen: Supervision) -> tuple[LabelsTaught | None, Tensor]:
    """The labels at the places of an output that explain best which of them count, and these places."""
    told = {key for key in seen.answers if key not in (*seen.inputs, *seen.unread)}
    best: tuple[tuple[bool, int, bool, int], LabelsTaught, Tensor] | None = None
    for key, tensor in batch.items():
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool or key in seen.unread:
            continue
        for places, labels in _aligned(grid, tensor.cpu()):
            if key in seen.inputs and (labels.shape == tensor.shape or 2 * int(places.sum()) < places.numel()):
                continue  # an input is its own label along a sequence alone, and then for most of its places
            if told - {key} and torch.equal(labels, places.to(labels.dtype)):
                continue  # beside a target: 1 where that counts
            live, still = labels[places], labels[~places]
            left_out = still[~torch.isin(still, live)]
            values, target = len(torch.unique(live)), key in seen.targets
            # Beside targets of several values one of which a single value counts says what is looked at.
            rank = (target and values > 1, len(left_out) - len(still), target, len(left_out))
            if live.numel() and (best is None or rank > best[0]):
                found = LabelsTaught(
                    key,
                    values,
                    _counted(live),
                    _counted(left_out),
                    unexplained=len(still) - len(left_out),
                )
                best = rank, found, places
    return (None, grid) if best is None else best[1:]


def _aligned(grid: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Places of an output and the labels that stand there: as they are, and in a row those of the next place."""
    shape, wanted = tuple(grid.shape), tuple(labels.shape)
    if shape[:1] != wanted[:1]:
        return
    if shape == wanted:
        yield grid, labels
    for axis in {1, len(shape) - 1}:
        if len(shape) == len(wanted) + 1 and (*shape[:axis], *shape[axis + 1 :]) == wanted:
            yield grid.any(axis), labels
    if len(shape) == len(wanted) + 1 == 3 and wanted[1] > 2 and shape[1] in (wanted[1], wanted[1] - 1):
        yield grid.any(2)[:, : wanted[1] - 1], labels[:, 1:]


def _counted(values: Tensor) -> dict[str, int]:
    found, counts = torch.unique(values, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:MOST_CLASSES]
    return {str(int(found[i])): int(counts[i]) for i in order}


def _unlabelled(silent: list[int], labels: LabelsTaught, places: Tensor, batch: Mapping[str, Tensor]) -> Iterator[int]:
    """The silent samples whose labels are all of one value that counts nowhere, neither declared nor by chance.

    A sample is declared to be none by anything else that is one value all through in it, or zero, and in no sample
    that counts. Where labels that count are strewn over the rows, as those of a masked language model, a row may be
    without any by chance.
    """
    if places.dim() < 2 or len(silent) == len(places):
        return
    live = [row for row in range(len(places)) if row not in silent]
    rows = places[live].flatten(1)
    strewn = bool((rows.int().diff(dim=1) > 0).sum(1).add(rows[:, 0].int()).gt(1).any())
    if strewn and (1 - float(rows.float().mean())) ** rows.shape[1] > BY_CHANCE:
        return
    others = [t for name, t in batch.items() if name != labels.key and len(t) == len(places)]
    for row in silent:
        values = torch.unique(batch[labels.key][row])
        if len(values) == 1 and str(int(values)) in labels.left_out and not any(_tells(t, row, live) for t in others):
            yield row


def _tells(tensor: Tensor, row: int, live: list[int]) -> bool:
    """Whether a row is zero, or the same all through, and none of others is."""
    signs = [~tensor.reshape(len(tensor), -1).any(1)]
    if tensor.dim() > 1:
        signs.append((tensor == tensor[:, :1]).reshape(len(tensor), -1).all(1))
    return any(bool(sign[row]) and not bool(sign[live].any()) for sign in signs)
