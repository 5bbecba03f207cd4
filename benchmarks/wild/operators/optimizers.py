"""Mistakes in the optimizer and in what it holds."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import parent_of


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """What a healthy optimizer holds."""
    return [each for each in model.parameters() if each.requires_grad]


def split_parameters(s: Setup, at: Site) -> tuple[str, list[nn.Parameter], list[nn.Parameter]] | None:
    """A part of the model that holds at most half of the parameter tensors, its parameters, and the others."""
    count = len(trainable(s.model))
    places = at.trace.places(lambda call: 0 < call.below <= count // 2)
    if not places:
        return None
    name = at.choose.choice(places).name
    inside = {id(each) for each in s.model.get_submodule(name).parameters()}
    parameters = trainable(s.model)
    return name, [p for p in parameters if id(p) in inside], [p for p in parameters if id(p) not in inside]


@operator("optimizer", "optimizer-coverage")
def part_not_optimized(s: Setup, at: Site) -> str | None:
    """The parameters of one part of the model are not given to the optimizer."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, _, others = split
    s.optimizer = at.optimizer(others)
    return f"the optimizer: without {name}"


@operator("optimizer", "lr-group")
def group_rate_zero(s: Setup, at: Site) -> str | None:
    """One parameter group has a learning rate of 0."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, others = split
    s.optimizer = at.optimizer([{"params": others}, {"params": inside, "lr": 0.0}])
    return f"the optimizer: lr=0 for {name}"


@operator("optimizer", "optimizer-hyperparameter", counts=BREAKING)
def maximized(s: Setup, at: Site) -> str | None:
    """The optimizer climbs."""
    s.optimizer = torch.optim.Adam(trainable(s.model), at.program.lr, maximize=True)
    return "the optimizer: maximize=True"


@operator("optimizer", "weight-decay", counts=BREAKING)
def decay_huge(s: Setup, at: Site) -> str | None:
    """A weight decay that is stronger than the gradient."""
    s.optimizer = torch.optim.AdamW(trainable(s.model), at.program.lr, weight_decay=0.2 / at.program.lr)
    return f"the optimizer: weight_decay={0.2 / at.program.lr:g}"


@operator("optimizer", "lr-high", counts=BREAKING)
def rate_too_high(s: Setup, at: Site) -> str | None:
    """The learning rate is a thousand times too high."""
    s.optimizer = torch.optim.Adam(trainable(s.model), at.program.lr * 1000)
    return f"the optimizer: lr={at.program.lr * 1000:g}"


@operator("optimizer", "lr-low", counts=BREAKING)
def rate_too_low(s: Setup, at: Site) -> str | None:
    """The learning rate is a thousand times too low."""
    s.optimizer = torch.optim.Adam(trainable(s.model), at.program.lr / 1000)
    return f"the optimizer: lr={at.program.lr / 1000:g}"


@operator("optimizer", "optimizer-hyperparameter", "lr-low", counts=BREAKING)
def epsilon_huge(s: Setup, at: Site) -> str | None:
    """Adam's epsilon swamps the second moment."""
    s.optimizer = torch.optim.Adam(trainable(s.model), at.program.lr, eps=100.0)
    return "the optimizer: eps=100"


@operator("copy", "optimizer-coverage")
def layer_replaced_after_optimizer(s: Setup, at: Site) -> str | None:
    """A layer is exchanged for a new one (another number of classes, say) after the optimizer was built."""
    linear = at.trace.places(lambda call: call.module in ("Linear", "Conv2d") and call.own > 0)
    if not linear:
        return None
    name = linear[-1].name
    parent, last = parent_of(s.model, name)
    old = getattr(parent, last)
    s.optimizer = at.optimizer(trainable(s.model))
    if type(old) is nn.Linear:
        new: nn.Module = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
    elif type(old) is nn.Conv2d and old.groups == 1 and isinstance(old.padding, tuple):
        new = nn.Conv2d(
            old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )  # fmt: skip
    else:
        return None
    setattr(parent, last, new)
    return f"{name} is exchanged after the optimizer was built"


@operator("copy", "tie-lost", needs="tied")
def tie_lost(s: Setup, at: Site) -> str | None:
    """A parameter that two modules share is copied for one of them."""
    seen: dict[int, str] = {}
    for name, parameter in s.model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            parent, last = parent_of(s.model, name)
            setattr(parent, last, nn.Parameter(parameter.detach().clone()))
            return f"{name} is a copy of {seen[id(parameter)]}"
        seen[id(parameter)] = name
    return None


@operator("forgotten", "frozen", counts=BREAKING)
def unfreeze_forgotten(s: Setup, at: Site) -> str | None:
    """Everything but the last parameter is still frozen from an earlier stage."""
    parameters = trainable(s.model)
    if len(parameters) < 3:
        return None
    for each in parameters[:-1]:
        each.requires_grad_(False)
    return "everything but the last parameter is frozen"
