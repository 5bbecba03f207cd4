"""Reaches: may the objective fall to nothing by numbers that weigh it alone, whatever the model predicts?"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pytest_overfit.diagnose.movement import FreeScale
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.questions.tensors import graph_nodes, is_real
from pytest_overfit.run.context import RunContext

FURTHER = (1.0, 3.0, 10.0, 30.0)  # times the way that they went
LEFT = 0.02  # of the objective: so little of it is left where it is weighed down


def measure_free_scale(context: RunContext) -> FreeScale | None:
    """What the objective of the model as it started becomes by scalars that have no part in an output.

    They go on the way that they went in the run, and everything else stays as it was before the first step. A learnt
    weight of a term comes to an end where its penalty, a logarithm, does: without one it does not.
    """
    task = loss_of(context)
    moved: dict[str, tuple[Tensor, Tensor]] = {}
    for name, p in context.task.model.named_parameters():
        if is_lazy(p):
            continue
        start = context.initial(p)
        if p.numel() == 1 and p.requires_grad and is_real(p) and start is not None and not torch.equal(start, p):
            moved[name] = (p, (p.detach() - start.to(p.device)).clone())
    if task is None or not moved:
        return None
    on = context.on(task)
    with context.at_start():
        heard, terms = on.seeded()
        behind = {id(getattr(node, "variable", None)) for _, t in heard for node in graph_nodes(t)}
        free = [(p, way) for p, way in moved.values() if id(p) not in behind]
        names = tuple(name for name, (p, _) in moved.items() if id(p) not in behind)
        found = FreeScale(names, float(terms["objective"].detach()))
        if not free or not 0 < found.start < math.inf:
            return None
        olds = [p.detach().clone() for p, _ in free]
        for times in FURTHER:
            with torch.no_grad():
                for (scalar, way), old in zip(free, olds, strict=True):
                    scalar.copy_(old + times * way)
            reached = float(on.seeded()[1]["objective"].detach())
            if 0 <= reached < LEFT * found.start:
                return replace(found, times=times, reached=reached)
    return None
