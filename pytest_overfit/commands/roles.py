"""What the functions of a repository are for, by name and body, and how each is called with what a test has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

from pytest_overfit.commands.repository import Function

MODELS = ("model", "net", "network", "module")
BATCHES = ("batch", "data", "sample", "samples")
INPUTS = ("x", "xb", "inputs", "input", "images", "image", "features", "tokens", "input_ids", "src", "data")
TARGETS = ("y", "yb", "targets", "target", "labels", "label", "tgt")
OUTPUTS = ("logits", "outputs", "output", "pred", "preds", "prediction", "predictions", "scores", "y_pred", "y_hat")
OPTIMIZERS = ("optimizer", "optim", "opt")
CRITERIA = ("criterion", "loss_fn", "loss_func", "loss_function", "loss")
PARAMETERS = ("params", "parameters")
FUNCTIONAL_LOSSES = (
    *("cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "nll_loss"),
    *("binary_cross_entropy_with_logits", "binary_cross_entropy"),
)
MEASURES = re.compile("eval|valid|test|metric|accuracy|forward|train", re.IGNORECASE)
LIKE_A_BATCH = "batch[0]", "batch[1]"


def is_step(function: Function) -> bool:
    """One step of training: backward and update, outside of a loop, and it returns what it has seen."""
    trains = {"backward", "step"} <= function.calls and not function.loops
    return trains and function.returned is not None


def is_loss(function: Function) -> bool:
    """The loss of a batch, or of outputs and targets: called so, or what calls one."""
    losing = "loss" in function.name.lower() or any(map(is_loss_name, function.calls))
    other = {"backward", "eval", "no_grad", "inference_mode"} & function.calls
    return losing and function.returned is not None and not other and not MEASURES.search(function.name)


def is_loss_name(name: str) -> bool:
    """Whether it is a loss of torch, or called like one."""
    return name.endswith("Loss") or name in FUNCTIONAL_LOSSES


def is_loader(function: Function) -> bool:
    """What gives a loader, or several."""
    made = "DataLoader" in function.calls or "loader" in function.name.lower()
    return made and function.returned is not None and "backward" not in function.calls


def is_optimizer(function: Function) -> bool:
    """What gives an optimizer of a model, or of its parameters."""
    return "optim" in function.name.lower() and function.returned is not None and "step" not in function.calls


def foremost(functions: Iterable[Function]) -> list[Function]:
    """Those that no other one of them calls."""
    listed = list(functions)
    return [each for each in listed if not any(each.name in other.calls for other in listed if other is not each)]


def as_loss(function: Function) -> str:
    """The name of a function that ``overfit`` takes as a loss as it is; empty where it is none."""
    match function.required:
        case (first, second) if first in MODELS and second in BATCHES + INPUTS:
            return function.called
        case (first, second) if first in OUTPUTS + INPUTS and second in TARGETS:
            return function.called
    return ""


def as_step(function: Function) -> str:
    """The name of a function that ``overfit`` takes as a step as it is; empty where it is none."""
    match function.required:
        case (model, batch, *rest) if model in MODELS and batch in BATCHES and len(rest) < 2:
            return function.called if all(each in OPTIMIZERS for each in rest) else ""
    return ""


def as_called(function: Function, criterion: str = "") -> str:
    """The call of a function by ``model``, ``batch`` and ``optimizer``; empty where it wants something else."""
    given = dict.fromkeys(MODELS, "model") | dict.fromkeys(OPTIMIZERS, "optimizer") | {"device": "'cpu'"}
    given |= {name: criterion for name in CRITERIA if criterion}
    names = [name.rstrip("=") for name in function.required]
    data = [name for name in names if name not in given]
    if len(data) == 1 and data[0] in BATCHES + INPUTS:
        given[data[0]] = "batch"
    elif len(data) == 2 and data[0] in INPUTS and data[1] in TARGETS:
        given |= dict(zip(data, LIKE_A_BATCH, strict=True))
    if not set(names) <= set(given):
        return ""
    return f"{function.called}({_by_name(function.required, given)})"


def _by_name(required: Iterable[str], given: Mapping[str, str]) -> str:
    return ", ".join(f"{name}{given[name[:-1]]}" if name.endswith("=") else given[name] for name in required)


def of_training(function: Function, call: str) -> str:
    """Which part of what a function returns is the one of training.

    Example:
        >>> of_training(loaders, "loaders()")                                          # doctest: +SKIP
        "loaders()['train']"
    """
    match function.returned:
        case ast.Tuple() | ast.List():
            return f"{call}[0]"
        case ast.Dict(keys=keys):
            names = [key.value for key in keys if isinstance(key, ast.Constant)]
            return f"{call}[{next((name for name in names if 'train' in str(name)), names[0])!r}]" if names else ""
    return call
