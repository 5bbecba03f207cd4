"""What the trained model returns, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pytest_overfit.diagnose.evidence import Output
from pytest_overfit.diagnose.questions.tensors import final_operation, is_real, made_by, spread
from pytest_overfit.run.elements import numbers_of
from pytest_overfit.run.task import Heard

MOST_OUTPUTS = 12
MOST_NODES = 200
LAYERS = frozenset({"Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Convolution"})
LINEAR = frozenset({
    "Mul", "Add", "Sub", "Rsub", "Div", "Neg", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Select",
    "Slice", "Split", "SplitWithSizes", "Unbind", "Permute", "Transpose", "T", "Clone", "Alias", "ToCopy", "Expand",
    "Cat", "Stack", "Index", "Narrow", "Flip",
})  # fmt: skip
MOST_COLUMNS = 64  # of an output whose columns are numbers of their own, such as a pose or scores


def measure_outputs(heard: Heard, gradients: Mapping[str, Tensor], samples: int | None) -> tuple[Output, ...]:
    """Range, spread and gradient of every output of more than one number."""
    found = []
    for name, tensor in heard[:MOST_OUTPUTS]:
        if not is_real(tensor) or tensor.numel() < 2:
            continue
        gradient = gradients.get(name)
        plain = numbers_of(tensor)  # without the class that it may have
        if plain is None:
            continue
        within = (
            plain.dim() > 1
            and plain.shape[0] > 0
            and plain[0].numel() > 8
            and bool((plain.reshape(plain.shape[0], -1) == plain.reshape(plain.shape[0], -1)[:, :1]).all())
        )
        found.append(
            Output(
                name=name,
                shape=tuple(plain.shape),
                low=float(plain.min()),
                high=float(plain.max()),
                spread=spread(plain, samples),
                final=final_operation(tensor),
                gradient=None if gradient is None else float(gradient.detach().abs().max()),
                constant_within=within,
                alike_along=_alike_along(plain),
                squashed=_squashed(tensor),
                shut=() if gradient is None else _shut(plain, gradient.detach()),
            )
        )
    return tuple(found)


def _squashed(output: Tensor) -> tuple[str, ...] | None:
    """The operations that an output is made of by scaling, shifting and laying out alone."""
    queue, found = [made_by(output)], dict[str, None]()
    for node in queue:
        if node is None or len(queue) > MOST_NODES:
            continue
        name = node.name().partition("Backward")[0]
        if name in LINEAR:
            queue.extend(after for after, _ in node.next_functions)
        else:
            found[name.lower()] = None
    return tuple(found) or None


def last_layers(heard: Heard, names: Mapping[int, str]) -> tuple[str, ...]:
    """The parameters of the layers that outputs are made by, with no other layer behind them.

    Args:
        names: of the parameters, by their ids.
    """
    queue, found, seen = [(made_by(tensor), False) for _, tensor in heard[:MOST_OUTPUTS]], dict[str, None](), set[Any]()
    for node, within in queue:
        if node is None or (node, within) in seen or len(queue) > 50 * MOST_NODES:
            continue
        seen.add((node, within))
        if (name := names.get(id(getattr(node, "variable", None)))) is not None:
            found[name] = None
        layer = node.name().partition("Backward")[0] in LAYERS
        if not (layer and within):  # a layer behind a layer is none of the last
            queue.extend((after, within or layer) for after, _ in node.next_functions)
    return tuple(found)


def _shut(output: Tensor, gradient: Tensor) -> tuple[int, ...]:
    """The columns that are 0 in every row, where no row would be made better by less and one would be by more."""
    if output.dim() < 2 or output.shape[-1] > MOST_COLUMNS or gradient.shape != output.shape:
        return ()
    columns, pulls = output.reshape(-1, output.shape[-1]), gradient.reshape(-1, output.shape[-1])
    found = (columns == 0).all(0) & (pulls <= 0).all(0) & (pulls < 0).any(0)
    return tuple(int(column) for column in found.nonzero().flatten())


def _alike_along(output: Tensor) -> int | None:
    """The first axis, but that of the samples and the last, along which all entries of an output are the same."""
    for axis in range(1, output.dim() - 1):
        if output.shape[axis] > 1:
            first = output.narrow(axis, 0, 1)
            if bool(((output - first).abs() <= 1e-6 * float(output.abs().max())).all()):
                return axis
    return None
