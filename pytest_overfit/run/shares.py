"""How much of a target does the loss read? The share of its elements whose change moves the objective.

By the gradient where there is one: of a target of numbers its own, of labels that of the predictions at their places.
Else single elements are exchanged, two of them where both answer, more where one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.elements import copy_of, dressed, is_dense, is_strided, numbers_of
from pytest_overfit.run.loss_call import LossCall, exchanged
from pytest_overfit.run.supervision_record import Share, Supervision
from pytest_overfit.run.task import Heard, Terms

FEW, MANY = 2, 24  # elements that are exchanged one by one: where all answer, and where some do not
SURE = 0.5  # a smaller share by the gradient is asked again by exchange
MOST_ELEMENTS = 1_000_000  # one of more moves a mean by less than float32 shows
OTHER = 0.05  # of the elements that are taken for left out by the data may answer all the same
CLASSES = 2  # values of a target that is a label, though written in numbers
TABLE, SHORT = 2, 2  # dimensions of (samples, positions); equal labels at an end that need not be padding
WHOLE = 0.9  # of a column answers, where columns are what is read

Grid = Tensor  # of booleans, in the shape of a target


def measure_shares(call: LossCall, keys: Mapping[str, bool]) -> dict[str, Share]:
    """The share of each of these tensors of the batch that the objective reads; none for what cannot be asked.

    Costs one forward pass for a target that has a gradient, up to ``MANY`` for one that has none.

    Args:
        call: of the loss, or of the step in its place.
        keys: tensors of the batch, and whether they are targets for certain.
    """
    batch = call.task.batch
    tensors = dict(named_tensors(batch))
    found = {}
    for key, certain in keys.items():
        tensor = tensors.get(key)
        if tensor is None or not _is_measurable(tensor):
            continue
        if (share := _share(call, batch, tensor)) is not None:
            found[key] = Share(*share, certain=certain)
    return found


def targets_read(supervision: Supervision) -> dict[str, bool]:
    """The tensors that the loss reads beside the predictions, and whether each is a target for certain.

    Where there is only one, it is what the predictions are compared with. A target may reach predictions too: the
    words of a decoder do, and every one of a step's that predicts once more after its update.
    """
    certain = {key for key in supervision.targets if key not in supervision.unread}
    silent = {*supervision.inputs, *supervision.unread} - certain
    read = [key for key in supervision.answers if key not in silent]
    return {key: key in supervision.targets or len(read) == 1 for key in read}


def _slopes(call: LossCall, old: Tensor) -> Grid | None:
    """Where the objective has a slope along a target of numbers; None where it has none at all."""
    leaf = copy_of(old).requires_grad_()

    def look(outputs: Heard, terms: Terms) -> Grid | None:
        objective = terms["objective"]
        if call.step is not None:
            slope = leaf.grad  # of the step's own backward pass
        else:
            slope = torch.autograd.grad(objective, leaf, allow_unused=True)[0] if objective.requires_grad else None
        return None if slope is None or (plain := numbers_of(slope)) is None else plain.nan_to_num(0.0) != 0

    return _grid(call, exchanged(call.task.batch, {id(old): leaf}), look)


def _places(call: LossCall, labels: Tensor) -> Grid | None:
    """At which labels the predictions have a slope; None where no prediction has a place for each label."""
    if call.step is not None:
        return None

    try:
        along = call.along_outputs(call.task.batch).get("objective", [])
    except Refused:
        return None
    told = [slope for _, shape, slope in along if slope is not None and slope.shape == shape]
    fitting = [(slope, dim) for slope in told if (dim := _classes(slope.shape, labels)) is not None]
    grids = [slope if dim > labels.dim() else slope.any(dim) for slope, dim in fitting]
    grid = max(grids, key=lambda grid: int(grid.sum()), default=None)
    return None if grid is None or not bool(grid.any()) else grid.to(labels.device)


def _grid(call: LossCall, batch: Any, look: Callable[[Heard, Terms], Grid | None]) -> Grid | None:
    try:
        grid: Grid | None = call.look(batch, look)
    except Refused:
        return None
    return grid if grid is not None and bool(grid.any()) else None


def _share(call: LossCall, batch: Any, target: Tensor) -> tuple[int, int, bool] | None:
    """(elements that answer, elements that count, whether single ones were tried), None where it cannot be asked."""
    numbers = is_dense(target) and target.is_floating_point()
    grid = _slopes(call, target) if numbers else _places(call, target)
    if grid is not None:
        left_out = _left_out(target, grid, batch)
        counted = target.numel() - int((left_out & ~grid).sum())
        answering = min(int(grid.sum()), counted)
        if not numbers or answering >= SURE * counted:  # a label that is left out counts once it is another
            return answering, counted, False
    try:
        return _tried(call, batch, target)
    except Refused:
        return None


def _tried(call: LossCall, batch: Any, target: Tensor) -> tuple[int, int, bool] | None:
    """Single elements exchanged for another value of the same tensor."""
    values = numbers_of(target)
    if values is None:
        return None
    flat = values.reshape(-1)
    nothing = torch.zeros(target.shape, dtype=torch.bool, device=target.device)
    places = (~_left_out(target, nothing, batch)).reshape(-1).nonzero().reshape(-1)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:MANY]
    high, low = flat[places].max() if len(places) else 0, flat[places].min() if len(places) else 0
    if not len(places) or (high == low and not target.is_floating_point()):
        return None
    tried = moved = 0
    for place in places[order.to(places.device)].tolist():
        value = flat[place]
        other = (low if value == high else high) if high != low else (value * 0.9 if value else value + 0.1)
        changed = flat.clone()
        changed[place] = other
        other_target = dressed(changed.reshape(target.shape).to(target.dtype), target)
        moved += call.moves(exchanged(batch, {id(target): other_target}))
        tried += 1
        if tried == moved == FEW:
            break
    return moved, tried, True


def _is_measurable(tensor: Tensor) -> bool:
    return (
        is_strided(tensor)
        and not tensor.is_complex()
        and tensor.dtype is not torch.bool
        and 1 < tensor.numel() <= MOST_ELEMENTS
    )


def _classes(prediction: torch.Size, labels: Tensor) -> int | None:
    """The dimension of the classes of a prediction of a place for each label, that behind the last one for none."""
    shape, wanted = tuple(prediction), tuple(labels.shape)
    if shape == wanted:
        return len(wanted) + 1
    if shape[:-1] == wanted:
        return len(shape) - 1
    return 1 if len(shape) > 1 and (shape[0], *shape[2:]) == wanted else None


def _left_out(target: Tensor, grid: Grid, batch: Any) -> Grid:
    """The elements that the data themselves mark as left out: negative labels, NaN, padding, masks, lengths, columns.

    What is only a likely mark counts where (nearly) nothing that it marks answers.
    """
    plain = numbers_of(target)
    if plain is None:
        return torch.zeros(target.shape, dtype=torch.bool, device=target.device)
    sure = plain.isnan() if plain.is_floating_point() else plain < 0
    if not plain.is_floating_point():
        sure = sure | _padding(plain)
    others = [numbers_of(t) for _, t in named_tensors(batch) if t is not target and is_strided(t)]
    for likely in _likely(plain, grid, [other for other in others if other is not None and not other.is_complex()]):
        if int((likely & grid).sum()) <= OTHER * int(likely.sum()):
            sure = sure | likely
    return sure


def _likely(target: Tensor, grid: Grid, others: Sequence[Tensor]) -> Iterator[Grid]:
    for other in others:
        if _is_flags(other) and (flags := _spread(other, target)) is not None:
            yield from (flags == 0, flags != 0) if bool(grid.any()) else (flags == 0,)
        elif not other.is_floating_point() and target.dim() > 1 and tuple(other.shape) == tuple(target.shape[:1]):
            places = torch.arange(target.shape[1], device=target.device)
            late = places[None] >= other.to(target.device)[:, None]
            yield late.reshape(*late.shape, *[1] * (target.dim() - 2)).expand(target.shape)
        if _is_selection(other, len(target)):
            chosen = torch.zeros(len(target), dtype=torch.bool, device=target.device)
            chosen[other.to(target.device)] = True
            yield (~chosen).reshape(-1, *[1] * (target.dim() - 1)).expand(target.shape)
    if not bool(grid.any()):
        return
    silent = target.detach()[~grid]
    if target.is_floating_point() and silent.numel() and len(torch.unique(target)) > CLASSES:
        values, counts = torch.unique(silent, return_counts=True)
        if int(counts.max()) > 1:
            yield target == values[counts.argmax()]
    if target.dim() > 1:
        columns = grid.reshape(-1, grid.shape[-1])
        read = columns.any(0)
        if float(columns[:, read].float().mean()) >= WHOLE:  # other tasks' targets stand beside those of this one
            yield (~read).expand(target.shape)


def _is_selection(tensor: Tensor, samples: int) -> bool:
    """Whether these are places of some of the samples, each once: nodes of a graph that are trained on."""
    if tensor.dim() != 1 or tensor.dtype is not torch.long or not 0 < len(tensor) < samples:
        return False
    return int(tensor.min()) >= 0 and int(tensor.max()) < samples and len(torch.unique(tensor)) == len(tensor)


def _padding(labels: Tensor) -> Grid:
    """The run of equal labels at the end of every row, where the longest of them is longer than two."""
    if labels.dim() != TABLE or labels.shape[1] <= SHORT:
        return torch.zeros_like(labels, dtype=torch.bool)
    run = (labels == labels[:, -1:]).long().flip(1).cumprod(1).flip(1).bool()
    lengths = run.sum(1)
    is_padding = int(lengths.max()) > SHORT and int(lengths.min()) < labels.shape[1]
    return run if is_padding else torch.zeros_like(run)


def _is_flags(tensor: Tensor) -> bool:
    return tensor.dtype is torch.bool or bool(((tensor == 0) | (tensor == 1)).all())


def _spread(flags: Tensor, target: Tensor) -> Tensor | None:
    """Flags in the shape of a target: as they are, or one for each of its leading or trailing places."""
    flags = flags.detach().to(target.device)
    shape, wanted = tuple(flags.shape), tuple(target.shape)
    if not shape or len(shape) > len(wanted):
        return None
    for spread in (shape, (*shape, *[1] * (len(wanted) - len(shape)))):
        if all(a in (1, b) for a, b in zip(spread[::-1], wanted[::-1], strict=False)):
            return flags.reshape(spread).expand(wanted)
    return None
