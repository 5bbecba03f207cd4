"""Held-out mistakes of a train step, of its optimizer and of what is evaluated, the seventh set.

From trackers: a warm-up whose scheduler is not stepped when it should be (verl-project/verl#3674), parameters that are
listed twice (pytorch/pytorch#40967, thu-ml/tianshou#395), a generator of parameters that somebody has used up
(PixArt-alpha/PixArt-alpha#160, pytorch/torchtitan#1258), a best model that is the worst
(mila-iqia/cookiecutter-pyml#119, ebagdasa/backdoors101#25), weights that are not loaded, of which strict=False says
nothing (pytorch/examples#1029, torchgeo/torchgeo#4036), a ``train()`` of its own that does not reach the parts
(KindXiaoming/pykan#6, deepspeedai/DeepSpeed#1781), steps where there is a remainder in place of none
(huggingface/accelerate#435), an Adam of its own that does not divide by the root (oracle/tribuo#401,
FluxML/Flux.jl#119), an optimizer over a state_dict.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.architecture import batch_norms
from benchmarks.wild.operators.held_back_training import _dropouts
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.optimizers import split_parameters, trainable

WARM_UP = 10
EVERY = 3  # batches whose gradients are to add up
NEW = 1234  # the seed of weights that nobody has trained


@operator("forgotten", "lr-schedule", "lr-low", "no-update")
def schedule_never_stepped(s: Setup, at: Site) -> str | None:
    """A warm-up begins at a rate of 0, and nobody calls ``scheduler.step()``: it stays there."""
    s.optimizer = at.optimizer(trainable(s.model))
    torch.optim.lr_scheduler.LambdaLR(s.optimizer, lambda count: min(1.0, count / WARM_UP))
    return f"{STEP}: no scheduler.step() of LambdaLR(lambda n: n / {WARM_UP})"


@operator("doubled", "step-order", "lr-group", "lr-high", "optimizer-coverage", "optimizer-state")
def parameters_listed_twice(s: Setup, at: Site) -> str | None:
    """``[*model.parameters(), *model.part.parameters()]``: the optimizer updates a part twice in every step."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, _ = split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns, and nobody reads it
        s.optimizer = at.optimizer([*trainable(s.model), *inside])
    return f"the optimizer: [*model.parameters(), *{name}.parameters()]"


class _WithoutRoot(Optimizer):
    """Adam that divides by the second moment, not by its root."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is None:
                    continue
                state = self.state[each]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(each), square=torch.zeros_like(each))
                state["step"] += 1
                state["mean"].lerp_(each.grad, 0.1)
                state["square"].lerp_(each.grad.square(), 0.001)
                mean = state["mean"] / (1 - 0.9 ** state["step"])
                square = state["square"] / (1 - 0.999 ** state["step"])
                each.sub_(group["lr"] * mean / (square + 1e-8))


@operator("optimizer", "lr-high", "optimizer-hyperparameter", "gradient-explosion", "optimizer-state")
def root_of_second_moment_forgotten(s: Setup, at: Site) -> str | None:
    """An Adam of its own divides by the second moment in place of its root: small gradients make huge steps."""
    if any(each.is_complex() for each in trainable(s.model)):
        return None
    s.optimizer = _WithoutRoot(trainable(s.model), at.program.lr)
    return "the optimizer: m / (v + eps) for m / (v.sqrt() + eps)"


@operator("optimizer", "optimizer-coverage", "no-update", "wrong-model", "no-gradient")
def optimizer_over_state_dict(s: Setup, at: Site) -> str | None:
    """``Adam(model.state_dict().values())``: those are detached, never have a gradient, and are left as they are."""
    values = [each for each in s.model.state_dict().values() if isinstance(each, Tensor) and each.is_floating_point()]
    if not values:
        return None
    s.optimizer = at.optimizer(values)
    return "the optimizer: model.state_dict().values()"


@operator("count", "optimizer-coverage", "no-update")
def group_used_up_by_count(s: Setup, at: Site) -> str | None:
    """A group is a generator of parameters that somebody counts beforehand: it is used up, and the group empty."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, others = split
    group = (each for each in inside)
    count = sum(each.numel() for each in group)
    s.optimizer = at.optimizer([{"params": others}, {"params": list(group)}])
    return f"the optimizer: the group of {name}, a generator whose {count} elements were counted"


@operator("count", "no-step", "grad-accumulation", "step-order", "no-update")
def steps_where_remainder(s: Setup, at: Site) -> str | None:
    """``if step % 3:`` for ``if step % 3 == 0:``: every third gradient is not applied, and is in the next one too."""
    count = [0]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        count[0] += 1
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        if count[0] % EVERY:
            optimizer.step()
            optimizer.zero_grad()
        return value.detach()

    s.step = step
    return f"{STEP}: if step % {EVERY}: optimizer.step()"


def _swapping(model: nn.Module, other: dict[str, Tensor]) -> None:
    """A model that has other values for some of its parameters in evaluation."""
    base = type(model)

    @torch.no_grad()
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        if mode != self.training:
            for name, value in other.items():
                each = self.get_parameter(name)
                kept = each.detach().clone()
                each.copy_(value)
                value.copy_(kept)
        return base.train(self, mode)

    model.__class__ = type(base.__name__, (base,), {"train": train, "__module__": base.__module__})


@operator("copy", "mode-gap", "wrong-model")
def best_by_largest_loss(s: Setup, at: Site) -> str | None:
    """The weights are kept where ``loss > best``, as for an accuracy: evaluation is of the worst ones."""
    kept = {name: each.detach().clone() for name, each in s.model.named_parameters()}
    worst = [-math.inf]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if float(value.detach()) > worst[0]:
            worst[0] = float(value.detach())
            for name, each in model.named_parameters():
                kept[name].copy_(each.detach())
        return value.detach()

    _swapping(s.model, kept)
    s.step = step
    return "the model: evaluation loads what was kept where loss > best"


@operator("copy", "mode-gap", "wrong-model", "not-loaded")
def part_not_loaded_in_evaluation(s: Setup, at: Site) -> str | None:
    """Evaluation loads a checkpoint with strict=False, in which a part has another name: that part is a new one."""
    torch.manual_seed(NEW)
    fresh = dict(at.program.model().named_parameters())
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, _ = split
    known = {key: each for key, each in s.model.named_parameters() if any(each is one for one in inside)}
    new = {key: fresh[key].detach().clone() for key in known if key in fresh}
    if all(torch.equal(value, known[key]) for key, value in new.items()):
        return None
    _swapping(s.model, new)
    return f"the model: load_state_dict(strict=False) without {name} in evaluation"


@operator("mode", "mode-gap", "stochastic", "batch-mixing", "drift")
def eval_does_not_reach_parts(s: Setup, at: Site) -> str | None:
    """A ``train()`` of its own sets ``self.training`` and does not call the one above: parts stay in training mode."""
    if not at.trace.repeats or not (_dropouts(s, at) or batch_norms(s, at)):
        return None
    base = type(s.model)

    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        self.training = mode
        return self

    s.model.train()
    s.model.__class__ = type(base.__name__, (base,), {"train": train, "__module__": base.__module__})
    return "the model: train() without super().train()"
