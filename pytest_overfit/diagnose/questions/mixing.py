"""Do samples move the outputs of others, and can that be meant?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.questions.model_calls import ModelCall, one_exchanged, where_it_arises
from pytest_overfit.diagnose.questions.own_answers import own_answers
from pytest_overfit.diagnose.questions.row_order import left_in_another_order
from pytest_overfit.diagnose.questions.sample_order import (
    by_its_place,
    compares_samples,
    equivariant,
    first_exchanged,
    grows_alone,
    is_a_sequence,
    takes_one_more,
)
from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.diagnose.questions.tensors import is_real, tensors_in
from pytest_overfit.diagnose.questions.torch_functions import TorchFunctions
from pytest_overfit.errors.asking import Questions

BACK = "put the rows back into their order where they leave the model: output[order.argsort()]"
MOVED = 1e-4  # relative: two batches of another make-up round differently
FELT = 1e-3  # the same, beyond the tolerance of what goes on until all samples are near enough
PLACES = (
    "number places along the axis of the sequence, not of the batch, and let indices into flattened samples begin at "
    "b * n for sample b of n places each"
)
RELATIONAL = (nn.RNNBase, nn.MultiheadAttention, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.TransformerEncoderLayer)


def measure_mixing(
    call: ModelCall,
    arguments: list[tuple[str, Tensor]],
    base: list[Tensor],
    samples: int | None,
    targets: list[Tensor],
    pairwise: bool,
) -> tuple[float | None, bool, str, str]:
    """How far the outputs of the other samples move when the first one is exchanged.

    And whether that is a mistake, where it arises, the line where rows are left in another order, and what to change.
    """
    if samples is None or not arguments:
        return None, False, "", ""
    batched = [(name, t) for name, t in arguments if t.dim() and t.shape[0] == samples]
    if len(batched) == len(arguments) and (pairs := _mixed_in_pairs(call, batched, base, samples)):
        return pairs, True, type(call.module).__name__, ""
    rows = [at for at, t in enumerate(base) if t.dim() and t.shape[0] == samples]
    if any(samples in base[at].shape[1:] for at in rows):
        alone = grows_alone(call, batched, base, samples)
        rows = [at for at in rows if alone[at]]
    outputs = [base[at] for at in rows]
    if not batched or not any(t.dim() and t.shape[0] == samples for t in base):
        return None, False, "", ""
    others, where = _moved(call, {id(t): first_exchanged(t) for _, t in batched}, base, samples)
    if others > MOVED and (unlike := _unlike_its_kind(call, samples)):
        return others, True, unlike, _mend(call, unlike, batched, base, samples)
    if not outputs:
        return None, False, "", ""
    if others <= MOVED and len(batched) == len(arguments) and (placed := by_its_place(call, batched, rows)):
        return others, True, placed, PLACES
    certain = (
        others > FELT
        and len(batched) == len(arguments)
        and (
            (
                _is_a_mistake(call, batched, outputs, samples, targets)
                and not (pairwise and compares_samples(call, batched, samples))
            )
            or _is_of_no_sample(call, batched, base, samples)
        )
        and not is_a_sequence(call, batched, samples)
    )
    if certain and (line := left_in_another_order(call, samples)):
        return (
            others,
            True,
            line,
            "put the rows back into their order where they leave the model: output[order.argsort()]",
        )
    return others, certain, where, _mend(call, where, batched, base, samples) if certain else ""


def _mend(call: ModelCall, where: str, batched: list[tuple[str, Tensor]], base: list[Tensor], samples: int) -> str:
    """What to change: the argument that is in another order, how a layer was built, or an operation with its line."""
    alone = [name for name, t in batched if _moved(call, {id(t): first_exchanged(t)}, base, samples)[0] > MOVED]
    if len(alone) == 1 < len(batched):
        return f"{alone[0]} alone moves other samples: take every sample's own row of it"
    module = dict(call.module.named_modules()).get(where, call.module)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        if module.running_mean is None:
            return f"build {where} with track_running_stats=True: it has nothing but the batch to normalise by"
        return f"let model.eval() reach {where}: in evaluation mode too it normalises by the batch"
    if isinstance(first := getattr(module, "batch_first", None), bool):
        return f"build {where} with batch_first={not first}, or exchange the first two axes of what it is given"
    return _operation(call, module, {id(t): first_exchanged(t) for _, t in batched}, samples)


def _operation(call: ModelCall, module: nn.Module, changed: dict[int, Tensor], samples: int) -> str:
    """The first operation within a module of which rows of other samples move, or the one that takes axis 0 away."""
    plain: list[Tensor] = []
    made: list[Tensor] = []  # of the second pass; kept, so that an id stays one tensor's
    moved: set[int] = set()
    found: list[str] = []
    away: list[str] = []
    reduced: dict[int, str] = {}  # what has no axis of samples any more, by the operation that took it away
    inside: list[bool] = []
    second: list[bool] = []

    def told(name: str, frame: FrameType, args: Any, kwargs: Any, out: Any, kept: bool) -> None:
        if not inside or not is_real(out) or found:
            return
        if not second:
            plain.append(out.detach().clone())
            return
        made.append(out)
        given = [t for t in tensors_in([args, kwargs]) if is_real(t)]
        whole = all(t.dim() and t.shape[0] == samples for t in given[:1])
        called = " in ".join(filter(None, (f"{name}()", users_line(frame))))
        said = f"{called} makes {tuple(out.shape)} of {[tuple(t.shape) for t in given]}"
        if whole and out.dim() and out.shape[0] != samples:
            away.append(said)
            reduced[id(out)] = said
        if len(made) <= len(plain) and _others(plain[len(made) - 1], out, samples) > MOVED:
            if not moved.intersection(map(id, given)):
                by = next((reduced[id(t)] for t in given if id(t) in reduced), "")
                found.append(by or (said if whole or not away else away[-1]))
            moved.add(id(out))

    handles = (
        module.register_forward_pre_hook(lambda module, args: inside.append(True)),
        module.register_forward_hook(lambda module, args, out: inside.clear()),
    )
    try:
        with TorchFunctions(told, (), Questions()):
            call.again()
            second.append(True)
            call.again(lambda tensor: changed.get(id(tensor), tensor))
    finally:
        for handle in handles:
            handle.remove()
    return f"keep the samples on axis 0: {found[0]}" if found else ""


def _unlike_its_kind(call: ModelCall, samples: int) -> str:
    """A module that mixes all samples it is given, by its own code, though its kind keeps them apart."""

    def exchanged(tensor: Tensor) -> Tensor:
        return first_exchanged(tensor) if tensor.dim() and tensor.shape[0] == samples else tensor

    def least_moved(before: Tensor, after: Tensor) -> float:
        if before.dim() < 2 or before.shape[0] != samples or not before.numel():
            return 0.0
        size = float(before.double().square().mean().sqrt()) or 1.0
        return float((before[1:] - after[1:]).double().abs().flatten(1).amax(1).min()) / size

    return odd_one_out(call, exchanged, least_moved, lambda t: t.dim() > 1 and t.shape[0] == samples, _keeps_apart)


def odd_one_out(
    call: ModelCall,
    exchanged: Callable[[Tensor], Tensor],
    moved: Callable[[Tensor, Tensor], float],
    asked: Callable[[Tensor], bool],
    never: Callable[[nn.Module, list[Tensor]], bool],
    *,
    most: bool = True,
) -> str:
    """A module whose own code moves what it should not, though its kind does not; empty where there is none.

    Torch says so of a kind, or most other modules of the same class of this model do, or as many.

    Args:
        exchanged: what is done to everything that a module is given, and to what its parts return.
        moved: how far what must not move has, of two tensors of the same shape.
        asked: whether a tensor that a module is given has what is exchanged.
        never: whether a kind of module, given such tensors, moves nothing else.
        most: whether more modules of a class have to keep it apart than not, or as many will do.
    """

    def largest(before: list[Tensor], after: list[Tensor]) -> float:
        pairs = zip(before, after, strict=False)
        return max((moved(a, b.detach()) for a, b in pairs if is_real(a) and a.shape == b.shape), default=0.0)

    plain = own_answers(call.module, call.again)
    moving: dict[str, list[nn.Module]] = {}
    still: Counter[str] = Counter()
    for key, answer in own_answers(call.module, call.again, plain, exchanged, largest).items():
        given = plain[key].given if key in plain else []
        kind = type(answer.module).__name__  # a wrapper may have given one of them a class of its own
        if answer.gap > MOVED:
            moving.setdefault(kind, []).append(answer.module)
            if never(answer.module, given):
                return _name_of(call, answer.module)
        elif any(map(asked, given)) and any(map(asked, plain[key].output)):  # else it would not be seen
            still[kind] += 1
    found = (modules[0] for kind, modules in moving.items() if len(modules) < still[kind] + (not most))
    return next((_name_of(call, module) for module in found), "")


def _keeps_apart(module: nn.Module, given: list[Tensor]) -> bool:
    """Whether torch's own kind of layer reads every sample by itself in evaluation mode."""
    if isinstance(module, nn.LayerNorm):
        return bool(given) and given[0].dim() > len(module.normalized_shape)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return module.running_mean is not None
    return isinstance(module, (nn.Linear, nn.GroupNorm, nn.Embedding))


def _name_of(call: ModelCall, module: nn.Module) -> str:
    return next(name for name, each in call.module.named_modules() if each is module) or type(module).__name__


def _moved(call: ModelCall, changed: dict[int, Tensor], base: list[Tensor], samples: int) -> tuple[float, str]:
    """The largest movement of another sample's output, relative to its size, and the module that it arose in."""

    def exchanged(tensor: Tensor) -> Tensor:
        return changed.get(id(tensor), tensor)

    largest = max((_others(a, b, samples) for a, b in zip(base, call.again(exchanged), strict=False)), default=0.0)
    if largest <= MOVED:
        return largest, ""
    where = where_it_arises(call, exchanged, lambda a, b: _others(a, b, samples) > MOVED)
    return largest, where or type(call.module).__name__


def _others(before: Tensor, after: Tensor, samples: int) -> float:
    """How far rows of other samples than the first move, relative to the size of all."""
    if not before.dim() or before.shape[0] != samples or before.shape != after.shape or before.shape[0] < 2:
        return 0.0
    size = float(before.double().square().mean().sqrt()) or 1.0
    rest = (slice(1, None),) * (2 if before.shape[:2] == (samples, samples) else 1)  # a table of pairs
    gap = (before[rest] - after[rest]).double().abs()
    return float(gap.max()) / size if gap.numel() else 0.0


def _is_a_mistake(
    call: ModelCall, batched: list[tuple[str, Tensor]], outputs: list[Tensor], samples: int, targets: list[Tensor]
) -> bool:
    """Mixing that cannot be meant: no graph, no memory, no sequence along axis 0, no set of views."""
    buffers = [*call.module.buffers()]
    if any(
        b.dim() == 2 and (b.shape[0] == b.shape[1] == samples or (b.shape[0] == 2 and not b.is_floating_point()))
        for b in buffers
    ):
        return False
    square = any(t.dim() == 2 and t.shape[1] == samples for _, t in batched)
    if square and not takes_one_more(call, batched):  # it has a row and a column for each: of a graph
        return False
    answered = [t for t in targets if t.dim() and t.shape[0] % samples == 0]
    if any(not t.is_floating_point() and t.dim() == 1 for _, t in batched) and not answered:
        return False
    kinds = [type(module) for module in call.module.modules()]
    relational = any(issubclass(kind, RELATIONAL[:2]) for kind in kinds)
    if all(t.dim() <= 2 and t.is_floating_point() for _, t in batched):
        return not any(issubclass(kind, RELATIONAL) for kind in kinds)
    sequences = [t for _, t in batched if t.dim() >= 3 or (t.dim() == 2 and not t.is_floating_point())]
    if not sequences or not answered:
        return False
    seconds = {t.shape[1] for t in sequences}
    dropped = all(t.shape[0] == samples and (t.dim() == 1 or t.shape[1] not in seconds) for t in answered)
    widest = max(t.dim() for t in sequences)
    if dropped and (relational or widest <= 3):
        return True  # an answer per row of axis 0 and none per row of axis 1: axis 0 holds the samples
    if widest >= 4:
        return dropped and not equivariant(call, batched, samples)
    return any(_along_both(call, each, outputs) for each in sequences)


def _along_both(call: ModelCall, tensor: Tensor, outputs: list[Tensor]) -> bool:
    """Whether outputs also depend on other places of axis 1: then axis 0 is not the time of a (T, B, ...) layout."""
    places = [o for o in outputs if o.dim() > 2 and o.shape[1] == tensor.shape[1] > 2]
    if not places:
        return False
    changed = tensor.detach().clone()
    changed[:, 0] = changed[:, -1] * 0.7 + 0.1 if tensor.is_floating_point() else changed[:, -1]
    base, other = call.again(), call.again(lambda t: changed if t is tensor else t)
    pairs = [(a, b) for a, b in zip(base, other, strict=False) if a.dim() > 2 and a.shape[:2] == tensor.shape[:2]]
    return any(float((a - b)[:, 1:].abs().max()) > MOVED * float(a.abs().max()) for a, b in pairs)


def _is_of_no_sample(call: ModelCall, batched: list[tuple[str, Tensor]], base: list[Tensor], samples: int) -> bool:
    """Whether rows of the outputs differ and yet stay where they are when the samples are turned around.

    Axis 0 has to be that of the samples for certain: a layer says so that was built with ``batch_first``.
    """
    first = any(getattr(module, "batch_first", False) is True for module in call.module.modules())
    if not first or not any(t.dim() >= 2 and t.shape[1] == samples for _, t in batched):
        return False
    turned = {id(t): t.detach().flip(0) for _, t in batched}
    other = call.again(lambda t: turned.get(id(t), t))
    pairs = [(a, b) for a, b in zip(base, other, strict=False) if a.dim() and a.shape[0] == samples]
    return bool(pairs) and all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))
        and float((a - a[:1]).abs().max()) > 1e-2 * float(a.abs().max())
        for a, b in pairs
    )


def _mixed_in_pairs(
    call: ModelCall, batched: list[tuple[str, Tensor]], base: list[Tensor], samples: int
) -> float | None:
    """How far entries (i, j) of an output (B, B) move with an input of a third sample; None where that can be meant.

    It is meant where samples attend to each other, and where rows or columns are shifted or scaled as a whole: a
    softmax, a mean that is taken off.
    """
    images = [(name, t) for name, t in batched if t.dim() == 4 and t.is_floating_point()]
    whole = all(t.dim() == 4 or (t.dim() == 2 and not t.is_floating_point()) for _, t in batched)
    related = any(isinstance(m, RELATIONAL[:2]) or "Attention" in type(m).__name__ for m in call.module.modules())
    if len(base) != 1 or base[0].shape != (samples, samples) or samples < 4 or len(batched) < 2:
        return None
    if not images or not whole or related:
        return None
    for _, tensor in batched:
        changed = first_exchanged(tensor)
        (other,) = call.again(partial(one_exchanged, tensor, changed))
        before, after = base[0][1:, 1:].double(), other[1:, 1:].double()
        moved = float((after - before).abs().max()) / (float(base[0].abs().max()) or 1.0)
        if moved > 10 * MOVED and not _as_a_whole(before, after):
            return moved
    return None


def _as_a_whole(before: Tensor, after: Tensor) -> bool:
    """Whether rows, or columns, are shifted or scaled by one number each."""
    shift, ratio = after - before, after / before
    spans = (
        (change - change.mean(axis, keepdim=True)).abs().max() / change.abs().max()
        for change in (shift, ratio)
        for axis in (0, 1)
    )
    return any(bool(span < 1e-3) for span in spans)
