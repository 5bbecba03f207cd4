"""What an attention sums over, against what its softmax runs over: the weights of every sum are to add up to 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pytest_overfit.diagnose.operation import WeightedSum
from pytest_overfit.diagnose.questions.tensors import is_real

KEEPING = ("dropout", "to", "type_as", "float", "half", "contiguous", "clone")  # what leaves the axes as they are
PRODUCTS = ("matmul", "__matmul__", "bmm")
ON_THE_WAY = ("Div", "Mul", "Add", "Sub", "Masked", "Where", "View", "Reshape", "UnsafeView", "Expand", "ToCopy",
              "Clone", "Tanh", "Squeeze", "Unsqueeze", "Permute", "Transpose")  # fmt: skip
MOST_NODES = 40
OFF = 0.05  # of 1: what rounding in half precision does not make


class WeightedSums:
    """Follows the weights of attentions that are written out, from their softmax to the sum of the values."""

    def __init__(self) -> None:
        self.weights: dict[int, tuple[Tensor, int]] = {}  # with the axis that their softmax ran over

    def called(self, name: str, args: Any, kwargs: Any, out: Any) -> WeightedSum | None:
        """What an operation sums by weights that add up to 1 along another axis; None where it does no such thing."""
        if not args or not isinstance(out, Tensor) or not is_real(out):
            return None
        given = [each for each in args if isinstance(each, Tensor)]
        if name == "softmax" and out.dim() > 2 and given and _is_scored(given[0]):
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if isinstance(axis, int):
                self.weights[id(out)] = out, axis % out.dim()
        known = self.weights.get(id(given[0])) if given else None
        if known is None:
            return None
        weights, axis = known
        if name in KEEPING and out.shape == weights.shape:
            self.weights[id(out)] = out, axis
        summed = _summed(name, args, weights)
        values = next((each for each in given if each is not given[0]), None)
        if summed is None or summed == axis or values is None or isinstance(values, nn.Parameter):  # it mixes heads
            return None
        sums = weights.detach().double().sum(summed)
        low, high = float(sums.min()), float(sums.max())
        return WeightedSum(axis, summed, low, high) if max(1 - low, high - 1) > OFF else None


def _summed(name: str, args: Any, weights: Tensor) -> int | None:
    """The axis of its first operand that a product sums over."""
    if name in PRODUCTS:
        return weights.dim() - 1
    if name != "einsum" or not isinstance(args[0], str):
        return None
    terms, arrow, result = args[0].replace(" ", "").partition("->")
    first = terms.partition(",")[0]
    gone = [place for place, letter in enumerate(first) if letter not in result]
    return gone[0] if arrow and len(gone) == 1 and len(first) == weights.dim() and first.isalpha() else None


def _is_scored(logits: Tensor) -> bool:
    """Whether the logits are a product of two things that are both computed, as queries and keys are."""
    queue: list[Any] = [logits.grad_fn]
    for node in queue:
        name = "" if node is None else node.name()
        if name.startswith("Bmm"):
            made = [after for after, _ in node.next_functions]
            return not any(after is None or hasattr(after, "variable") for after in made)
        if name.startswith(ON_THE_WAY) and len(queue) < MOST_NODES:
            queue += [after for after, _ in node.next_functions]
    return False
