"""Held-out mistakes of initial weights and of optimizers, the sixth set.

From trackers: layers that are deep copies of one, with the same numbers (pytorch/pytorch#86274, pytorch/pytorch#72253),
units that are copied to widen a layer, without noise (soumith/net2net.torch#3), gains of norms that are drawn as
weights are (huggingface/transformers#143, NVIDIA/TransformerEngine#2528), a normal distribution whose deviation is 1
(pytorch/pytorch#3121, huggingface/transformers#26441), a factor that is taken for a rate (BVLC/caffe#4831), a part that
is frozen by a gradient of zero and decays (huggingface/diffusers#1009), gradients whose mean is taken out of biases and
scalars too, where matrices alone are meant (wandb/senpai#276).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.optimizers import split_parameters, trainable
from benchmarks.wild.operators.rewrite import train_step
from benchmarks.wild.operators.unseen_layers import plain_layers
from benchmarks.wild.operators.unseen_steps import _gradients

TRIES = 6  # pairs of layers
STD = 0.02
DECAYED = 0.001  # of a weight, in every step


def _alike(s: Setup, at: Site) -> Iterator[list[str]]:
    """Names of layers of a list of which somebody calls something, of one type and with the same shapes of weights."""
    called = {call.name for call in at.trace.places(lambda call: call.graph and call.below > 0)}
    for name, module in s.model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        kinds: dict[Any, list[str]] = {}
        for child, part in module.named_children():
            shapes = tuple((key, tuple(each.shape)) for key, each in part.named_parameters())
            kinds.setdefault((type(part), shapes), []).append(f"{name}.{child}".lstrip("."))
        for names in kinds.values():
            kept = [each for each in names if any(f"{one}.".startswith(f"{each}.") for one in called)]
            if len(kept) > 1:
                yield kept


@operator("init", "symmetry")
def layers_start_as_copies(s: Setup, at: Site) -> str | None:
    """Layers are deep copies of one, as by ``nn.TransformerEncoder(layer, n)``: all of them start with its weights."""
    found = list(_alike(s, at))
    if not found:
        return None
    first, *others = at.choose.choice(found)
    state = s.model.get_submodule(first).state_dict()
    for name in others:
        s.model.get_submodule(name).load_state_dict(state)
    return f"{first} to {others[-1]}: deepcopy of one"


@torch.no_grad()
def _widen(model: nn.Module, first: str, second: str) -> int:
    """The second half of a layer's units becomes the first one, and so does what the next layer makes of it."""
    one: Any = model.get_submodule(first)
    other: Any = model.get_submodule(second)
    half = len(one.weight) // 2
    one.weight[half : 2 * half] = one.weight[:half]
    if one.bias is not None:
        one.bias[half : 2 * half] = one.bias[:half]
    other.weight[:, half : 2 * half] = other.weight[:, :half]
    return half


def _stays_alike(at: Site, first: str, second: str) -> bool:
    """Whether both halves of a widened layer have the same gradient."""
    torch.manual_seed(0)
    model = at.program.model().train()
    half = _widen(model, first, second)
    at.program.loss(model, at.program.batch()).backward()  # type: ignore[no-untyped-call]
    gradient = model.get_parameter(f"{first}.weight").grad
    if gradient is None or not bool(gradient.any()):
        return False
    apart = float((gradient[:half] - gradient[half : 2 * half]).abs().max())
    return apart < 1e-3 * float(gradient.abs().max())


@operator("init", "symmetry", "capacity")
def widened_without_noise(s: Setup, at: Site) -> str | None:
    """A layer is widened by copies of its units, to which nobody adds noise: they stay the same ones for ever."""
    shapes = {name: s.model.get_parameter(f"{name}.weight").shape for name in plain_layers(s, at)}
    pairs = [
        (one, other)
        for one, other in itertools.pairwise(shapes)
        if shapes[one][0] == shapes[other][1] and shapes[one][0] > 3
    ]
    at.choose.shuffle(pairs)
    for first, second in pairs[:TRIES]:
        if _stays_alike(at, first, second):
            half = _widen(s.model, first, second)
            return f"{first}: units {half} and later are those before"
    return None


@operator("init", "output-scale", "zero-gradient", "constant-output", "input-ignored")
def gains_drawn_like_weights(s: Setup, at: Site) -> str | None:
    """``_init_weights`` draws what norms multiply by from N(0, 0.02), as all weights: next to nothing goes through."""
    gains = [
        (module, each)
        for name, module in s.model.named_modules()
        for key, each in module.named_parameters(recurse=False)
        if key == "weight" and each.dim() == 1 and each.requires_grad and len(each) > 1 and bool((each == 1).all())
    ]
    if not gains:
        return None
    for module, gain in gains:
        nn.init.normal_(gain, std=STD)
        if isinstance(shift := getattr(module, "bias", None), nn.Parameter):
            nn.init.normal_(shift, std=STD)
    return f"the gains of {len(gains)} norms: N(0, {STD})"


@operator("init", "output-scale", "saturation", "gradient-explosion")
def drawn_with_deviation_one(s: Setup, at: Site) -> str | None:
    """``nn.init.normal_(layer.weight)`` without its deviation, which is 1 then, as that of an embedding is."""
    names = plain_layers(s, at)
    if not names:
        return None
    name = at.choose.choice(names)
    nn.init.normal_(s.model.get_parameter(f"{name}.weight"))
    return f"{name}: nn.init.normal_(weight)"


@operator("optimizer", "lr-group", "lr-high", "gradient-explosion")
def factor_for_rate_in_group(s: Setup, at: Site) -> str | None:
    """A group has ``lr=1.0``, meant as a multiple of the optimizer's rate, and is taken for the rate itself."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, others = split
    s.optimizer = at.optimizer([{"params": others}, {"params": inside, "lr": 1.0}])
    return f"the optimizer: lr=1.0 for {name}"


@operator("optimizer", "not-frozen", "weight-decay", "drift")
def frozen_part_decays(s: Setup, at: Site) -> str | None:
    """A part is frozen by setting its gradients to zero, as the user declares, and AdamW decays it all the same."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, _ = split
    names = {key for key, each in s.model.named_parameters() if any(each is other for other in inside)}
    rate = at.program.lr
    s.optimizer = torch.optim.AdamW(trainable(s.model), rate, weight_decay=DECAYED / rate)
    s.given["frozen"] = [*s.given.get("frozen", ()), f"{name}.*"]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        for key, each in model.named_parameters():
            if key in names and each.grad is not None:
                each.grad.zero_()
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: grad.zero_() for {name}, AdamW(weight_decay={DECAYED / rate:g})"


@operator("optimizer", "wrong-backward", "zero-gradient", "no-update")
def mean_taken_out_of_gradients(s: Setup, at: Site) -> str | None:
    """The optimizer takes the mean out of every gradient, biases and scalars too: what has one element never moves."""

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            if not each.is_sparse:
                each.sub_(each.mean())
        optimizer.step()

    s.step = train_step(at.program.loss, update=update)
    return f"{STEP}: grad -= grad.mean()"
