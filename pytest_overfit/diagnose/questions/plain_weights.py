"""Weights of layers that are attributes of their module, and no parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pytest_overfit.diagnose.operation import PlainWeight
from pytest_overfit.diagnose.questions.tensors import is_real

AFFINE = frozenset({"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
OPERANDS = (("weight", 1), ("bias", 2))  # by their place


class PlainWeights:
    """Asks the operations of a step for them.

    Args:
        modules: by name, as regions are named.
        parameters: the names of the model's, by their id.
    """

    def __init__(self, modules: Mapping[str, nn.Module], parameters: Mapping[int, str]) -> None:
        self.modules, self.parameters = modules, parameters

    def called(self, name: str, region: str, args: Any, kwargs: Any) -> PlainWeight | None:
        """The weight of an operation, where it is such a one beside a bias that learns."""
        if name not in AFFINE or (module := self.modules.get(region)) is None:
            return None
        weight, bias = (kwargs.get(key, args[at] if len(args) > at else None) for key, at in OPERANDS)
        if (
            not isinstance(weight, Tensor)
            or not is_real(weight)
            or weight.requires_grad
            or not isinstance(bias, Tensor)
        ):
            return None
        if not bias.requires_grad or id(bias) not in self.parameters:
            return None
        held = next((held for held, each in vars(module).items() if each is weight), None)
        if held is None:
            return None
        return PlainWeight(f"{region}.{held}", self.parameters[id(bias)], tuple(weight.shape))
