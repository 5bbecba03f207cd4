"""Held-out mistakes of a train step, of its schedule, of freezing and of evaluation, the fifth set.

From trackers and forums: a step that is skipped where the gradient is large, which it then stays (openai/vdvae#25), a
scheduler that is told the loss for its count (KevinMusgrave/pytorch-metric-learning#358), a cosine of epochs that is
stepped by batches (ivadomed/ivadomed#57), a rate that is set for the first group alone
(speedinghzl/pytorch-segmentation-toolbox#12), pruning of what is pruned already (Tencent/PocketFlow#130), parameters
that are frozen and still move (facebookresearch/fairseq#4702), a freeze by a part of a name, gradients that are set to
zero between two terms (OpenNMT/OpenNMT-py#891), a clamp with 0 for its lower bound, weights of 4 bits in evaluation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.loop import STEP, _scheduled
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.optimizers import split_parameters, trainable
from benchmarks.wild.operators.rewrite import Exchanged, train_step
from benchmarks.wild.operators.trace import PAIRS
from benchmarks.wild.operators.unseen_layers import plain_layers
from benchmarks.wild.operators.unseen_steps import _gradients

PERIOD = 5  # batches of a schedule that was meant for epochs
WARM_UP = 5  # epochs
SHARE = 0.02  # of weights that are pruned at once
LEVELS = 7  # of a weight of 4 bits, to each side of zero


def _first_gradients(at: Site) -> dict[str, Tensor]:
    """The gradients of the model as it starts, by the names of the parameters."""
    torch.manual_seed(0)
    model = at.program.model().train()
    at.program.loss(model, at.program.batch()).backward()  # type: ignore[no-untyped-call]
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def _norm(gradients: Any) -> float:
    return math.sqrt(sum(float(each.abs().square().sum()) for each in gradients))


@operator("count", "no-step", "no-update", "grad-clip")
def large_gradients_skipped(s: Setup, at: Site) -> str | None:
    """A step is skipped where the gradient is above a limit, which was found on another model: it always is."""
    limit = 0.5 * _norm(_first_gradients(at).values())
    if not limit:
        return None

    def update(optimizer: Optimizer) -> None:
        if _norm(_gradients(optimizer)) < limit:
            optimizer.step()

    s.step = train_step(at.program.loss, update=update)
    return f"{STEP}: if norm > {limit:.3g}: continue"


@operator("swapped", "lr-schedule", "lr-low")
def scheduler_told_the_loss(s: Setup, at: Site) -> str | None:
    """``scheduler.step(loss)`` of a scheduler that counts epochs: the smaller the loss, the earlier in its warm-up."""
    rates: list[float] = []

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rates[:] = rates or [group["lr"] for group in optimizer.param_groups]
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["lr"] = rate * min(1.0, max(0.0, float(value.detach()) / 2))
        return value.detach()

    s.step = step
    return f"{STEP}: scheduler.step(loss), with a warm-up of 2 epochs"


@operator("count", "lr-schedule")
def cosine_stepped_past_its_end(s: Setup, at: Site) -> str | None:
    """A cosine that is to end with the last epoch is stepped by batches: the rate falls to 0 and rises, on and on."""
    _scheduled(s, at, lambda count: 0.5 * (1 + math.cos(math.pi * count / PERIOD)))
    return f"{STEP}: CosineAnnealingLR(T_max={PERIOD}) for each batch"


@operator("optimizer", "lr-group", "lr-schedule", "no-update", "lr-low")
def rate_set_in_first_group(s: Setup, at: Site) -> str | None:
    """A warm-up sets ``optimizer.param_groups[0]["lr"]``: the second group stays at the rate of its begin."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, others = split
    s.optimizer = at.optimizer([{"params": others}, {"params": inside}])
    rate, steps = at.program.lr, [0]
    for group in s.optimizer.param_groups:
        group["lr"] = rate / 1000

    def before(model: nn.Module, batch: Any) -> None:
        steps[0] += 1

    def update(optimizer: Optimizer) -> None:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, steps[0] / WARM_UP)
        optimizer.step()

    s.step = train_step(at.program.loss, before=before, update=update)
    return f"{STEP}: param_groups[0]['lr'] = rate, and not that of {name}"


@operator("doubled", "weights-reset", "drift", "capacity", "no-update")
def pruned_anew_in_every_step(s: Setup, at: Site) -> str | None:
    """Every step prunes a share of the weights that are left, not one of all: in the end none is."""
    names = plain_layers(s, at)
    if not names:
        return None
    for name in names:
        layer: Any = s.model.get_submodule(name)
        layer.register_buffer("weight_mask", torch.ones_like(layer.weight))

    @torch.no_grad()
    def prune(model: nn.Module, batch: Any) -> None:
        for name in names:
            layer: Any = model.get_submodule(name)
            left = layer.weight.abs()[layer.weight_mask > 0]
            if len(left):
                layer.weight_mask.mul_(layer.weight.abs() > left.quantile(SHARE))
            layer.weight.mul_(layer.weight_mask)

    s.step = train_step(at.program.loss, after=prune)
    return f"{STEP}: {SHARE:.0%} of what is left of {names[0]} and others is pruned"


@operator("forgotten", "not-frozen", "drift", "grad-accumulation")
def stale_gradient_of_frozen_part(s: Setup, at: Site) -> str | None:
    """A part is frozen, as the user declares, and its gradient of before is in the optimizer: it moves on along it."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, _ = split
    known = _first_gradients(at)
    names = [each for each, parameter in s.model.named_parameters() if any(parameter is p for p in inside)]
    stale = {each: known[each] for each in names if each in known and bool(known[each].any())}
    if not stale:
        return None
    s.optimizer = at.optimizer(trainable(s.model))
    s.model.get_submodule(name).requires_grad_(False)
    s.given["frozen"] = [*s.given.get("frozen", ()), f"{name}.*"]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        for each in trainable(model):  # and none that is frozen
            each.grad = None
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        for parameter, gradient in stale.items():
            model.get_parameter(parameter).grad = gradient.clone()
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: {name} is frozen, and its gradients are never set to None"


@operator("rows", "frozen", "no-gradient", "no-update")
def frozen_by_part_of_name(s: Setup, at: Site) -> str | None:
    """``if "norm" in name: freeze``, where one part alone is meant: others have that in their names too."""
    named = [(name, each) for name, each in s.model.named_parameters() if each.requires_grad]
    places = at.trace.places(lambda call: call.graph and call.below > 0)
    at.choose.shuffle(places)
    for call in places:
        part = call.name.rpartition(".")[2]
        meant = [name for name, _ in named if name.startswith(f"{call.name}.")]
        hit = [(name, each) for name, each in named if part in name]
        if len(meant) < len(hit) and 4 * len(hit) <= 3 * len(named):
            break
    else:
        return None
    for _, each in hit:
        each.requires_grad_(False)
    s.given["frozen"] = [*s.given.get("frozen", ()), f"{call.name}.*"]
    return f"{len(hit)} parameters with {part!r} in their names are frozen, for the {len(meant)} of {call.name}"


@operator("misplaced", "term-missing", "step-order", "wrong-backward", "unsupervised", "term-stuck", needs="terms")
def zero_grad_between_terms(s: Setup, at: Site) -> str | None:
    """Each term has its own backward(), and zero_grad() stands between them: the first one's gradients are lost."""
    terms = [number for number, call in enumerate(at.trace.losses) if call.grad]
    if len(terms) < 2:
        return None
    lost = terms[0]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        value: list[Tensor] = []

        def split(func: Any, *args: Any, **kwargs: Any) -> Tensor:
            value.append(func(*args, **kwargs))
            return value[0].detach()

        with Exchanged(PAIRS, split, lost):
            whole = at.program.loss(model, batch)
        value[0].mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        whole.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return whole.detach()

    s.step = step
    return f"{STEP}: zero_grad() behind the backward() of term {lost}"


@operator("scale", "grad-clip", "wrong-backward", "zero-gradient", "no-update")
def gradients_clamped_above_zero(s: Setup, at: Site) -> str | None:
    """Gradients are clipped by hand, by ``clamp_(0, 1)`` for ``clamp_(-1, 1)``: no weight can ever rise."""

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            if not each.is_complex():
                each.clamp_(0, 1)
        optimizer.step()

    s.step = train_step(at.program.loss, update=update)
    return f"{STEP}: grad.clamp_(0, 1)"


@operator("dtype", "mode-gap", "precision")
def weights_of_four_bits_in_evaluation(s: Setup, at: Site) -> str | None:
    """Evaluation rounds each weight to 4 bits, with one scale for all layers; the training knows nothing of it."""
    names = [name for name, each in s.model.named_parameters() if each.dim() > 1 and each.is_floating_point()]
    if not names or sum(each.numel() for each in s.model.parameters()) < 64:
        return None
    base = type(s.model)

    @torch.no_grad()
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        if mode != self.training and not mode:
            self.__dict__["exact"] = {name: self.get_parameter(name).detach().clone() for name in names}
            scale = max(float(each.abs().max()) for each in self.__dict__["exact"].values()) / LEVELS + 1e-12
            for name in names:
                each = self.get_parameter(name)
                each.copy_((each / scale).round() * scale)
        for name, each in self.__dict__.pop("exact", {}).items() if mode else ():
            self.get_parameter(name).copy_(each)
        return base.train(self, mode)

    s.model.__class__ = type(base.__name__, (base,), {"train": train, "__module__": base.__module__})
    return "the model: weights of 4 bits in evaluation"
