"""Measurements of single tensors, as plain numbers. Each is a host-device sync."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.untrusted.objects import contents, is_a, state

MOST_ELEMENTS = 200_000  # of one look: a larger tensor is looked at in strides
_THROUGH = ("View", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Permute", "Slice", "Select", "Index", "Clone",
            "Expand", "TBackward", "Flatten", "Alias", "ToCopy", "Masked", "Unbind", "Split", "Chunk", "Stack",
            "Contiguous", "AsStrided", "Unflatten", "UnsafeView")  # fmt: skip


def sampled(tensor: Tensor) -> Tensor:
    """The elements of a tensor as float64 on the CPU, at most ``MOST_ELEMENTS`` of them."""
    numbers = numbers_of(tensor)
    if numbers is None:
        return torch.zeros(0, dtype=torch.float64)
    flat = numbers.reshape(-1)
    if flat.numel() > MOST_ELEMENTS:
        flat = flat[:: math.ceil(flat.numel() / MOST_ELEMENTS)]
    return flat.to("cpu", torch.float64)


def size_of(tensor: Tensor) -> float:
    """Root mean square; of a sparse tensor that of the elements that it keeps."""
    found = sampled(tensor)
    return float(found.square().mean().sqrt()) if found.numel() else 0.0


def is_real(thing: Any) -> bool:
    return is_dense(thing) and thing.is_floating_point()


def spread(tensor: Tensor, samples: int | None) -> float | None:
    """Largest deviation over the samples (axis 0) relative to the tensor's size; None where axis 0 is no such axis."""
    if samples is None or samples < 2 or tensor.dim() == 0 or tensor.shape[0] != samples or not tensor.numel():
        return None
    flat = tensor.detach().reshape(samples, -1)
    if flat.shape[1] > 20_000:
        flat = flat[:, :: math.ceil(flat.shape[1] / 20_000)]
    flat = flat.double()
    deviation, size = float(flat.std(0).max()), float(flat.square().mean().sqrt())
    return deviation / size if size > 0 else 0.0


def made_by(thing: Any) -> Any:
    """The node of the graph that made a tensor; None of a leaf, and of what has none.

    None too of a view that ``no_grad`` made and whose base was changed in place since: PyTorch forbids to ask.

    Example:
        >>> made_by(torch.ones(2, requires_grad=True) + 1).name()
        'AddBackward0'
    """
    try:
        return getattr(thing, "grad_fn", None)
    except RuntimeError:
        return None


def final_operation(tensor: Any) -> str:
    """The autograd name of the operation that made a tensor, reshapes and the like looked through."""
    node = made_by(tensor)
    for _ in range(12):
        if node is None:
            return ""
        name = node.name()
        if not name.startswith(_THROUGH):
            return str(name).removesuffix("0").removesuffix("Backward")
        following = [after for after, _ in node.next_functions if after is not None]
        if len(following) != 1:
            return ""
        node = following[0]
    return ""


def summed(node: Any) -> int:
    """Over how many elements a node of the graph adds up; 1 of a mean."""
    if node.name().startswith("Sum"):
        return math.prod(node._saved_self_sym_sizes)
    of = getattr(node, "_saved_target", getattr(node, "_saved_self", None))
    return of.numel() if getattr(node, "_saved_reduction", 1) == 2 and of is not None else 1


def averaged(node: Any) -> int:
    """Of how many elements a node of the graph takes the mean; 0 of another one."""
    if node.name().startswith("Mean"):
        return math.prod(node._saved_self_sym_sizes)
    of = getattr(node, "_saved_target", getattr(node, "_saved_self", None))
    return of.numel() if getattr(node, "_saved_reduction", 0) == 1 and of is not None else 0


def graph_nodes(root: Any, most: int = 50_000) -> Iterator[Any]:
    """Every node of an autograd graph, nearest the root first: a tensor, or a node itself."""
    seen: set[Any] = set()
    queue = [made_by(root) if is_a(root, Tensor) else root]
    for node in queue:
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if len(seen) >= most:
            return
        queue.extend(after for after, _ in node.next_functions)


def tensors_in(nest: Any, depth: int = 4) -> Iterator[Tensor]:
    """The tensors of a nest of mappings, lists and objects that can be computed with: see ``is_dense``."""
    if is_a(nest, Tensor):
        if is_dense(nest):
            yield nest
    elif depth and not is_a(nest, torch.nn.Module):
        for value in contents(nest) or state(nest).values():
            yield from tensors_in(value, depth - 1)


def shows_all(nest: Any, depth: int = 4) -> bool:
    """Whether ``tensors_in`` sees all that a nest can give: it holds nothing that computes when it is asked.

    Example:
        >>> shows_all({"mean": torch.zeros(2)}), shows_all([torch.zeros(2), lambda x: x + 1])
        (True, False)
    """
    if nest is None or is_a(nest, Tensor, str, bytes, int, float, complex, type):
        return True
    if callable(nest):
        return False
    held = list(contents(nest) or state(nest).values())
    return all(shows_all(value, depth - 1) for value in held) if depth else not held


def dense_tensors(batch: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a batch that can be computed with, with their dotted keys; of those of a class their numbers."""
    found = ((key, tensor, numbers_of(tensor)) for key, tensor in named_tensors(batch) if is_dense(tensor))
    return [
        (key, tensor if type(tensor) is Tensor else numbers) for key, tensor, numbers in found if numbers is not None
    ]


def lives(gradient: Tensor | None) -> bool:
    """Whether a gradient, sparse or not, is there and has an element that is not zero."""
    numbers = None if gradient is None else numbers_of(gradient)
    return numbers is not None and bool((numbers != 0).any())


def first_bad_index(tensor: Tensor) -> tuple[int, ...] | None:
    """Where the first NaN or infinity lies."""
    bad = (~torch.isfinite(tensor.detach())).nonzero()
    return tuple(int(i) for i in bad[0]) if len(bad) else None
