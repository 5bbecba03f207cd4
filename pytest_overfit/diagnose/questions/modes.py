"""Training against evaluation: does the loss stay, is the forward pass repeatable, which layers behave otherwise?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pytest_overfit.diagnose.evidence import Probed
from pytest_overfit.diagnose.operation import Attention, Drawn, HeadMask, Op, Rebuilt
from pytest_overfit.diagnose.questions.dependence import evaluating_mode
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.step_tracer import StepTracer
from pytest_overfit.errors.asking import Questions, Refused
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import Curves

SETTLE = 20  # forward passes over which running statistics are averaged where a pass is random
SUSPICIOUS = 0.1  # of the fall of the loss: a gap in evaluation mode from which it is looked at twice


def look(
    context: RunContext, task: Any, found: Probed, calls: list[ModelCall], curves: Curves, questions: Questions
) -> Probed:
    """Fills in ``evaluation``, ``evaluation_settled``, ``random_*``, ``permuted_input`` and ``mode_modules``."""
    model, ask = context.task.model, questions.ask
    start = curves.steps[0]["objective"] if curves.steps else math.nan
    random_training = ask("randomness in training mode", lambda: _randomness(calls, training=True), otherwise=0.0)
    settled = evaluation = ask("the loss in evaluation mode", lambda: _loss(context, task), otherwise=None)
    training, passes = found.training, SETTLE if random_training > 0 else 1
    if evaluation is not None and training is not None and math.isfinite(start):
        fall = start - training
        if fall > 0 and not evaluation < training + SUSPICIOUS * fall:
            question = "the loss in evaluation mode once running statistics have settled"
            settled = ask(question, lambda: _settled(context, task, passes), otherwise=None)
    random_evaluation, permuted = 0.0, False
    ops: tuple[Op, ...] = ()
    if random_training > 0:
        question = "randomness in evaluation mode"
        random_evaluation = ask(question, lambda: _randomness(calls, training=False), otherwise=0.0)
        if random_evaluation > 0:
            ops = ask("what is random in evaluation mode", lambda: _dropping(context, calls, questions), otherwise=())
            question = "layers that are built in every forward pass"
            ops = (*ops, *ask(question, lambda: _rebuilt(context, calls, questions), otherwise=()))
        permuted = ask("an input whose order is random", lambda: _permutes(calls), otherwise=False)
    return replace(
        found,
        evaluation=evaluation,
        evaluation_settled=settled,
        random_training=random_training,
        random_evaluation=random_evaluation,
        permuted_input=permuted,
        mode_modules=ask("modules that change with the mode", lambda: tuple(_mode_modules(model)), otherwise=()),
        ops=(*found.ops, *ops),
    )


def _loss(context: RunContext, task: Any) -> float | None:
    """The objective in evaluation mode; None where it is no number there."""
    with evaluating_mode(context.task.model):
        seed_everything(context.seed)
        value = float(context.on(task).forward()[1]["objective"].detach())
    return value if math.isfinite(value) else None


def _settled(context: RunContext, task: Any, passes: int) -> float | None:
    """The same with the running statistics of the trained weights, as the batch has them: only what stays is a gap.

    They are averaged anew, and of the biased variance that training normalises with: over few values a channel the
    unbiased one is another function. What would not even half follow in a whole run is left as it is.
    """
    steps, counts = context.plan.max_steps, dict[nn.Module, int]()
    norms = [
        m
        for m in context.task.model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        and m.running_mean is not None
        and ((momentum := getattr(m, "momentum", 0.0)) is None or (1 - momentum) ** steps < 0.5)
    ]

    def count(module: nn.Module, args: Any) -> None:
        counts[module] = args[0].numel() // max(1, args[0].shape[1])

    with contextlib.ExitStack() as stack, torch.no_grad():
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.callback(norm.register_forward_pre_hook(count).remove)
            norm.momentum = None
            norm.reset_running_stats()
        for _ in range(passes if norms else 0):
            context.on(task).forward()
        for module, values in counts.items():
            module.get_buffer("running_var").mul_((values - 1) / values)
    return _loss(context, task)


def _randomness(calls: list[ModelCall], *, training: bool) -> float:
    """How far two passes of different seeds lie apart, relative to the size of the outputs."""
    largest = 0.0
    for call in calls:
        with contextlib.nullcontext() if training else evaluating_mode(call.module):
            for a, b in zip(call.again(seed=1), call.again(seed=2), strict=True):
                if a.numel() and a.shape == b.shape:
                    size = float(a.double().square().mean().sqrt()) or 1.0
                    largest = max(largest, float((a - b).double().square().mean().sqrt()) / size)
    return largest


def _dropping(context: RunContext, calls: list[ModelCall], questions: Questions) -> tuple[Op, ...]:
    """What lets activations through by chance in evaluation mode, with the line that calls it."""
    tracer = StepTracer(context.task.model, context.task.batch, None, questions)
    for call in calls[:1]:
        with evaluating_mode(call.module), tracer.tracing([], modules=False):
            call.again()
    found = []
    for op in tracer.ops:
        fact = op.fact
        if isinstance(fact, (Attention, HeadMask)) and fact.dropout:
            fact = Drawn("dropout of the attention", fact.dropout, of_input=False, gates=True)
        if isinstance(fact, Drawn):
            found.append(replace(op, name="random_in_evaluation", fact=fact))
    return tuple(found)


def _rebuilt(context: RunContext, calls: list[ModelCall], questions: Questions) -> tuple[Op, ...]:
    """Layers that are built in the forward pass, and have other weights under another seed."""
    tracer = StepTracer(context.task.model, context.task.batch, None, questions)
    passes: list[dict[tuple[str, str], float]] = []
    for seed in (1, 2):
        for call in calls[:1]:
            with evaluating_mode(call.module), tracer.tracing([], modules=False, operations=False):
                call.again(seed=seed)
        built = [(line, new) for line, new in tracer.layers_built() if new.in_forward]
        passes.append({(line, new.layer): new.size for line, new in built})
    first, second = passes
    return tuple(
        Op("rebuilt", "", line, fact=Rebuilt(kind))
        for (line, kind), size in first.items()
        if second.get((line, kind), size) != size
    )


def _permutes(calls: list[ModelCall]) -> bool:
    """Whether chance turns the order of an input before the first layer with parameters sees it."""
    for call in calls:
        for _, tensor in call.arguments():
            if not tensor.is_floating_point() or tensor.dim() < 3:
                continue
            seen = [_first_input(call, seed) for seed in range(6)]
            shaped = [t for t in seen if t is not None and t.shape == tensor.shape]
            if len(shaped) == len(seen) and any(not torch.equal(t, shaped[0]) for t in shaped[1:]):
                ordered = [t.reshape(-1).sort().values for t in shaped]
                if all(torch.equal(t, ordered[0]) for t in ordered[1:]):
                    return True
    return False


def _first_input(call: ModelCall, seed: int) -> Any:
    kept: list[Any] = []

    def hook(module: nn.Module, args: Any) -> None:
        if not kept and args and isinstance(args[0], torch.Tensor):
            kept.append(args[0].detach().clone())

    handles = [
        nn.Module.register_forward_pre_hook(m, hook)
        for m in call.module.modules()
        if any(True for _ in m.parameters(recurse=False))
    ]
    try:
        with contextlib.suppress(Refused):  # what was seen until then counts
            call.again(seed=seed)
    finally:
        for handle in handles:
            handle.remove()
    return kept[0] if kept else None


def _mode_modules(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        averages = isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
        if drops or averages:
            yield name or type(module).__name__
