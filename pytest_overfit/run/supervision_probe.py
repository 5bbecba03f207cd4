"""What does the loss answer to? Asked of the untrained model, its weights nudged: could this run have failed?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_overfit.errors.asking import Questions, Refused, users_code
from pytest_overfit.run.copied import copied_target
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.influence import probe_influence
from pytest_overfit.run.loss_call import LossCall
from pytest_overfit.run.shares import measure_shares, targets_read
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.run.taught import measure_taught
from pytest_overfit.run.update import Detached
from pytest_overfit.run.waiting import waiting_for

NUDGE = 0.02


class Probe(Protocol):
    """Measures what the loss answers to; ``finite`` of what it gives says whether there was a number to measure."""

    def __call__(self, call: LossCall, questions: Questions) -> Supervision: ...


def probe_batch(call: LossCall, questions: Questions) -> Supervision:
    """Of any batch: the answers to each of its tensors, how much of a target is read, whether an input holds one."""
    try:
        found = probe_influence(call, questions)
    except Detached:  # of a step that will say so itself, at once
        if call.task.loss is None:
            return Supervision({}, (), note="the step has no gradient")
        call = call.without_step()
        found = probe_influence(call, questions)
    if not found.finite:
        return found
    keys = targets_read(found)
    shares = questions.ask("how much of the targets the loss reads", lambda: measure_shares(call, keys), otherwise={})
    copied = questions.ask(
        "whether the target is in the input",
        lambda: copied_target(call.task.batch, found.inputs, keys, lambda batch: call.terms(batch)["objective"]),
        otherwise=None,
    )
    question = "what waits for an input that is zero here"
    waiting = questions.ask(question, lambda: waiting_for(call, found.inputs), otherwise=())
    return replace(found, shares=shares, copied=copied, waiting=waiting)


def mapped(probe: Probe, call: LossCall, questions: Questions) -> Supervision:
    """What a probe finds, with the supervision map."""
    found = probe(call, questions)
    if not found.finite:
        return found
    taught = questions.ask("what counts in the loss", lambda: measure_taught(call, found), otherwise=())
    return replace(found, taught=taught)


def nudged(
    model: nn.Module, initial: Callable[[Tensor], Tensor | None], probe: Callable[[], Supervision]
) -> Supervision:
    """What a probe finds with the weights nudged; with those of the start where the nudged ones give no number.

    Nudged weights may be none that the user's code takes, as those of a covariance: it is asked without then, too.

    Behind a head that starts at zero nothing would answer to anything. The weights are put back bit for bit.
    """
    parameters = list(model.parameters())
    _nudge(parameters)
    found = None
    try:
        with contextlib.suppress(Refused), users_code():
            found = probe()
    finally:
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            for parameter in parameters:
                if is_dense(parameter) and (value := initial(parameter)) is not None:
                    parameter.copy_(value)
    return found if found is not None and found.finite else probe()


def _nudge(parameters: Sequence[nn.Parameter]) -> None:
    """Moves every element a little, in proportion to its tensor's size; those of a zero tensor too."""
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for parameter in parameters:
            if not is_lazy(parameter) and is_dense(parameter) and parameter.is_floating_point():
                size = parameter.square().mean().sqrt()
                parameter.add_(torch.randn_like(parameter) * torch.where(size == 0, NUDGE, NUDGE * size))
