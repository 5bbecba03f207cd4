"""Mistakes in the graph: cut features, layers that nothing reaches or that nobody registered, stale and new ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_loss, on_output, override, parent_of
from benchmarks.wild.operators.trace import ModuleCall


def _cuts(s: Setup, at: Site) -> ModuleCall | None:
    """A part whose output is a tensor with a graph behind it."""
    places = at.trace.places(lambda call: call.graph and call.below > 0)
    return at.choose.choice(places) if places else None


@operator("detached", "no-gradient")
def features_detached(s: Setup, at: Site) -> str | None:
    """The output of a part is detached."""
    if (call := _cuts(s, at)) is None:
        return None
    on_output(s.model.get_submodule(call.name), lambda out: out.detach())
    return f"{call.name}: .detach()"


@operator("detached", "no-gradient")
def part_under_no_grad(s: Setup, at: Site) -> str | None:
    """A part is called under torch.no_grad()."""
    if (call := _cuts(s, at)) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return inner(*args, **kwargs)

    override(s.model.get_submodule(call.name), forward)
    return f"{call.name}: torch.no_grad()"


@operator("detached", "no-gradient")
def through_numpy(s: Setup, at: Site) -> str | None:
    """The output of a part goes through numpy and back."""
    if (call := _cuts(s, at)) is None:
        return None
    on_output(s.model.get_submodule(call.name), lambda out: torch.from_numpy(np.array(out.detach().cpu().numpy())))
    return f"{call.name}: through numpy"


@operator("detached", "no-gradient")
def output_data(s: Setup, at: Site) -> str | None:
    """What enters a part is read through .data."""
    places = at.trace.places(lambda call: call.came is not None and call.graph and call.below > 0)
    if len(places) < 2:
        return None
    name = at.choose.choice(places[1:]).name

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        first = [each.data if isinstance(each, Tensor) and each.is_floating_point() else each for each in args]
        return inner(*first, **kwargs)

    override(s.model.get_submodule(name), forward)
    return f"{name}: x.data at its entrance"


@operator("detached", "no-gradient", "term-missing", "loss-detached", "unsupervised", "wrong-backward", needs="terms")
def term_detached(s: Setup, at: Site) -> str | None:
    """One of several terms of the loss is computed of a detached output."""
    terms = [number for number, call in enumerate(at.trace.losses) if call.grad]
    if len(terms) < 2:
        return None
    number = at.choose.choice(terms)
    exchange_loss(s, number, lambda func, out, target, **rest: func(out.detach(), target, **rest))
    return f"the loss: term {number} of a detached output"


@operator("dtype", "no-gradient")
def features_to_integers(s: Setup, at: Site) -> str | None:
    """The output of a part is made whole numbers and floating point again."""
    if (call := _cuts(s, at)) is None:
        return None
    on_output(s.model.get_submodule(call.name), lambda out: (out * 16).long().to(out.dtype) / 16)
    return f"{call.name}: .long()"


@operator("dtype", "zero-gradient", "no-gradient")
def features_rounded(s: Setup, at: Site) -> str | None:
    """The output of a part is rounded: its gradient is zero."""
    if (call := _cuts(s, at)) is None:
        return None
    on_output(s.model.get_submodule(call.name), lambda out: torch.round(out * 16) / 16)
    return f"{call.name}: torch.round"


@operator("forgotten", "unused")
def layer_not_called(s: Setup, at: Site) -> str | None:
    """A part is built, and forward goes past it."""
    places = at.trace.places(lambda call: call.keeps_shape and call.below > 0)
    if not places:
        return None
    name = at.choose.choice(places).name

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        return next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))

    override(s.model.get_submodule(name), forward)
    return f"{name} is not called"


@operator("forgotten", "unused", "no-gradient", "input-ignored", needs="ids")
def positions_forgotten(s: Setup, at: Site) -> str | None:
    """The embedding of positions is built and not added."""
    named = [each for each in at.trace.places(lambda call: call.module.endswith("Embedding")) if "pos" in each.name]
    named += [each for each in at.trace.places(lambda call: call.own > 0) if each.name.rpartition(".")[2] == "wpe"]
    if not named:
        return None
    override(s.model.get_submodule(named[0].name), lambda inner, *a, **k: torch.zeros_like(inner(*a, **k)))
    return f"{named[0].name} is not added"


@operator("place", "unregistered", "optimizer-coverage")
def layer_not_registered(s: Setup, at: Site) -> str | None:
    """A part is kept where the module does not see it, as in a plain list."""
    holders = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
    places = at.trace.places(lambda call: call.below > 0 and not call.name.rpartition(".")[2].isdigit())
    places = [each for each in places if not isinstance(parent_of(s.model, each.name)[0], holders)]
    if not places:
        return None
    name = at.choose.choice(places).name
    parent, last = parent_of(s.model, name)
    hidden = [parent._modules.pop(last)]
    base = type(parent)
    members = {last: property(lambda self: self.__dict__["hidden"][0]), "__module__": base.__module__}
    parent.__dict__["hidden"] = hidden
    parent.__class__ = type(base.__name__, (base,), members)
    return f"{name} is in a plain list"


@operator("place", "no-gradient", "input-ignored")
def features_cached(s: Setup, at: Site) -> str | None:
    """A part answers with what it returned at its first call."""
    if (call := _cuts(s, at)) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        module: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        if "cache" not in module.__dict__:
            module.__dict__["cache"] = inner(*args, **kwargs).detach()
        return module.__dict__["cache"]

    override(s.model.get_submodule(call.name), forward)
    return f"{call.name}: its first answer is kept"


@operator("place", "stochastic", "unregistered")
def layer_built_in_forward(s: Setup, at: Site) -> str | None:
    """A linear layer is built in forward: new weights in every call."""
    places = at.trace.places(lambda call: call.module == "Linear" and call.own > 0)
    if not places:
        return None
    name = at.choose.choice(places).name
    layer = s.model.get_submodule(name)
    if type(layer) is not nn.Linear:
        return None
    width = layer.out_features
    for parameter in ("weight", "bias"):
        layer.register_parameter(parameter, None)
    override(layer, lambda inner, x: nn.Linear(x.shape[-1], width)(x))
    return f"{name} is built in forward"
