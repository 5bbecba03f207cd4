"""Which frozen parameters stand between a term of the loss and a gradient."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_overfit.diagnose.questions.tensors import graph_nodes
from pytest_overfit.run.context import RunContext


def frozen_by_term(on: RunContext) -> Mapping[str, tuple[str, ...]]:
    """The frozen parameters that a term would reach if they could learn, by the name of the term."""
    named = {id(p): name for name, p in on.task.model.named_parameters()}
    frozen = [p for p in on.task.model.parameters() if not p.requires_grad and p.is_floating_point()]
    if not frozen:
        return {}
    for p in frozen:
        p.requires_grad_(True)
    try:
        _, terms = on.forward()
    finally:
        for p in frozen:
            p.requires_grad_(False)
    ids = {id(p) for p in frozen}
    reached = {
        name: ids & {id(getattr(node, "variable", None)) for node in graph_nodes(term)} for name, term in terms.items()
    }
    return {name: tuple(named[i] for i in named if i in own) for name, own in reached.items() if own}
