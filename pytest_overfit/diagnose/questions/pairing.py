"""Asks a loss about the rows of its batch, by the slope that the objective has along the rows of the outputs.

The outputs are held as they are wherever the loss takes others for them: what moves a slope then is what it is held
against. Every sample has a number, and of every digit of it those samples get another target whose digit is 1. Which
slopes change then spells the number of the sample whose target a row is held against; in the same way other inputs
spell whose input it is made of.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.questions.held_outputs import Change, Forward, Held, rows_of
from pytest_overfit.diagnose.questions.model_calls import one_exchanged
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors

Rows = Mapping[str, Tensor]  # (samples, elements) of every output
STILL = 1e-3  # of a row: one that changes less was only computed in another batch
ALIKE = 1e-4  # of the largest slope: an element that changes less
MOST_TENSORS, MOST_SWAPS = 8, 8
MANY = 6  # samples, of which one order tells


class Pairing:
    """Asks a loss about the rows of its batch.

    Args:
        forward: outputs and terms of a batch, with their graphs; repeatable. Of ``Held`` ones whatever moves a slope is
            a target.
        samples: the length of the axis of samples.
        several: outputs that have several rows for every sample are looked at, in place of those that have one.
    """

    def __init__(self, forward: Forward, batch: Any, samples: int, *, several: bool = False) -> None:
        self.forward, self.batch, self.samples, self.several = forward, batch, samples, several
        self.held = {key: t for key, t in dense_tensors(batch) if t.dim() and t.shape[0] == samples}
        self.heard: Rows = {}  # the outputs of the last call
        self.base: Rows = {}
        self.of_batch = False
        self.base = self.slopes(batch)
        self.first = self.heard
        self.shapes = {name: t.shape for name, t in self.heard.items() if name in self.base}

    def slopes(self, batch: Any) -> Rows:
        """The slopes of the objective along the rows of every output; where it reads none, of the batch."""
        found = {} if self.of_batch else self._slopes(batch)
        if not found and not self.base:
            self.of_batch = not isinstance(self.forward, Held)
        return self._slopes(batch, of_batch=True) if self.of_batch else found

    def _slopes(self, batch: Any, *, of_batch: bool = False) -> Rows:
        leaves: dict[str, Tensor] = {}
        if of_batch:  # a loss of derivatives reads those of an output
            held = {id(t): key for key, t in dense_tensors(batch) if key in self.held and is_real(t)}

            def leaf(tensor: Tensor) -> Tensor:
                if id(tensor) not in held:
                    return tensor
                return leaves.setdefault(held[id(tensor)], tensor.detach().clone().requires_grad_())

            batch = map_tensors(leaf, batch)
        heard, terms = self.forward(batch)
        objective = terms["objective"]
        outputs = {name: t for name, t in heard if is_real(t) and self._rows(t) is not None}
        self.heard = {name: r for name, t in outputs.items() if (r := self._rows(t.detach())) is not None}
        rows = leaves or {name: t for name, t in outputs.items() if t.requires_grad}
        if not rows or not objective.requires_grad:
            return {}
        with users_code():
            found = torch.autograd.grad(objective, list(rows.values()), allow_unused=True)
        given = ((name, None if g is None else self._rows(g)) for name, g in zip(rows, found, strict=True))
        return {name: g.reshape(len(g), -1).double() for name, g in given if g is not None}

    def _rows(self, tensor: Tensor) -> Tensor | None:
        if not self.several:
            return rows_of(tensor, self.samples)
        return tensor if tensor.dim() and len(tensor) > self.samples and len(tensor) % self.samples == 0 else None

    def targets(self) -> list[str]:
        """The tensors that move the slopes, and reach no output that is not held."""
        found = []
        every = torch.ones(self.samples, dtype=torch.bool)
        for key, tensor in list(self.held.items())[:MOST_TENSORS]:
            if (other := _others(tensor, every, 0)) is None:
                continue
            try:
                now = self.slopes(map_tensors(partial(one_exchanged, tensor, other), self.batch))
            except Refused:  # of this tensor nothing is known: another one may answer
                continue
            if _same(self.heard, self.first) and not _same(now, self.base):
                found.append(key)
        return found

    def is_alike(self) -> bool:
        """Whether samples in another order have the slopes that they had: no place of the batch is like no other.

        The order is one circle through all of them, with which of many samples hardly another order commutes.
        """
        if not isinstance(self.forward, Held) or self.samples < MANY:
            return False
        order, circle = (
            torch.arange(self.samples),
            torch.randperm(self.samples, generator=torch.Generator().manual_seed(0)),
        )
        order[circle] = circle.roll(1)
        rows = {id(t): t.detach()[order.to(t.device)] for t in self.held.values()}
        with self.outputs(lambda t: t[order.to(t.device)]):
            now = self.slopes(map_tensors(lambda t: rows.get(id(t), t), self.batch))
        pairs = [(g.cpu()[order], now[name].cpu()) for name, g in self.base.items() if name in now]
        return len(pairs) == len(self.base) and all(
            bool(((a - b).norm(dim=1) <= STILL * a.norm(dim=1)).all()) for a, b in pairs
        )

    def silent(self, targets: Collection[str]) -> Tensor:
        """The samples without any slope, whatever they hold: not even with what one holds that has some, and it theirs.

        With other targets nothing is without a slope for being right. Those that a list of the batch names, or leaves
        out, are meant to be so, and those whose outputs the others are compared with.
        """
        none, news = torch.zeros(self.samples, dtype=torch.bool), self._missed(targets)
        missed = map_tensors(lambda t: news.get(id(t), t), self.batch)
        dead = dead_rows(self.base, self.samples) & dead_rows(self.slopes(missed), self.samples)
        without, live = dead.nonzero()[:, 0], (~dead).nonzero()[:, 0]
        if not len(without) or not len(live) or len(without) > MOST_SWAPS * len(live) or self.is_listed(dead):
            return none
        for some, others in itertools.product(torch.split(without, len(live)), (news, {})):
            dead[some] &= dead_rows(self._swapped(some, live[: len(some)], others), self.samples)[some]
        if not bool(dead.any()):
            return none
        with self.outputs(lambda t: torch.where(dead.view(-1, *[1] * (t.dim() - 1)).to(t.device), 0.7 * t + 0.1, t)):
            away = self.slopes(self.batch)
        return dead if all(torch.equal(away[name][~dead], rows[~dead]) for name, rows in self.base.items()) else none

    def _missed(self, targets: Collection[str]) -> dict[int, Tensor]:
        """Other targets for all samples, by the ids of their tensors."""
        every = torch.ones(self.samples, dtype=torch.bool)
        others = ((t := self.held[key], _others(t, every, 0)) for key in targets)
        return {id(t): other for t, other in others if other is not None}

    def _swapped(self, some: Tensor, others: Tensor, news: Mapping[int, Tensor]) -> Rows:
        """The slopes with some samples and as many others in each other's places, with their outputs."""
        order = torch.arange(self.samples)
        order[some], order[others] = others, some
        rows = {id(t): news.get(id(t), t).detach()[order.to(t.device)] for t in self.held.values()}
        with self.outputs(lambda t: t[order.to(t.device)]):
            return self.slopes(map_tensors(lambda t: rows.get(id(t), t), self.batch))

    def cut(self, targets: Collection[str]) -> tuple[str, str] | None:
        """Places at one end of an output whose rows are flattened that have no slope, whoever's they are.

        They begin or end within a sample, and have targets of their own: the second that is returned has one for each.
        """
        news = self._missed(targets)
        missed = self.slopes(map_tensors(lambda t: news.get(id(t), t), self.batch))
        for (name, shape), key in itertools.product(self.shapes.items(), targets):
            dead = (self.base[name] == 0) & (missed.get(name, self.base[name] * 0 + 1) == 0)
            if (still := _places(dead, shape, self.held[key])) is None:
                continue
            flat, (count, length) = still.flatten(), (int(still.sum()), still.shape[1])
            whole = (~still).all(1).nonzero()[:1, 0]
            part = (still.any(1) & ~still.all(1)).nonzero()[:, 0]
            if len(part) != 1 or not len(whole) or not (flat[:count].all() or flat[-count:].all()):
                continue
            for swapped in (self._swapped(part, whole, each) for each in (news, {})):
                there = _places(swapped[name] == 0, shape, self.held[key])
                if there is None or bool((still & ~there)[part].any()) or bool(there[whole].any()):
                    break
            else:
                side = "first" if bool(flat[0]) else "last"
                return f"the {side} {count} of {len(flat)} places of {name}, {length} of every sample", key
        return None

    def outputs(self, change: Change) -> contextlib.AbstractContextManager[None]:
        """Other rows in the outputs for a block, where they are held."""
        if not isinstance(self.forward, Held):
            return contextlib.nullcontext()

        def changed(tensor: Tensor) -> Tensor:
            rows = rows_of(tensor, self.samples)
            return tensor if rows is None else change(rows).transpose(0, int(rows is not tensor))

        return self.forward.changed(changed)

    def is_listed(self, dead: Tensor) -> bool:
        """Whether a list of numbers in the batch is that of the samples that count, or of those that do not."""
        groups = [sorted(which.nonzero()[:, 0].tolist()) for which in (dead, ~dead)]
        whole = (t for _, t in dense_tensors(self.batch) if t.dim() == 1 and t.dtype in (torch.long, torch.int32))
        return any(sorted(tensor.tolist()) in groups for tensor in whole if len(tensor) < self.samples)

    def spelt(self, look: Callable[[Any], Rows], base: Rows, keys: Collection[str]) -> dict[str, list[int | None]]:
        """By output, the sample whose values at these keys each row answers to; None: nobody's, or more than one's.

        Outputs that answer to nobody's are left out. A row that answers to those with and without a digit answers to
        several. Costs one call for every digit, and as many again where a row does not spell its own number.
        """
        digits, numbers = range(self.samples.bit_length()), torch.arange(1, self.samples + 1)
        tensors = [self.held[key] for key in keys]
        read: dict[str, list[list[Tensor]]] = {name: [[], []] for name in base}
        for other in (False, True):
            for digit in digits:
                chosen = ((numbers >> digit) & 1).bool() ^ other
                moved = self._moved(look, base, tensors, chosen)
                for name in read:
                    read[name][other].append(moved[name])
            spelling = {name: _numbers(rows[0]) for name, rows in read.items()}
            if not other and all(torch.equal(found, numbers) for found in spelling.values()):
                break
        found: dict[str, list[int | None]] = {}
        for name, (with_digit, without) in read.items():
            if not torch.stack([*with_digit, *without]).any():
                continue
            own = spelling[name]
            single = torch.ones(len(own), dtype=torch.bool)
            if without:
                single = (torch.stack(with_digit) ^ torch.stack(without)).all(0)
            single &= (own > 0) & (own <= self.samples)
            found[name] = [int(n) - 1 if ok else None for n, ok in zip(own, single, strict=True)]
        return found

    def _moved(
        self, look: Callable[[Any], Rows], base: Rows, tensors: Sequence[Tensor], chosen: Tensor
    ) -> dict[str, Tensor]:
        """Which rows of every output move with the chosen samples: with any of several other values of theirs."""
        moved = {name: torch.zeros(len(old), dtype=torch.bool) for name, old in base.items()}
        for variant in range(2):
            news = {id(t): other for t in tensors if (other := _others(t, chosen, variant)) is not None}
            if not news:
                break
            now = look(map_tensors(lambda t, news=news: news.get(id(t), t), self.batch))  # type: ignore[misc]
            for name, old in base.items():
                if name in now and now[name].shape == old.shape and bool(torch.isfinite(now[name]).all()):
                    moved[name] |= _rows_that_moved(old, now[name], chosen)
            if all(torch.equal(rows, chosen) for rows in moved.values()):
                break  # else a slope that is only a sign may be the same for a value on the same side
        return moved

    def owned(self) -> tuple[str, str] | None:
        """An output of which single elements of a row are held against the values of other samples, and of which.

        A loss that compares samples moves an element with several, and a table of pairs has one for every column.
        """
        for key, tensor in list(self.held.items())[:MOST_TENSORS]:
            with contextlib.suppress(Refused):
                for name, owners in self._elements(tensor).items():
                    own = torch.arange(self.samples)[:, None]
                    mixed = (owners != own).any(1) & (owners != owners[:, :1]).any(1)
                    table = self.samples in self.shapes[name][1:] and not bool((owners != owners[:1]).any())
                    if bool((owners >= 0).all()) and bool(mixed.any()) and not table:
                        return name, key
        return None

    def _elements(self, tensor: Tensor) -> dict[str, Tensor]:
        """By output, the sample that each element of the slopes answers to alone; -1: nobody's, or more than one's."""
        numbers, found = torch.arange(1, self.samples + 1), dict[str, Tensor]()
        known = {name: torch.ones(old.shape, dtype=torch.bool) for name, old in self.base.items()}
        for place in range(self.samples.bit_length()):
            moved = {name: torch.zeros(2, *old.shape, dtype=torch.bool) for name, old in self.base.items()}
            for other, variant in itertools.product(range(2), range(2)):
                chosen = ((numbers >> place) & 1).bool() ^ bool(other)
                if (new := _others(tensor, chosen, variant)) is not None:
                    now = self.slopes(map_tensors(partial(one_exchanged, tensor, new), self.batch))
                    for name, old in self.base.items():
                        moved[name][other] |= ((now[name] - old).abs() > ALIKE * old.abs().max()).cpu()
            for name, (digit, none) in moved.items():
                known[name] &= digit ^ none
                found[name] = found.get(name, 0) + (digit.long() << place)
        return {name: torch.where(known[name], number - 1, -1) for name, number in found.items()}

    def in_any_order(self, keys: Collection[str]) -> bool:
        """Whether the objective is the same when the targets come in another order: that of a set is."""
        ids = {id(self.held[key]) for key in keys}
        turned = map_tensors(lambda t: t.detach().roll(1, 0) if id(t) in ids else t, self.batch)
        before, after = (float(self.forward(b)[1]["objective"].detach()) for b in (self.batch, turned))
        return abs(after - before) <= 1e-5 * abs(before)


def _same(a: Rows, b: Rows) -> bool:
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a)


def dead_rows(slopes: Rows, samples: int) -> Tensor:
    rows = [(g == 0).all(1).cpu() for g in slopes.values()]
    return torch.stack(rows).all(0) if rows else torch.zeros(samples, dtype=torch.bool)


def _places(still: Tensor, shape: Sequence[int], labels: Tensor) -> Tensor | None:
    """(samples, places) of (samples, elements), with a label for each, or the next one's too; classes are no places."""
    grid = still.cpu().reshape(shape)
    for axis in (0, *range(1, grid.dim())):
        found = (grid.all(axis) if axis else grid).reshape(len(grid), -1)
        if labels.numel() == found.numel() or tuple(labels.shape) == (len(found), found.shape[1] + 1):
            return found
    return None


def _numbers(digits: Sequence[Tensor]) -> Tensor:
    return torch.stack([rows.long() << place for place, rows in enumerate(digits)]).sum(0)


def _rows_that_moved(old: Tensor, new: Tensor, chosen: Tensor) -> Tensor:
    """Which rows changed; where all did, by more than those that nobody touched: a weighted mean has a factor."""
    old, new = old.cpu(), new.cpu()

    def moved(factor: float) -> Tensor:
        gap, size = (new - factor * old).norm(dim=1), torch.maximum(new.norm(dim=1), factor * old.norm(dim=1))
        return torch.gt(gap, STILL * size)

    rows = moved(1.0)
    rest = ~chosen & (old != 0).any(1) if len(chosen) == len(rows) else torch.zeros(0)
    if not bool(rows.all()) or not bool(rest.any()):
        return rows
    factor = float(((old * new).sum(1)[rest] / old.square().sum(1)[rest]).median())
    return moved(factor) if factor > 0 else rows


def _others(tensor: Tensor, chosen: Tensor, variant: int) -> Tensor | None:
    """A tensor whose chosen rows have other values that it has; of labels those that count alone. None: it has none.

    First those of another row, or the next label; then the smallest or the largest, whichever is nearer.
    """
    plain, chosen = tensor.detach(), chosen.to(tensor.device)
    changed = plain.clone()
    if not plain.is_floating_point():
        if plain.is_complex() or plain.dtype is torch.bool:
            return None
        values = torch.unique(plain[plain >= 0])
        if len(values) < 2:
            return None
        place = torch.searchsorted(values, plain.contiguous()).clamp(max=len(values) - 1)
        other = torch.where(plain == values[place], values[(place + 1 + variant) % len(values)], plain)
    elif variant:
        low, high = plain.min(), plain.max()
        other = torch.where(plain > (low + high) / 2, high, low)
    else:
        rows = plain.reshape(len(plain), -1)
        order = rows.sum(1).argsort()
        other = torch.empty_like(plain)
        other[order] = plain[order.roll(len(order) // 2 or 1)]
    changed[chosen] = other[chosen]
    return None if torch.equal(changed, plain) else changed
