"""The sixth set, inside of models: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.operators.operator import healthy
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_fifth_layers import CHAIN
from tests.benchmarks.wild.test_held_back import POINTS, TAGS, WRITTEN
from tests.benchmarks.wild.test_sixth_copies import CAUSAL

CASES = {
    "skip_connection_detached": (CAUSAL, "silent"),
    "part_called_with_state_dict": (CAUSAL, "silent"),
    "attention_softmax_twice": (TOKENS, "silent"),
    "mask_on_first_head_alone": (TOKENS, "silent"),
    "mask_made_of_ids": (TOKENS, "silent"),
    "packed_without_boundaries": (CAUSAL, "silent"),
    "heads_joined_in_wrong_order": (CAUSAL, "silent"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("sixth_layers")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("skip_connection_detached", CHAIN),  # nothing is added
        ("part_called_with_state_dict", replace(SERIES, model=lambda: nn.GRU(6, 2), loss=lambda model, batch: (
            model(batch["x"])[0].square().mean()
        ))),  # the model is one layer
        ("attention_softmax_twice", POINTS),
        ("mask_on_first_head_alone", TAGS),  # one head
        ("mask_made_of_ids", IMAGES),
        ("packed_without_boundaries", WRITTEN),  # no attention is called
        ("heads_joined_in_wrong_order", TAGS),
    ],
)  # fmt: skip
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


@pytest.mark.parametrize("batch", [CAUSAL.batch, lambda: {"ids": CAUSAL.batch()["ids"] + 0}], ids=["read", "made"])
def test_gradient_of_skip_connection_is_lost(batch: Callable[[], Any]) -> None:
    """The loss is what it was, and the gradient of what comes before is another one; additions in a batch are none."""
    program, found = replace(CAUSAL, batch=batch), []
    for setup in (healthy(program, 0), setup_of("skip_connection_detached", program)):
        value = setup.loss(setup.model, setup.batch)
        value.backward()  # type: ignore[no-untyped-call]
        found.append((value.detach(), setup.model.get_parameter("embed.weight").grad))
    (value, gradient), (same, other) = found
    assert torch.allclose(value, same)
    assert isinstance(gradient, Tensor)
    assert isinstance(other, Tensor)
    assert not torch.allclose(gradient, other, rtol=1e-2)


def test_part_alone_has_no_gradient() -> None:
    """What comes before it has one, and its weights are parameters as before."""
    setup = setup_of("part_called_with_state_dict", CAUSAL)
    setup.loss(setup.model, setup.batch).backward()  # type: ignore[no-untyped-call]
    without = {name for name, each in setup.model.named_parameters() if each.grad is None}
    right = {name for name, _ in healthy(CAUSAL, 0).model.named_parameters()}
    assert {name for name, _ in setup.model.named_parameters()} == right
    assert without
    assert without < right


@pytest.mark.parametrize("program", [TAGS, WRITTEN], ids=lambda program: program.name)
def test_padding_counts_behind_second_softmax(program: Program) -> None:
    """What is hidden has a weight of its own, of an attention that is called and of one that is written out."""
    for setup, read in ((healthy(program, 0), False), (setup_of("attention_softmax_twice", program), True)):
        ids, seen = setup.batch["ids"], setup.batch["seen"]
        other = torch.where(seen.bool(), ids, (ids + 1) % 20)
        with torch.no_grad():
            one, two = (setup.model(each, seen)[seen.bool()] for each in (ids, other))
        assert torch.allclose(one, two, atol=1e-6) != read


def test_future_is_seen_by_all_heads_but_the_first() -> None:
    """What the first token says answers to a later one."""
    for setup, leaks in ((healthy(TOKENS, 0), False), (setup_of("mask_on_first_head_alone", TOKENS), True)):
        ids, mask = setup.batch["ids"], setup.batch["mask"]
        other = ids.clone()
        other[:, -3] = (other[:, -3] + 1) % 20
        with torch.no_grad():
            one, two = (setup.model(each, mask=mask)[:, 0] for each in (ids, other))
        assert torch.allclose(one, two, atol=1e-6) != leaks


def test_one_id_is_never_read() -> None:
    """By others than itself, and no sequence is left with nothing."""
    masks: list[Tensor] = []
    words = type(TOKENS.model())
    inner = words.forward

    def look(self: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is not None
        masks.append(mask)
        return inner(self, ids, mask)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "forward", look)
        fresh = setup_of("mask_made_of_ids", TOKENS)
        masks.clear()
        fresh.loss(fresh.model, fresh.batch)
    (made,), ids, right = masks, fresh.batch["ids"], fresh.batch["mask"]
    taken = ids[right.bool() & ~made.bool()].unique()
    assert len(taken) == 1
    assert not made[ids == taken].any()
    assert int(made.sum(1).min()) > 1


@pytest.mark.parametrize("name", ["packed_without_boundaries", "heads_joined_in_wrong_order"])
def test_samples_read_each_other(name: str) -> None:
    """What the model says of the last sample answers to the first one."""
    for setup, mixes in ((healthy(CAUSAL, 0), False), (setup_of(name, CAUSAL), True)):
        ids = setup.batch["ids"]
        other = ids.clone()
        other[:3] = (other[:3] + 1) % 20
        with torch.no_grad():
            one, two = (setup.model(each)[3:] for each in (ids, other))
        assert torch.allclose(one, two, atol=1e-6) != mixes


@pytest.mark.parametrize("program", [CAUSAL, TOKENS], ids=lambda program: program.name)
def test_packed_tokens_see_no_later_ones(program: Program) -> None:
    """Of their own sample, and no padding, by torch's mask or by one of the model's own; they do see other samples."""
    setup = setup_of("packed_without_boundaries", program)
    ids, rest = setup.batch["ids"], {name: each for name, each in setup.batch.items() if name != "ids"}
    later, before = ids.clone(), ids.clone()
    later[0, -1] = (later[0, -1] + 1) % 20
    before[0, 0] = (before[0, 0] + 1) % 20
    with torch.no_grad():
        told, same, other = (setup.model(each, **rest) for each in (ids, later, before))
    assert torch.allclose(told[0, :-1], same[0, :-1], atol=1e-6)
    assert not torch.allclose(told[1:], other[1:], atol=1e-6)


def test_packed_padding_is_not_read() -> None:
    """It is hidden from all samples."""
    setup = setup_of("packed_without_boundaries", TAGS)
    ids, seen = setup.batch["ids"], setup.batch["seen"]
    with torch.no_grad():
        one, two = (setup.model(each, seen)[seen.bool()] for each in (ids, torch.where(seen.bool(), ids, 0)))
    assert torch.allclose(one, two, atol=1e-6)
