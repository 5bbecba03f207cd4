"""Do outputs read the future, or their own answer, along a sequence, in an image, or in a column of the input?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from pytest_overfit.diagnose.evidence import Leak
from pytest_overfit.diagnose.questions.model_calls import ModelCall, one_exchanged, some_exchanged, where_it_arises

NUDGE = 1e-3  # of an argument's deviation
NONE = 1e-2  # of the largest singular value of a Jacobian
MOST_DIRECTIONS = 32  # each costs one forward pass, and only of an argument that is the target


def measure_order(
    call: ModelCall, name: str, tensor: Tensor, base: list[Tensor], targets: list[Tensor]
) -> tuple[str, tuple[Leak, ...]]:
    """Whether outputs read only earlier places of a sequence or image, and whether they read their own answer."""
    places = _places(tensor, base)
    if places is None:
        return "", ()
    axes, output = places
    length = 1
    for axis in axes[0]:
        length *= tensor.shape[axis]
    relation = next((found for target in targets if (found := _relation(tensor, axes[0], target))), "")
    if length < 4 or not relation:
        return "", ()
    middle = length // 2
    changed = _one_place_changed(tensor, axes[0], middle)
    moved = _moved_places(base[output], call.again(lambda t: changed if t is tensor else t)[output], axes[1])
    if moved is None:
        return "", ()
    before, at, after = bool(moved[:middle].any()), bool(moved[middle]), bool(moved[middle + 1 :].any())
    shifted = False
    if relation == "same" and not tensor.is_floating_point():  # who shifts tokens himself reads the last one nowhere
        last = _one_place_changed(tensor, axes[0], length - 1)
        shifted = torch.equal(base[output], call.again(partial(one_exchanged, tensor, last))[output])
    if relation == "next" and not before:
        return (name, ()) if at or after else ("", ())
    if relation == "next" or (shifted and (before or at)):
        own = middle if shifted else middle - 1  # the place whose answer has been changed
        first = own if bool(moved[own]) else int(moved.nonzero()[0])

        def early(old: Tensor, new: Tensor) -> bool:
            axis = next((axis for axis in (1, 0, -1) if old.dim() > 1 and old.shape[axis] == length), None)
            found = None if axis is None else _moved_places(old, new, (axis % old.dim(),))
            return found is not None and bool(found[: own + 1].any())

        module = where_it_arises(call, lambda t: changed if t is tensor else t, early) if len(axes[0]) == 1 else ""
        reads = "which has to predict it" if first == own else "which comes before it"
        what = f"the output at place {first}, {reads}, changes with it"
        return "", (Leak(f"{name} at place {middle}", what, module),)
    if not before and after and at:  # reads only what comes before, and the place itself, which is the answer
        which = "very value that it reads" if relation == "same" else "value of the place before, which it has read"
        what = f"every output has to predict the {which}, and reads nothing later"
        return name, (Leak(f"{name} at place {middle}", what, own="same" if relation == "same" else "before"),)
    return ("" if before else name), ()


def _places(tensor: Tensor, base: list[Tensor]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], int] | None:
    """The axes of places in an argument and in an output: (B, T[, D]) or (B, C, H, W)."""
    for index, output in enumerate(base):
        if output.dim() < 2 or not tensor.dim() or output.shape[0] != tensor.shape[0]:
            continue
        if tensor.dim() == 4 and output.dim() >= 4 and output.shape[-2:] == tensor.shape[-2:] and tensor.shape[-1] > 2:
            return ((2, 3), (output.dim() - 2, output.dim() - 1)), index
        if tensor.dim() in (2, 3) and output.dim() >= 2 and (tensor.dim() == 3 or not tensor.is_floating_point()):
            for axis in range(1, tensor.dim()):
                if output.dim() > axis and output.shape[axis] == tensor.shape[axis] and tensor.shape[axis] > 3:
                    return ((axis,), (axis,)), index
                if output.shape[-1] == tensor.shape[axis] and tensor.shape[axis] > 3:
                    return ((axis,), (output.dim() - 1,)), index
    return None


def _one_place_changed(tensor: Tensor, axes: tuple[int, ...], place: int) -> Tensor:
    """An argument with another value at one place of every sample."""
    changed = tensor.detach().clone()
    flat = changed.movedim(axes, tuple(range(len(axes))))
    here = flat[(place,) if len(axes) == 1 else (place // flat.shape[1], place % flat.shape[1])]
    other = tensor.detach().reshape(-1)
    if tensor.is_floating_point():
        here.add_(0.37 * (float(other.double().std()) or 1.0))
    else:
        here.copy_(torch.where(here == other.max(), other.min(), other.max()))
    return changed


def _moved_places(before: Tensor, after: Tensor, axes: tuple[int, ...]) -> Tensor | None:
    """Which places of a tensor have moved."""
    if before.shape != after.shape:
        return None
    gap = (before - after).abs().movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
    size = float(before.abs().max()) or 1.0
    return gap.flatten(1).amax(1) > 1e-6 * size if gap.dim() > 1 else gap > 1e-6 * size


def _relation(tensor: Tensor, axes: tuple[int, ...], target: Tensor) -> str:
    """Whether the targets are the argument itself ("same"), its "next" place, or its "previous" one; empty: neither."""
    given, wanted = tensor.detach().double(), target.detach().double()
    pairs = {"same": (given, wanted)} if given.numel() == wanted.numel() else {}
    if len(axes) == 1:
        axis, count = axes[0], given.shape[axes[0]] - 1
        cut = wanted.reshape(given.shape).narrow(axis, 0, count) if pairs else wanted
        if given.narrow(axis, 1, count).numel() == cut.numel():
            pairs["next"] = given.narrow(axis, 1, count), cut
            pairs.setdefault("same", (given.narrow(axis, 0, count), cut))
        if given.numel() == wanted.numel():
            pairs["previous"] = given.narrow(axis, 0, count), wanted.reshape(given.shape).narrow(axis, 1, count)
    # Equal before alike: tokens that count up are a rising line of the next ones.
    for alike in (torch.equal, _on_a_line):
        for relation, (a, b) in pairs.items():
            kept = b.reshape(-1) != -100
            if _tells(a.reshape(-1)[kept], b.reshape(-1)[kept], alike):
                return relation
    return ""


def _tells(a: Tensor, b: Tensor, alike: Callable[[Tensor, Tensor], bool]) -> bool:
    return a.numel() >= 4 and float(a.std()) > 0 and float(b.std()) > 0 and alike(a, b)


def _on_a_line(a: Tensor, b: Tensor) -> bool:
    """Whether one is a rising line of the other, as the levels of a quantised image are."""
    correlation = float(((a - a.mean()) * (b - b.mean())).mean() / (a.std(correction=0) * b.std(correction=0)))
    return correlation > 0.9999


def copied(
    call: ModelCall, arguments: list[tuple[str, Tensor]], targets: list[Tensor], base: list[Tensor]
) -> Iterator[Leak]:
    """An argument beside others, or columns of one, that are what the loss compares with.

    What reconstructs its input compares with it too, through a code or beside a condition: an argument as a whole is a
    leak where all of it reaches the output.
    """
    for target in targets:
        answers = [o for o in base if o.shape == target.shape or (target.dim() == 1 and o.shape[:1] == target.shape)]
        wanted = target.detach().double()
        if not answers or not wanted.dim() or wanted.numel() < 4 or len(torch.unique(wanted)) < 4:
            continue  # without an answer another model's output is compared: a discriminator may see the truth
        columns = wanted.reshape(len(wanted), -1)
        for name, tensor in arguments:
            if not tensor.is_floating_point() or tensor.shape[:1] != wanted.shape[:1]:
                continue
            given = tensor.detach().double().reshape(len(tensor), -1)
            if tensor.shape == target.shape:  # the only one of the samples would be an autoencoder's
                others = [t for _, t in arguments if t is not tensor and t.shape[:1] == tensor.shape[:1]]
                same = len(base) == 1 and base[0].shape == target.shape and given.equal(columns)
                if others and same and _follows(call, tensor, base[0]) and _gives(call, tensor, others):
                    yield Leak(name, "an argument of the model is the very tensor that its output is compared with")
            elif tensor.dim() == 2 and (target.dim() == 1 or target.is_floating_point()):
                hits = [(given == columns[:, i : i + 1]).all(0).nonzero() for i in range(columns.shape[1])]
                if len(hits) < given.shape[1] and all(len(hit) for hit in hits):
                    which = f"{name}[:, {int(hits[0][0])}]" if len(hits) == 1 else name
                    yield Leak(which, "what the output has to be is among the columns of the input")


def _gives(call: ModelCall, tensor: Tensor, others: list[Tensor]) -> bool:
    """Whether an output is made of this argument where the others are zero, and not only of them by its means.

    Of an image that is warped, or attended to, nothing is left.
    """
    nothing = {id(t): torch.zeros_like(t) for t in others if t.is_floating_point()}
    changed = tensor.detach().flip(0) * 0.7 + 0.1
    news = nothing, nothing | {id(tensor): changed}
    before, after = (call.again(partial(some_exchanged, new)) for new in news)
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _follows(call: ModelCall, tensor: Tensor, output: Tensor) -> bool:
    """Whether what an output makes of an argument of its shape has as many dimensions: it passed through no code.

    By the rank of a sample's Jacobian along random directions.
    """
    numbers = tensor[0].numel()
    generator = torch.Generator().manual_seed(0)
    columns = []
    for _ in range(min(numbers, MOST_DIRECTIONS)):
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        other = tensor.detach() + NUDGE * tensor.detach().std() * noise
        (moved,) = call.again(partial(one_exchanged, tensor, other))
        columns.append((moved - output)[0].double().reshape(-1))
    slopes = torch.stack(columns, 1)
    return int(torch.linalg.matrix_rank(slopes, rtol=NONE)) == len(columns)
