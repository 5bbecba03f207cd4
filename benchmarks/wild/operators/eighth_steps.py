"""Held-out mistakes in losses and train steps, the eighth set.

What is written by hand again and again: a running total of losses that nobody resets, the logarithm of what is one
already, a gradient penalty without ``create_graph``, ReduceLROnPlateau that waits for the loss to rise, a weight that
is annealed past its end, a label smoothing of 0.9, outputs of workers that are joined as they finish.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils import _pytree

from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.fifth_losses import IGNORED, _classified
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.losses import paired_rows
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import exchange_loss

PENALTY = 10.0  # the weight of a gradient penalty
SMOOTHED = 0.9
ANNEALED = 10  # steps in which a weight is to rise to 1


@operator("forgotten", "drift", "stochastic", "loss-floor")
def total_not_reset(s: Setup, at: Site) -> str | None:
    """``self.total += loss`` is what the loss returns, and nobody sets it to zero: it has all losses before in it."""
    if not at.trace.repeats:
        return None
    inner, before = s.loss, [0.0]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = inner(model, batch)
        total = value + before[0]
        before[0] += float(value.detach())
        return total

    s.loss = loss
    return "the loss: self.total += loss, which is never reset"


@operator("doubled", "nonfinite-loss", "nonfinite-gradient", "double-activation")
def log_of_log_probabilities(s: Setup, at: Site) -> str | None:
    """The logarithm is taken of what a log-softmax returned: that of a negative number is none."""
    if (number := _classified(at)) is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return F.nll_loss(out.log_softmax(1).log(), target, ignore_index=rest.get("ignore_index", IGNORED))

    exchange_loss(s, number, loss)
    return "the loss: nll_loss(log_softmax(out).log())"


@operator("scale", "loss-floor", "target-mismatch", counts=BREAKING)
def nearly_all_smoothed(s: Setup, at: Site) -> str | None:
    """``label_smoothing=0.9`` for 0.1: what is told of the classes is nearly the same for all of them."""
    if (number := _classified(at)) is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out, target, **{**rest, "label_smoothing": SMOOTHED})  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return f"the loss: label_smoothing={SMOOTHED}"


def _penalised(inner: Any, model: nn.Module, batch: Any, path: str) -> Tensor:
    """A mean loss and the squares of the samples' gradients by an input, of which no graph is kept."""
    given: list[Tensor] = []

    def required(key: Any, value: Any) -> Any:
        if _pytree.keystr(key) != path:
            return value
        given.append(value.detach().clone().requires_grad_())
        return given[-1].view_as(given[-1])  # so that the model may change it in place

    with torch.enable_grad():
        value: Tensor = inner(model, _pytree.tree_map_with_path(required, batch))
        (gradient,) = torch.autograd.grad(value, given, retain_graph=True)
    each = (len(gradient) * gradient).flatten(1).square().sum(1)
    return value + PENALTY * each.mean()


@operator("detached", "wrong-backward", "no-gradient", "unsupervised", "term-missing", "loss-detached")
def penalty_without_graph(s: Setup, at: Site) -> str | None:
    """A gradient penalty calls ``autograd.grad`` without ``create_graph``: it is in the loss, and nothing lowers it."""
    found = [path for path, each in float_inputs(s, at) if each.dim() > 1 and len(each) == at.trace.rows]
    if not found:
        return None
    inner = s.loss
    try:
        _penalised(at.program.loss, at.program.model().train(), at.program.batch(), found[0])
    except Exception:  # no gradient reaches the input
        return None
    s.loss = lambda model, batch: _penalised(inner, model, batch, found[0])
    return f"the loss: autograd.grad(loss, batch{found[0]}) without create_graph"


@operator("swapped", "lr-schedule", "lr-low", "no-update", counts=BREAKING)
def plateau_in_wrong_mode(s: Setup, at: Site) -> str | None:
    """``ReduceLROnPlateau(mode="max")`` is told the loss: as long as that falls, the rate is divided by ten."""
    made: list[ReduceLROnPlateau] = []

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        if not made or made[0].optimizer is not optimizer:
            made[:] = [ReduceLROnPlateau(optimizer, mode="max")]
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made[0].step(float(value.detach()))
        return value.detach()

    s.step = step
    return f'{STEP}: ReduceLROnPlateau(mode="max").step(loss)'


@operator("count", "term-weight", "drift", "stochastic", "loss-scale", needs="terms")
def annealed_past_its_end(s: Setup, at: Site) -> str | None:
    """A term's weight is ``step / 10`` without ``min(1, ...)``: it goes on to rise when it should have stopped."""
    calls = [number for number, call in enumerate(at.trace.losses) if call.grad]
    if len(calls) < 2:
        return None
    count = [0]

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        count[0] += out.requires_grad
        return func(out, target, **rest) * (count[0] / ANNEALED)  # type: ignore[no-any-return]

    exchange_loss(s, calls[-1], loss)
    return f"the loss: a term times step / {ANNEALED}"


@operator("order", "stochastic", "target-mismatch", "batch-mixing", "batch-changes")
def halves_joined_as_they_finish(s: Setup, at: Site) -> str | None:
    """Two workers compute half of the samples each, and their outputs are joined in the order in which they come."""
    found = paired_rows(at)
    if found is None or not at.trace.repeats:
        return None
    number, count = found

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        first, second = out[: count // 2], out[count // 2 :]
        joined = torch.cat([first, second] if bool(torch.rand(()) < 0.5) else [second, first])
        return func(joined, target, **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: outputs in the order in which two workers finish"
