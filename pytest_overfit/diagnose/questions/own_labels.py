"""How far ahead a model that returns its own loss has to predict, and whether it knows where a token stands."""

from __future__ import annotations

import itertools
import re
from functools import partial

import torch
from torch import Tensor

from pytest_overfit.diagnose.evidence import Leak
from pytest_overfit.diagnose.questions.model_calls import InnerCall, ModelCall, one_exchanged

MIXED = 1e-3  # of what a label moves: what a token moves of it
EQUIVARIANT = 1e-5  # of the outputs' size: sums in another order
POSITIONS = re.compile(r"(^|[._])(abs_|learned_|rel_|wpe$|pe$|pe[._]|pos(_|itions?|itional)?)", re.IGNORECASE)


def shifted_otherwise(call: ModelCall, loss: Tensor) -> Leak | None:
    """Labels that a causal model meets at another place than the one before them; None where they are right.

    A term of the loss answers to one label and to the tokens up to where it is predicted: those tokens that move what a
    label does to the loss. By mixed differences, as no output is seen.
    """
    pair = _labelled(call)
    if pair is None:
        return None
    (name, ids), (_, labels) = pair
    length, middle = ids.shape[1], ids.shape[1] // 2

    def asked(*news: tuple[Tensor, int]) -> float:
        changed = {id(t): _other(t, place) for t, place in news}
        (made,) = call.again(lambda t: changed.get(id(t), t))
        return float(made.double())

    start, answer = float(loss.double()), asked((labels, middle))

    def reads(place: int) -> bool:
        mixed = asked((labels, middle), (ids, place)) - answer - asked((ids, place)) + start
        return abs(mixed) > MIXED * abs(answer - start)

    if answer == start or reads(length - 1) or not reads(0):
        return None
    ahead = next((middle - place for place in (middle, middle - 1, middle - 2) if reads(place)), 1)
    where = f"{name} at place {middle}"
    if ahead == 0:
        return Leak(
            where, "every place has to predict the very value that it reads, and reads nothing later", own="same"
        )
    if ahead == 2:
        what = "what predicts it reads up to two places before it: the token after the next is learnt"
        return Leak(where, what, own="after")
    return None


def next_tokens(inner: InnerCall, given: list[tuple[str, Tensor]]) -> list[Tensor]:
    """What a model that returns its own loss has to predict, where it is the next of the tokens (B, T) that it reads.

    By the gradient of the loss along its outputs (B, T, classes): that of a cross entropy is below zero at the label
    alone.
    """
    slopes = inner.slopes_of_loss()
    if slopes is None or slopes.dim() != 3:
        return []
    for _, tokens in given:
        if tokens.dim() != 2 or tokens.is_floating_point() or tokens.shape[1] < 4:
            continue
        by_place = slopes if slopes.shape[:2] == tokens.shape else slopes.transpose(1, 2)
        if by_place.shape[:2] != tokens.shape:
            continue
        taught = (by_place < 0).sum(-1) == 1
        labels, counts = by_place.argmin(-1)[:, :-1], taught[:, :-1]
        if int(counts.sum()) >= 4 and bool((labels == tokens[:, 1:])[counts].all()):
            return [tokens[:, 1:]]
    return []


def _labelled(call: ModelCall) -> tuple[tuple[str, Tensor], tuple[str, Tensor]] | None:
    """Tokens and their labels (B, T), which are the same numbers wherever they count."""
    given = [(n, t) for n, t in call.arguments() if t.dim() == 2 and t.dtype is torch.long and t.shape[1] >= 4]
    for one, other in itertools.permutations(given, 2):
        if one[1].shape == other[1].shape and "label" in other[0]:
            counts = other[1] >= 0
            if int(counts.sum()) > counts.numel() // 2 and torch.equal(one[1][counts], other[1][counts]):
                return one, other
    return None


def _other(tensor: Tensor, place: int) -> Tensor:
    """A copy with other tokens at a place of every row, which it has elsewhere."""
    changed, known = tensor.clone(), torch.unique(tensor[tensor >= 0])
    following = torch.searchsorted(known, changed[:, place].clamp(min=int(known[0]))) + 1
    changed[:, place] = torch.where(tensor[:, place] >= 0, known[following % len(known)], tensor[:, place])
    return changed


def places_without_effect(call: ModelCall, given: list[tuple[str, Tensor]], base: list[Tensor]) -> str:
    """A table of positions that the model has, though its tokens may come in any order; empty where there is none.

    Asked where tokens (B, T) or (B, T, C) move each other, and are all that has their places.
    """
    return next((table for _, tensor in given if (table := _unplaced(call, tensor, base))), "")


def _unplaced(call: ModelCall, tensor: Tensor, base: list[Tensor]) -> str:
    if tensor.dim() not in (2, 3) or (tensor.dim() == 2 and tensor.is_floating_point()) or tensor.shape[1] < 4:
        return ""
    batch, length = tensor.shape[:2]
    others = [t for _, t in call.arguments(mapped=True) if t is not tensor]
    if any(length in t.shape or t.dim() > 2 for t in others):  # of an image with a text the table may be the image's
        return ""
    held = (*call.module.named_parameters(), *call.module.named_buffers())
    numbers = [(each, t) for each, t in held if t.is_floating_point() and t.dim() > 1]
    tables = [each for each, t in numbers if POSITIONS.search(each) and max(t.shape) >= length]
    outputs = [t for t in base if t.dim() > 1 and t.shape[:1] == (batch,)]
    if not tables or not outputs:
        return ""
    plain = tensor.detach()
    first = plain.clone()
    first[:, 0] = first[:, -1] if torch.equal(first[:, 0], first[:, 1]) else first[:, 1]
    news = {"turned": plain.roll(1, 1), "one": first}
    made = {key: call.again(partial(one_exchanged, tensor, new)) for key, new in news.items()}
    kept = [t.dim() > 2 and t.shape[1] == length for t in base]

    def far(old: Tensor, new: Tensor) -> float:
        return float((old - new).abs().max()) / (float(old.abs().max()) or 1.0) if old.shape == new.shape else 1.0

    turned = [far(a.roll(1, 1) if places else a, b) for a, b, places in zip(base, made["turned"], kept, strict=True)]
    mixed = [far(a[:, 1:], b[:, 1:]) if p else far(a, b) for a, b, p in zip(base, made["one"], kept, strict=True)]
    return tables[0] if max(turned) <= EQUIVARIANT and max(mixed) > MIXED else ""
