"""The terms of a loss: which of them the objective follows, where, and how strongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.evidence import Term
from pytest_overfit.diagnose.questions.dependence import evaluating_mode
from pytest_overfit.diagnose.questions.tensors import graph_nodes
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.influence import perturbed
from pytest_overfit.run.reachable import counters
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.task import Heard, Terms

EXACT = 0.02  # of how often a term is as large: a sum over samples and a mean have whole numbers
LATER = 100_000  # steps: more than any warm-up has


def measure_terms(
    heard: Heard, terms: Terms, parameters: Mapping[int, str]
) -> tuple[tuple[Term, ...], Mapping[str, Tensor]]:
    """The terms beside the objective, and the objective's gradients by the outputs that it reads.

    Args:
        heard: the outputs, with their graphs.
        terms: the terms, with theirs.
        parameters: names by id, of those of which is asked which terms reach them.
    """
    objective = terms["objective"]
    outputs = [(name, tensor) for name, tensor in heard if tensor.requires_grad]
    if not objective.requires_grad or not outputs:
        return (), {}
    tensors = [tensor for _, tensor in outputs]
    total = torch.autograd.grad(objective, tensors, retain_graph=True, allow_unused=True)
    nodes = set(graph_nodes(objective))
    others = {name: term for name, term in terms.items() if name != "objective"}
    gradients = {
        name: torch.autograd.grad(term, tensors, retain_graph=True, allow_unused=True)
        for name, term in others.items()
        if term.requires_grad
    }
    reached = {name: _leaves(term) & parameters.keys() for name, term in others.items() if parameters}
    found = []
    for name, term in others.items():
        if name not in gradients:
            found.append(Term(name, depends=False, in_objective=False))
            continue
        read = [output for (output, _), gradient in zip(outputs, gradients[name], strict=True) if _lives(gradient)]
        connected = any(gradient is not None for gradient in gradients[name])
        share, alignment = _own_share(name, gradients, total)
        elsewhere = set().union(*(ids for other, ids in reached.items() if other != name))
        (weight,) = torch.autograd.grad(objective, term, retain_graph=True, allow_unused=True)
        found.append(
            Term(
                name=name,
                depends=True,
                in_objective=term.grad_fn in nodes,
                share=share,
                alignment=alignment,
                weights_only=not connected,
                weight=None if weight is None else float(weight),
                outputs=tuple(dict.fromkeys(read)),
                alone=tuple(parameters[each] for each in reached.get(name, set()) - elsewhere),
            )
        )
    return tuple(found), {name: g for (name, _), g in zip(outputs, total, strict=True) if g is not None}


def _leaves(term: Tensor) -> set[int]:
    """The ids of the leaves of a term's graph."""
    return {id(node.variable) for node in graph_nodes(term) if hasattr(node, "variable")}


def _lives(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


def _own_share(
    name: str, gradients: Mapping[str, tuple[Tensor | None, ...]], total: tuple[Tensor | None, ...]
) -> tuple[float | None, float | None]:
    """The objective's gradient over the term's, and their cosine, on the elements that no other term reads."""
    dot = own_norm = total_norm = 0.0
    elements = 0
    for index, own in enumerate(gradients[name]):
        if own is None:
            continue
        alone = own != 0
        for other, theirs in gradients.items():
            if other != name and theirs[index] is not None:
                alone = alone & (theirs[index] == 0)
        elements += int(alone.sum())
        mine = own[alone].double()
        both = total[index]
        objective = torch.zeros_like(mine) if both is None else both[alone].double()
        dot += float((mine * objective).sum())
        own_norm += float(mine.square().sum())
        total_norm += float(objective.square().sum())
    if not elements or own_norm == 0:
        return (0.0, None) if _unheard(gradients[name], total) else (None, None)
    share = (total_norm / own_norm) ** 0.5
    return share, dot / (own_norm * total_norm) ** 0.5 if total_norm > 0 else None


def _unheard(own: tuple[Tensor | None, ...], total: tuple[Tensor | None, ...]) -> bool:
    """Whether the objective has no gradient at all where a term has one."""
    pairs = [
        (mine, all_) for mine, all_ in zip(own, total, strict=True) if mine is not None and bool((mine != 0).any())
    ]
    return bool(pairs) and all(both is None or not bool((both[mine != 0] != 0).any()) for mine, both in pairs)


def weighed_later(on: RunContext, names: Sequence[str]) -> set[str]:
    """Those terms of weight 0 that the objective follows once what its forward pass counts has gone on: a warm-up."""
    model, state = on.task.model, Snapshot()
    state.add(model)
    counts = [(b, b.clone()) for b in model.buffers() if b.numel() == 1 and b.dtype is not torch.bool]
    plain = [(write, value) for write, value in counters(*on.callables) if type(value) in (int, float)]
    try:
        on.forward()
        now = [value for _, value in counters(*on.callables) if type(value) in (int, float)]
        for (write, old), new in zip(plain, now, strict=True):
            if new != old:
                write(new + LATER)
        for buffer, was in counts:
            if not torch.equal(buffer, was):
                buffer.detach().add_(LATER)
        terms = on.forward()[1]
        asked = [terms[name] for name in names]
        weights = torch.autograd.grad(terms["objective"], asked, allow_unused=True)
        return {name for name, weight in zip(names, weights, strict=True) if weight is not None and bool(weight)}
    finally:
        state.restore()
        for write, value in plain:
            write(value)


def reads_weights_alone(
    forward: Callable[[Any], tuple[Heard, Terms]], batch: Any, parameters: Sequence[Tensor]
) -> bool:
    """Whether models were asked, none of their outputs is in the objective, and its gradient is that of any batch."""
    found = []
    for each in (batch, map_tensors(another, batch)):
        heard, terms = forward(each)
        objective = terms["objective"]
        outputs = [tensor for _, tensor in heard if tensor.requires_grad]
        if not heard or not objective.requires_grad:
            return False
        gradients = torch.autograd.grad(objective, [*outputs, *parameters], allow_unused=True)
        if any(gradient is not None for gradient in gradients[: len(outputs)]):
            return False
        found.append(gradients[len(outputs) :])
    pairs = list(zip(*found, strict=True))
    return any(a is not None for a, _ in pairs) and all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs
    )


def another(tensor: Tensor) -> Tensor:
    """Other numbers in place of those of a batch; classes and what cannot be exchanged stay."""
    changed = perturbed(tensor) if tensor.is_floating_point() else None
    return tensor if changed is None else changed


def measure_growth(on: RunContext, terms: Sequence[Term], samples: int) -> dict[str, int]:
    """How many times as large terms of the objective are with every sample twice: 1, 2, or nothing where it is neither.

    Asked of both halves of a batch, which have to agree; no call has more samples than there are. Not asked of a single
    term, nor of what reads weights alone.

    Raises:
        Refused: the model or the loss takes no other number of samples.
    """
    names = [t.name for t in terms if t.depends and t.in_objective and t.weight and not t.weights_only]
    if samples < 2 or len(names) < 2:
        return {}

    def of(rows: Tensor) -> dict[str, float]:
        change = lambda t: t[rows.to(t.device)] if t.dim() and len(t) == samples else t  # noqa: E731
        with evaluating_mode(on.task.model):
            return {name: float(t.detach()) for name, t in on.seeded(map_tensors(change, on.task.batch))[1].items()}

    half = samples // 2
    found: list[dict[str, int]] = []
    for rows in (torch.arange(half), torch.arange(samples - half, samples)):
        once, twice = of(rows), of(torch.cat([rows, rows]))
        ratios = {name: twice[name] / once[name] for name in names if once.get(name) and name in twice}
        found.append({name: round(r) for name, r in ratios.items() if round(r) in (1, 2) and abs(r - round(r)) < EXACT})
    first, second = found
    return {name: times for name, times in first.items() if second.get(name) == times}
