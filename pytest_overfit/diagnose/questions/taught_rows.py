"""Which samples teach, and by whose target: what rows of the outputs are made of, and what they are held against."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.pairs import Pairs
from pytest_overfit.diagnose.questions.held_outputs import Forward, Held, by_rows, called, freed
from pytest_overfit.diagnose.questions.model_calls import ModelCall, one_exchanged
from pytest_overfit.diagnose.questions.pairing import MOST_TENSORS, Pairing, Rows, dead_rows
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors

MOST_SAMPLES = 4096
TURNS = 3  # inputs of others that a sample without a slope is asked with


def measure_pairs(
    forward: Forward,
    evaluated: Forward,
    batch: Any,
    samples: int | None,
    named: list[tuple[str, nn.Module]],
    *,
    in_order: bool,
) -> Pairs | None:
    """Which samples have no slope, and which rows are held against the target of another one.

    Args:
        forward: as the run does it.
        evaluated: the same in evaluation mode.
        named: the modules whose outputs the loss takes.
        in_order: the model reads every sample by itself, and in the order of the batch.
    """
    if samples is None or not 2 <= samples <= MOST_SAMPLES:
        return None
    found, aside = None, list[tuple[Pairing, Tensor]]()
    with contextlib.suppress(Refused), freed(named) as free:
        held = Held(forward, free, batch)
        found = _asked(held, batch, samples, in_order)
        lengths = {len(t) for t in free.leaves.values()} & {len(t) for _, t in dense_tensors(batch) if t.dim()}
        pooled = [Pairing(held, batch, n) for n in lengths - {samples} if 2 <= n <= MOST_SAMPLES]
        aside = [(each, each.silent(each.targets())) for each in pooled if each.base and not each.is_alike()]
    for each, rows in aside:  # graphs of many nodes, images of any size
        if bool(rows.any()) and _alone(evaluated, batch, rows):
            return Pairs(each.samples, tuple(rows.nonzero()[:, 0].tolist()), output=", ".join(each.base), alone=True)
    if found is None and (mixed_up := _of_several(forward, evaluated, batch, samples, named)) is not None:
        return mixed_up
    if found is None and (found := _asked(forward, batch, samples, in_order)) is None:
        return None
    if found.cut is not None and not _feeds(evaluated, batch, found.pairing.held[found.cut[1]]):
        return Pairs(samples, found.silent, cut=found.cut[0], target=found.cut[1])
    if (answers := found.answers) == {}:
        return Pairs(samples, found.silent, by_target=found.by_target)
    made: Mapping[str, Sequence[int | None]] = {name: range(samples) for name in answers}
    if not in_order:

        def outputs(each: Any) -> Rows:
            with freed(named) as free:
                evaluated(each)
            heard = by_rows({called(place): t for place, t in free.leaves.items()}, samples)
            return {name: t.reshape(samples, -1).double() for name, t in heard.items() if name in answers}

        made = found.pairing.spelt(outputs, outputs(batch), list(found.pairing.held)[:MOST_TENSORS])
    paired, wrong, name = _compared(answers, made, set(found.silent))
    if len({t - s for s, t in wrong}) == 1 and found.silent and len(wrong) + len(found.silent) == samples:
        return Pairs(samples)  # axis 0 is a sequence, whose next place is predicted
    read = {source for sources in made.values() for source in sources}
    unread = tuple(sorted({*range(samples)} - read)) if read and None not in read else ()
    if wrong and (found.in_any_order or unread):
        paired, wrong = None, ()
    owned = None
    with contextlib.suppress(Refused), freed(named) as free:
        owned = None if paired else Pairing(Held(forward, free, batch), batch, samples).owned()
    target, output = ", ".join(found.keys), name or ", ".join(made)
    found_pairs = Pairs(samples, found.silent, paired, wrong, output, target, unread)
    return replace(found_pairs, by_target=found.by_target, owned=owned)


def _of_several(
    forward: Forward, evaluated: Forward, batch: Any, samples: int, named: list[tuple[str, nn.Module]]
) -> Pairs | None:
    """Rows that are held against the target of another sample, of outputs with several rows for each: views, draws."""
    answers: Mapping[str, Sequence[int | None]] = {}
    with contextlib.suppress(Refused), freed(named) as free:
        asked = Pairing(Held(forward, free, batch), batch, samples, several=True)
        keys = asked.targets() if asked.base else []
        answers = asked.spelt(asked.slopes, asked.base, keys) if keys else {}
        if any(None in rows for rows in answers.values()) or (answers and asked.in_any_order(keys)):
            return None
    if not answers:
        return None

    def outputs(each: Any) -> Rows:
        with freed(named) as free:
            evaluated(each)
        heard = {called(place): t.detach() for place, t in free.leaves.items()}
        return {name: heard[name].reshape(len(heard[name]), -1).double() for name in answers}

    made = asked.spelt(outputs, outputs(batch), list(asked.held)[:MOST_TENSORS])
    _, wrong, name = _compared(answers, made, set())
    return Pairs(samples, (), False, tuple(dict(wrong).items()), name, ", ".join(keys)) if wrong else None


@dataclass(frozen=True)
class _Asked:
    """Who asked, the silent samples, the targets, and by output the sample whose target each row is held against."""

    pairing: Pairing
    silent: tuple[int, ...]
    keys: list[str]
    answers: Mapping[str, Sequence[int | None]]
    in_any_order: bool
    cut: tuple[str, str] | None = None
    by_target: bool = False


def _asked(forward: Forward, batch: Any, samples: int, in_order: bool) -> _Asked | None:
    asked = Pairing(forward, batch, samples)
    if not asked.base:
        return None
    alike = asked.is_alike()
    keys = [] if alike and in_order else asked.targets()
    if alike:
        answers: Mapping[str, Sequence[int | None]] = dict.fromkeys(asked.base, range(samples)) if keys else {}
        return _Asked(asked, (), keys, answers, bool(keys) and asked.in_any_order(keys))
    placed, theirs = (rows.nonzero()[:, 0].tolist() for rows in (asked.silent(keys), _by_their_targets(asked)))
    answers = asked.spelt(asked.slopes, asked.base, keys)
    silent = tuple(placed or theirs)
    return _Asked(asked, silent, keys, answers, asked.in_any_order(keys), asked.cut(keys), silent != tuple(placed))


def _by_their_targets(asked: Pairing) -> Tensor:
    """Samples without a slope whose outputs have none with the inputs of others either: it is for their targets.

    As of a target that is longer than the output, whose infinite loss a loss makes zero. Those of which something in
    the batch is zero, and of no other, are meant to be so, and those with whom the others are compared.
    """
    dead, none = dead_rows(asked.base, asked.samples), torch.zeros(asked.samples, dtype=torch.bool)
    inputs = [t for t in asked.held.values() if t.is_floating_point() and t.dim() > 1]
    live = (~dead).nonzero()[:, 0]
    if not inputs or not len(live) or len(live) == asked.samples or asked.is_listed(dead):
        return none
    if any(torch.equal((t == 0).reshape(len(t), -1).all(1).cpu(), dead) for t in asked.held.values()):
        return none
    for turn in range(min(len(live), TURNS)):
        order = torch.arange(asked.samples)
        order[dead] = live[(torch.arange(int(dead.sum())) + turn) % len(live)]
        news = {id(t): t.detach()[order.to(t.device)] for t in inputs}
        with asked.outputs(lambda t, order=order: t[order.to(t.device)]):  # type: ignore[misc]
            slopes = asked.slopes(map_tensors(lambda t, news=news: news.get(id(t), t), asked.batch))  # type: ignore[misc]
        if any(not torch.equal(slopes[name][live], rows[live]) for name, rows in asked.base.items() if name in slopes):
            return none
        dead = dead & dead_rows(slopes, asked.samples)
    return dead


def _feeds(evaluated: Forward, batch: Any, tensor: Tensor) -> bool:
    """Whether a tensor of the batch moves what the models make, to its end: a text whose next token is learnt does.

    Of one whose last token is a label alone every place has a label.
    """
    if tensor.dim() == 2 and not tensor.is_floating_point():
        last = tensor.clone()
        last[:, -1] = tensor.flip(0)[:, -1]
        ends = [evaluated(map_tensors(partial(one_exchanged, tensor, new), batch))[0] for new in (tensor, last)]
        if all(a.equal(b) for (_, a), (_, b) in zip(*ends, strict=True) if a.numel() > 1):
            return False
    heard, other = (
        evaluated(map_tensors(partial(one_exchanged, tensor, new), batch))[0] for new in (tensor, tensor.flip(0))
    )
    return any(not a.equal(b) for (_, a), (_, b) in zip(heard, other, strict=True) if a.numel() > 1)


def _alone(evaluated: Forward, batch: Any, rows: Tensor) -> bool:
    """Whether there is something in the batch that moves these rows of the outputs, and no other ones."""
    leaves = {id(t): t.detach().clone().requires_grad_() for _, t in dense_tensors(batch) if is_real(t)}
    heard, _ = evaluated(map_tensors(lambda t: leaves.get(id(t), t), batch))
    outputs = [t for _, t in heard if t.dim() and len(t) == len(rows) and t.requires_grad]

    def reached(which: Tensor) -> list[Tensor]:
        chosen = [t[which.to(t.device)] for t in outputs]
        with users_code():
            found = torch.autograd.grad(
                chosen,
                list(leaves.values()),
                [torch.rand_like(t) for t in chosen],
                retain_graph=True,
                allow_unused=True,
            )
        return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves.values(), found, strict=True)]

    pairs = zip(reached(rows), reached(~rows), strict=True) if outputs and leaves else ()
    return any(bool(((here != 0) & (there == 0)).any()) for here, there in pairs)


def _compared(
    answers: Mapping[str, Sequence[int | None]], made: Mapping[str, Sequence[int | None]], silent: set[int]
) -> tuple[bool | None, tuple[tuple[int, int], ...], str]:
    """Whether all rows are held against their own targets, those that are not, and the output that has them.

    One output whose rows answer to several targets, or to none, says nothing of what is meant.
    """
    paired: bool | None = None
    for name, targets in answers.items():
        sources = made.get(name, ())
        pairs = [(s, t) for row, (s, t) in enumerate(zip(sources, targets, strict=False)) if row not in silent]
        if not pairs or any(s is None or t is None for s, t in pairs):
            return None, (), ""
        wrong = tuple((s, t) for s, t in pairs if s is not None and t is not None and s != t)
        if wrong:
            return False, wrong, name
        paired = True
    return paired, (), ""


def passed_as_they_are(batch: Any, calls: Sequence[ModelCall]) -> bool:
    """Whether models were given the tensors of the batch, and nothing that was made of them."""
    held = [tensor.detach() for _, tensor in dense_tensors(batch)]
    given = [tensor for call in calls for _, tensor in call.arguments()]
    return all(
        any(tensor.numel() == h.numel() and torch.equal(tensor.reshape(-1), h.reshape(-1)) for h in held)
        for tensor in given
    )
