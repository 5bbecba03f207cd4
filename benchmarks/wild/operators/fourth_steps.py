"""Held-out mistakes of a train step, of its optimizer, of evaluation and of precision, the fourth set.

From trackers: parts that stay frozen after another one's turn (wdzhao123/APL#4, Lightning's toggle_optimizer), layers
whose weight is parametrized when the optimizer exists already, an Adam whose count of steps stays
(allenai/OLMo-core#317), a validation that shares the code of the training, ``backward()`` included, running statistics
of a frozen backbone (lightly-ai/lightly#1438), predictions in the unit of the data beside normalised targets
(Nixtla/neuralforecast#720), float8 without a scale.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import Optimizer
from torch.utils import _pytree

from benchmarks.wild.operators.architecture import batch_norms, choose
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.losses import REGRESSION, first_call
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.optimizers import split_parameters, trainable
from benchmarks.wild.operators.rewrite import on_output, train_step
from benchmarks.wild.operators.third_losses import _whole
from benchmarks.wild.operators.trace import evaluated
from benchmarks.wild.operators.unseen_layers import plain_layers

MEAN, DEVIATION = 20.0, 8.0  # of the data, in its own unit


@operator("forgotten", "frozen", "no-gradient", "no-update")
def part_left_frozen_after_turn(s: Setup, at: Site) -> str | None:
    """A part is frozen for another one's turn at the end of a step, and nobody thaws it: it has learnt once."""
    if (split := split_parameters(s, at)) is None:
        return None
    name = split[0]

    def freeze(model: nn.Module, batch: Any) -> None:
        model.get_submodule(name).requires_grad_(False)

    s.step = train_step(at.program.loss, after=freeze)
    return f"{STEP}: {name}.requires_grad_(False) at its end"


@operator("misplaced", "optimizer-coverage", "no-update")
def weight_normalised_after_optimizer(s: Setup, at: Site) -> str | None:
    """``weight_norm(layer)`` comes after the optimizer, which holds the weight that is computed no more."""
    names = plain_layers(s, at)
    if not names:
        return None
    name = at.choose.choice(names)
    s.optimizer = at.optimizer(trainable(s.model))
    parametrizations.weight_norm(s.model.get_submodule(name))
    return f"{name}: weight_norm() after the optimizer"


@operator("count", "optimizer-state", "optimizer-hyperparameter", "lr-high", "lr-low")
def count_of_steps_stays(s: Setup, at: Site) -> str | None:
    """An Adam of its own never counts its steps: the correction of its moments is always that of the first one."""
    if type(at.optimizer(trainable(s.model))) not in (torch.optim.Adam, torch.optim.AdamW):
        return None

    def update(optimizer: Optimizer) -> None:
        optimizer.step()
        for state in optimizer.state.values():
            state["step"].zero_()

    s.step = train_step(at.program.loss, update=update)
    return "the optimizer: step += 1 is missing"


@operator("misplaced", "wrong-backward", "grad-accumulation", "step-order")
def gradients_of_validation_kept(s: Setup, at: Site) -> str | None:
    """The validation behind zero_grad() calls backward(), as the training does: the next step applies that too."""
    if math.isnan(evaluated(s.loss, s.model, s.batch)[0]):
        return None

    def other(value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0
        return value.flip(-1) if is_float else value

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        at.program.loss(model, _pytree.tree_map(other, batch)).backward()  # type: ignore[no-untyped-call]
        model.train()
        return value.detach()

    s.step = step
    return f"{STEP}: a validation with backward() behind zero_grad()"


@operator("mode", "drift", "not-frozen", "mode-gap", needs="batchnorm")
def statistics_of_frozen_part_move(s: Setup, at: Site) -> str | None:
    """A part is frozen by requires_grad, as the user declares, and its batch norms still follow the batches."""
    norms, count = batch_norms(s, at), len(trainable(s.model))
    places = at.trace.places(
        lambda call: 0 < call.below <= count // 2 and any(f"{each}.".startswith(f"{call.name}.") for each in norms)
    )
    if (name := choose(at, places)) is None:
        return None
    s.model.get_submodule(name).requires_grad_(False)
    s.given["frozen"] = [*s.given.get("frozen", ()), f"{name}.*"]
    return f"{name}: frozen, in training mode"


@operator("mode", "mode-gap", "units", "target-scale")
def prediction_in_other_unit_in_evaluation(s: Setup, at: Site) -> str | None:
    """Evaluation brings the predictions back to the unit of the data, and compares them with normalised targets."""
    whole, number = _whole(at), first_call(at, *REGRESSION)
    if whole is None or number is None or at.trace.losses[number].output != whole.went:
        return None
    on_output(s.model, lambda out: out if s.model.training else MEAN + DEVIATION * out)
    return f"the model: {MEAN:g} + {DEVIATION:g} * out in evaluation"


@operator("dtype", "precision", "zero-gradient")
def features_in_float8_without_scale(s: Setup, at: Site) -> str | None:
    """Features go through float8 without a scale: what is small is lost, and most of the gradient is zero."""
    if (name := choose(at, at.trace.places(lambda call: call.graph and call.below > 0))) is None:
        return None

    def rounded(out: Tensor) -> Tensor:
        return out.to(torch.float8_e4m3fn).to(out.dtype) if out.is_floating_point() else out

    on_output(s.model.get_submodule(name), rounded)
    return f"{name}: .to(torch.float8_e4m3fn)"
