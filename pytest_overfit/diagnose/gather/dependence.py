"""What the outputs of a model depend on: each argument, each view, the other samples, the future, each column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.gather.roots import RootCall, exchanged_in
from pytest_overfit.diagnose.gather.tensors import is_real, tensors_in
from pytest_overfit.run.influence import perturbed

MOVED = 1e-4  # relative: two batches of another make-up round differently
RELATIONAL = (nn.RNNBase, nn.MultiheadAttention, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.TransformerEncoderLayer)


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
    mixed, certain, where = _mixing(call, arguments, base, samples, targets, pairwise)
    causal: str = ""
    leaks: tuple[tuple[str, str], ...] = ()
    for name, tensor in arguments:
        causal, leaks = _order(call, name, tensor, base, targets)
        if causal or leaks:
            break
    return Dependence(
        ignored, slices, columns, mixed, certain, where, causal, (*leaks, *_copied(arguments, targets, base))
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


def _mixing(
    call: RootCall,
    arguments: list[tuple[str, Tensor]],
    base: list[Tensor],
    samples: int | None,
    targets: list[Tensor],
    pairwise: bool,
) -> tuple[float | None, bool, str]:
    """How far the outputs of the other samples move when the first one is exchanged, and whether that is a mistake."""
    if samples is None or not arguments:
        return None, False, ""
    batched = [(name, t) for name, t in arguments if t.dim() and t.shape[0] == samples]
    if len(batched) == len(arguments) and (pairs := _mixed_in_pairs(call, batched, base, samples)):
        return pairs, True, type(call.module).__name__
    wide = any(isinstance(m, nn.Linear) and m.out_features == samples for m in call.module.modules())
    outputs = [t for t in base if t.dim() and t.shape[0] == samples and (wide or samples not in t.shape[1:])]
    if not batched or not outputs:
        return None, False, ""
    moved = _moved(call, {id(t): _first_exchanged(t) for _, t in batched}, samples)
    if moved is None:
        return None, False, ""
    others, where = moved
    certain = (
        others > MOVED
        and len(batched) == len(arguments)
        and (
            (not pairwise and _is_a_mistake(call, batched, outputs, samples, targets))
            or _is_of_no_sample(call, batched, base, samples)
        )
    )
    return others, certain, where


def _one_exchanged(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    return new if tensor is old else tensor


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _moved(call: RootCall, changed: dict[int, Tensor], samples: int) -> tuple[float, str] | None:
    """The largest movement of another sample's output, relative to its size, and the module that it arose in."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    names: list[str] = []

    def record(store: list[Tensor]) -> list[Any]:
        def hook(name: str) -> Any:
            def heard(module: nn.Module, args: Any, output: Any) -> None:
                first = output[0] if isinstance(output, tuple) and output else output  # a recurrent layer's
                if is_real(first) and first.dim() and first.shape[0] == samples:
                    store.append(first.detach())
                    names.append(name)

            return heard

        return [module.register_forward_hook(hook(name)) for name, module in call.module.named_modules()]

    def exchanged(tensor: Tensor) -> Tensor:
        return changed.get(id(tensor), tensor)

    try:
        for store, change in ((before, _as_it_is), (after, exchanged)):
            handles = record(store)
            try:
                call.again(change)
            finally:
                for handle in handles:
                    handle.remove()
    except Exception:
        return None
    if len(before) != len(after) or not before:
        return None
    largest, where = 0.0, ""
    for a, b, name in zip(before, after, names, strict=False):
        size = float(a.double().square().mean().sqrt()) or 1.0
        moved = float((a[1:] - b[1:]).double().abs().max()) / size if a.shape == b.shape else 0.0
        if moved > MOVED and not where:
            where = name or type(call.module).__name__
    last_a, last_b = before[-1], after[-1]
    size = float(last_a.double().square().mean().sqrt()) or 1.0
    largest = float((last_a[1:] - last_b[1:]).double().abs().max()) / size
    return largest, where


def _first_exchanged(tensor: Tensor) -> Tensor:
    changed = tensor.detach().clone()
    changed[0] = tensor[tensor.shape[0] // 2] if tensor.shape[0] > 1 else tensor[0]
    if tensor.is_floating_point():
        changed[0] = changed[0] * 0.7 + 0.1
    return changed


def _is_a_mistake(
    call: RootCall, batched: list[tuple[str, Tensor]], outputs: list[Tensor], samples: int, targets: list[Tensor]
) -> bool:
    """Mixing that cannot be meant: no graph, no memory, no sequence along axis 0, no set of views."""
    buffers = [*call.module.buffers()]
    if any(
        b.dim() == 2 and (b.shape[0] == b.shape[1] == samples or (b.shape[0] == 2 and not b.is_floating_point()))
        for b in buffers
    ):
        return False
    if any(t.dim() == 2 and t.shape[1] == samples for _, t in batched):
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
        return dropped and not _equivariant(call, batched, samples)
    return _along_both(call, sequences[-1], outputs)


def _is_of_no_sample(call: RootCall, batched: list[tuple[str, Tensor]], base: list[Tensor], samples: int) -> bool:
    """Whether rows of the outputs differ and yet stay where they are when the samples are turned around.

    Axis 0 has to be that of the samples for certain: a layer says so that was built with ``batch_first``.
    """
    first = any(getattr(module, "batch_first", False) is True for module in call.module.modules())
    if not first or not any(t.dim() >= 2 and t.shape[1] == samples for _, t in batched):
        return False
    turned = {id(t): t.detach().flip(0) for _, t in batched}
    try:
        other = call.again(lambda t: turned.get(id(t), t))
    except Exception:
        return False
    pairs = [(a, b) for a, b in zip(base, other, strict=False) if a.dim() and a.shape[0] == samples]
    return bool(pairs) and all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))
        and float((a - a[:1]).abs().max()) > 1e-2 * float(a.abs().max())
        for a, b in pairs
    )


def _mixed_in_pairs(
    call: RootCall, batched: list[tuple[str, Tensor]], base: list[Tensor], samples: int
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
        changed = _first_exchanged(tensor)
        try:
            (other,) = call.again(partial(_one_exchanged, tensor, changed))
        except Exception:
            return None
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


def _along_both(call: RootCall, tensor: Tensor, outputs: list[Tensor]) -> bool:
    """Whether outputs also depend on other places of axis 1: then axis 0 is not the time of a (T, B, ...) layout."""
    places = [o for o in outputs if o.dim() > 2 and o.shape[1] == tensor.shape[1] > 2]
    if not places:
        return False
    changed = tensor.detach().clone()
    changed[:, 0] = changed[:, -1] * 0.7 + 0.1 if tensor.is_floating_point() else changed[:, -1]
    try:
        base, other = call.again(), call.again(lambda t: changed if t is tensor else t)
    except Exception:
        return False
    pairs = [(a, b) for a, b in zip(base, other, strict=False) if a.dim() > 2 and a.shape[:2] == tensor.shape[:2]]
    return any(float((a - b)[:, 1:].abs().max()) > MOVED * float(a.abs().max()) for a, b in pairs)


def _equivariant(call: RootCall, batched: list[tuple[str, Tensor]], samples: int) -> bool:
    """Whether turning the order of the samples only turns the order of the outputs."""
    turned = {id(t): t.detach().flip(0) for _, t in batched}
    try:
        base, other = call.again(), call.again(lambda t: turned.get(id(t), t))
    except Exception:
        return True
    return all(
        not (a.dim() and a.shape[0] == samples)
        or torch.allclose(a.flip(0), b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))
        for a, b in zip(base, other, strict=False)
    )


def _order(
    call: RootCall, name: str, tensor: Tensor, base: list[Tensor], targets: list[Tensor]
) -> tuple[str, tuple[tuple[str, str], ...]]:
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
    moved = _moved_places(call, tensor, axes, output, middle)
    if moved is None:
        return "", ()
    before, at, after = bool(moved[:middle].any()), bool(moved[middle]), bool(moved[middle + 1 :].any())
    if relation == "next":
        # Changing place m is changing the answer of place m - 1.
        if bool(moved[middle - 1]):
            return "", (
                (
                    f"{name} at place {middle}",
                    f"the output at place {middle - 1}, which has to predict it, changes with it",
                ),
            )
        return (name, ()) if not before and (at or after) else ("", ())
    if not before and after and at:  # reads only what comes before, and the place itself, which is the answer
        return name, (
            (
                f"{name} at place {middle}",
                "every output has to predict the very value that it reads, and reads nothing later",
            ),
        )
    return ("" if before else name), ()


def _places(tensor: Tensor, base: list[Tensor]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], int] | None:
    """The axes of places in an argument and in an output: (B, T[, D]) or (B, C, H, W)."""
    for index, output in enumerate(base):
        if output.dim() < 2 or output.shape[0] != tensor.shape[0]:
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


def _moved_places(call: RootCall, tensor: Tensor, axes: Any, output: int, place: int) -> Tensor | None:
    """Which places of the output move when one place of the argument is changed in every sample."""
    changed = tensor.detach().clone()
    flat = changed.movedim(axes[0], tuple(range(len(axes[0]))))
    index = (place,) if len(axes[0]) == 1 else (place // flat.shape[1], place % flat.shape[1])
    here = flat[index]
    other = tensor.detach().reshape(-1)
    if tensor.is_floating_point():
        here.add_(0.37 * (float(other.double().std()) or 1.0))
    else:
        replacement = torch.where(here == other.max(), other.min(), other.max())
        here.copy_(replacement)
    try:
        before = call.again()[output]
        after = call.again(lambda t: changed if t is tensor else t)[output]
    except Exception:
        return None
    if before.shape != after.shape:
        return None
    gap = (before - after).abs().movedim(axes[1], tuple(range(len(axes[1]))))
    gap = gap.flatten(0, len(axes[1]) - 1).flatten(1).amax(1)
    size = float(before.abs().max()) or 1.0
    return gap > 1e-6 * size


def _relation(tensor: Tensor, axes: tuple[int, ...], target: Tensor) -> str:
    """Whether the targets are the argument itself ("same"), or its next place ("next"); empty where neither."""
    given, wanted = tensor.detach().double(), target.detach().double()
    if given.numel() == wanted.numel() and _alike(given.reshape(-1), wanted.reshape(-1)):
        return "same"
    if len(axes) != 1:
        return ""
    axis = axes[0]
    count = given.shape[axis] - 1
    later = given.narrow(axis, 1, count).reshape(-1)
    if given.numel() == wanted.numel():
        wanted = wanted.reshape(given.shape).narrow(axis, 0, count).reshape(-1)
    if later.numel() != wanted.numel():
        return ""
    if _alike(later, wanted.reshape(-1)):
        return "next"
    return "same" if _alike(given.narrow(axis, 0, count).reshape(-1), wanted.reshape(-1)) else ""


def _alike(a: Tensor, b: Tensor) -> bool:
    """Equal, or one a rising line of the other (levels of a quantised image)."""
    kept = b != -100
    a, b = a[kept], b[kept]
    if a.numel() < 4 or float(a.std()) == 0 or float(b.std()) == 0:
        return False
    if torch.equal(a, b):
        return True
    correlation = float(((a - a.mean()) * (b - b.mean())).mean() / (a.std(correction=0) * b.std(correction=0)))
    return correlation > 0.9999


def _copied(
    arguments: list[tuple[str, Tensor]], targets: list[Tensor], base: list[Tensor]
) -> Iterator[tuple[str, str]]:
    """An argument beside others, or a column of one, that is what the loss compares with."""
    for target in targets:
        wanted = target.detach().double()
        if wanted.numel() < 4 or (len(torch.unique(wanted)) < 4 and wanted.numel() < 8):
            continue
        answers = [o for o in base if o.shape == target.shape or (target.dim() == 1 and o.shape[:1] == target.shape)]
        if not answers:  # another model's output is compared with it: a discriminator may see the truth
            continue
        for name, tensor in arguments:
            given = tensor.detach().double()
            single = len(arguments) > 1 and len(base) == 1 and base[0].shape == target.shape
            if single and given.shape == wanted.shape and torch.equal(given, wanted) and tensor.is_floating_point():
                yield name, "an argument of the model is the very tensor that its output is compared with"
            elif (
                tensor.dim() == 2
                and tensor.is_floating_point()
                and wanted.dim()
                and wanted.numel() == len(tensor)
                and given.shape[1] > 1
            ):
                column = (given == wanted.reshape(-1, 1)).all(0)
                if bool(column.any()) and len(torch.unique(wanted)) > 3:
                    yield f"{name}[:, {int(column.nonzero()[0])}]", "a column of the input is the target itself"
            elif (
                tensor.dim() == wanted.dim() == 2
                and target.is_floating_point()
                and given.shape[0] == wanted.shape[0]
                and 1 <= wanted.shape[1] < given.shape[1]
                and len(torch.unique(wanted)) > 3
            ):
                hits = [bool((given == wanted[:, i : i + 1]).all(0).any()) for i in range(wanted.shape[1])]
                if all(hits):
                    yield name, "columns of the input are the target itself"


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
