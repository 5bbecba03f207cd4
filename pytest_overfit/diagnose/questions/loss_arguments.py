"""Which argument of a loss is which, and which of them the model has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pytest_overfit.diagnose.questions.tensors import is_real

# Of losses in which the two mean different things, what they take in their order; the target is the second.
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
         "soft_margin_loss", "multi_margin_loss", "poisson_nll_loss"),
        ("input", "target"),
    ),
    "gaussian_nll_loss": ("input", "target", "var"),
}  # fmt: skip


def exchanged_with_target(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The argument in whose place the target stands: the only one without a gradient, where the target has one.

    Logarithms of probabilities are an input of ``kl_div`` whoever made them: the divergence is read the other way.
    """
    places = ARGUMENTS.get(name, ())
    given = {key: args[at] if at < len(args) else kwargs.get(key) for at, key in enumerate(places)}
    tensors = {key: tensor for key, tensor in given.items() if isinstance(tensor, Tensor)}
    if "target" not in tensors or not tensors["target"].requires_grad:
        return ""
    still = [key for key, tensor in tensors.items() if not tensor.requires_grad]
    if name == "kl_div" and "input" in tensors and (kwargs.get("log_target") or bool((tensors["input"] <= 0).all())):
        return ""
    return still[0] if len(still) == 1 else ""


def adds_target(outputs: Sequence[Tensor], predicted: Tensor, target: Tensor) -> bool:
    """A prediction that is an output and the target itself: what is compared is the output with zero."""
    if predicted.shape != target.shape or not is_real(predicted) or not is_real(target) or predicted.numel() < 4:
        return False
    size = float(target.abs().max())
    for output in outputs:
        alike = size > 0 and output.shape == predicted.shape and float(output.abs().max()) > 1e-3 * size
        if alike and float((predicted - target - output).abs().max()) <= 1e-5 * size:
            return True
    return False
