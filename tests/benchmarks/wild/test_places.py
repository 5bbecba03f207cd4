"""An operator has a place only where what it does is a mistake: neighbours in which the same change is meant."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.check import EARLY, train
from benchmarks.wild.measure import Row, checked
from benchmarks.wild.operators import BY_ID, OPERATORS
from benchmarks.wild.operators.operator import broken, healthy
from benchmarks.wild.operators.trace import hides, trace_of
from benchmarks.wild.split import LATER, LOOKED_AT, parts_of_operators
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed


def where(name: str, program: Program) -> str | None:
    """The place of an operator in a program."""
    made = broken(program, BY_ID[name], trace_of(program, 0), 0)
    return made and made[1]


@pytest.mark.parametrize(
    ("name", "program", "effect"),
    [
        ("gradient_reversed", TOKENS, "breaks"),
        ("betas_swapped", IMAGES, "silent"),
        ("parameter_rewrapped", TOKENS, "silent"),
        ("outputs_reversed", SERIES, "breaks"),
        ("outputs_reversed", IMAGES, "silent"),
        ("inputs_of_first_for_all", IMAGES, "breaks"),
        ("mask_of_another_sample", TOKENS, "silent"),
        ("normalised_over_time", TOKENS, "silent"),
        ("steps_only_at_first", IMAGES, "breaks"),
        ("logits_cooled", IMAGES, "breaks"),
        ("dropout_on_output", IMAGES, "breaks"),
        ("weights_in_bfloat16", replace(IMAGES, lr=1e-5, limit=1.0), "breaks"),
    ],
)
def test_later_mistakes_are_cases(name: str, program: Program, effect: str) -> None:
    """Each does what it says to a program of torch alone."""
    row = checked(BY_ID[name], program, 0)
    assert isinstance(row, Row), row
    assert row.effect == effect


def test_later_ones_move_none_before_them() -> None:
    """The half that an operator is in does not depend on later ones, which are held out until somebody looks."""
    parts = parts_of_operators()
    before = parts_of_operators([each for each in OPERATORS if each.id not in LATER])
    assert {name: parts[name] for name in before} == before
    assert {parts[name] for name in LATER - LOOKED_AT} == {"held-out"}
    assert {parts[name] for name in LATER & LOOKED_AT} == {"tuned"}
    assert {BY_ID[name].id for name in LATER} == LATER


class Masked(nn.Module):
    """Patches that are hidden by a mask which stands beside no tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.token, self.leave = nn.Linear(4, 16), nn.Parameter(torch.zeros(16)), nn.Linear(16, 4)

    def forward(self, image: Tensor, hidden_mask: Tensor) -> Tensor:
        patches = self.enter(image.view(-1, 5, 4))
        out: Tensor = self.leave(torch.where(hidden_mask[..., None], self.token, patches))
        return out


def test_mask_of_what_is_to_be_told_is_left_alone() -> None:
    """Which patches are hidden is a choice; which tokens are padding is not."""

    def batch() -> dict[str, Tensor]:
        return {"image": fixed(3, 20), "mask": torch.arange(15).reshape(3, 5) % 2 == 0}

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch["image"], hidden_mask=batch["mask"]), batch["image"].unflatten(1, (5, 4)))

    program = Program("plain/Masked", "plain", Masked, batch, loss, 9.0)
    assert trace_of(program, 0).masks == []
    assert trace_of(TOKENS, 0).masks == ["mask"]
    assert where("mask_inverted", program) is None
    assert where("mask_inverted", TOKENS) is not None


def classified_sentences(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of whole sentences: what a token sees of the future is no answer."""
    return F.cross_entropy(model(batch["ids"], mask=batch["mask"]).mean(1), torch.arange(6) % 3)


@pytest.mark.parametrize("name", ["causal_mask_forgotten", "causal_mask_transposed", "normalised_over_time"])
def test_future_leaks_only_where_it_is_asked_for(name: str) -> None:
    """A causal model that classifies sentences may look at all of them."""
    assert where(name, TOKENS) is not None
    assert where(name, replace(TOKENS, loss=classified_sentences)) is None


def test_padding_stays_hidden_where_the_future_is_not() -> None:
    """Only the future of the mask is opened: an attention that is called with the changed mask shows it."""
    made = broken(TOKENS, BY_ID["causal_mask_forgotten"], trace_of(TOKENS, 0), 0)
    assert made is not None
    model, batch = made[0].model.eval(), made[0].batch
    other = {**batch, "ids": batch["ids"].clone()}
    other["ids"][4:, 6:] = (other["ids"][4:, 6:] + 1) % 20  # under the mask
    seen = [model(each["ids"], mask=each["mask"])[4:, :6] for each in (batch, other)]
    assert torch.allclose(seen[0], seen[1], atol=1e-6)
    other["ids"][4:, 5] = (other["ids"][4:, 5] + 1) % 20  # the future of the first tokens
    assert not torch.allclose(seen[0][:, 0], model(other["ids"], mask=other["mask"])[4:, 0], atol=1e-6)


def test_documents_are_no_causal_mask() -> None:
    """A mask that keeps documents apart is not taken for one of the future alone."""
    documents = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    apart = documents[:, None] == documents

    class Packed(type(TOKENS.model())):  # type: ignore[misc]
        def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
            x = self.embed(ids)
            seen = torch.ones(8, 8, dtype=torch.bool).tril() & apart
            q, k, v = (each.unflatten(-1, (2, 16)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
            out: Tensor = self.head(F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2))
            return out

    assert [each.causal for each in trace_of(TOKENS, 0).attentions] == [True]  # beside padding behind the end
    assert [each.causal for each in trace_of(replace(TOKENS, model=Packed), 0).attentions] == [False]
    assert hides(torch.tensor([0.0, -3.0, float("-inf")])).tolist() == [False, False, True]


def denoised(model: nn.Module, batch: Any) -> Tensor:
    """The noise of a noisy input: the signal is read as well."""
    noisy = batch["signal"] + batch["noise"]
    return F.mse_loss(model(noisy), batch["noise"])


def fitted(model: nn.Module, batch: Any) -> Tensor:
    """The same without the noise in the input."""
    return F.mse_loss(model(batch["input"]), batch["noise"])


def test_other_target_is_a_mistake_where_the_right_one_is_not_read() -> None:
    """To tell the signal in place of the noise is another method; to leave the labels unread is none."""

    def batch() -> dict[str, Tensor]:
        return {"input": fixed(5, 4) + 1, "signal": 2 * fixed(5, 4), "noise": fixed(5, 4) - 1}

    program = Program("plain/Denoiser", "plain", lambda: nn.Sequential(nn.Linear(4, 4)), batch, denoised, 9.0)
    assert where("target_is_another_input", program) is None
    assert where("target_is_another_input", replace(program, loss=fitted)) is not None


class Drawn(nn.Module):
    """A code that is drawn in every call, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        code = self.first(x)
        out: Tensor = self.head(code + torch.randn_like(code))[:, -1]
        return out


@pytest.mark.parametrize("name", ["noise_left_on", "shuffled_in_every_call"])
def test_chance_is_no_mistake_where_there_is_chance(name: str) -> None:
    """A model that draws in evaluation may draw more; one with dropout alone may not."""
    assert where(name, SERIES) is not None
    assert where(name, replace(SERIES, model=Drawn)) is None


class Taught(nn.Module):
    """A student, and a teacher whose norm runs as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
        self.teacher = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            told = self.teacher(x)
        return self.student(x), told


@pytest.mark.parametrize("name", ["momentum_zero", "batch_statistics_always"])
def test_norms_of_a_teacher_are_left_alone(name: str) -> None:
    """Of both norms the trained one is taken, whatever the seed."""
    program = Program(
        "plain/Taught", "plain", Taught, lambda: fixed(5, 6), lambda model, x: F.mse_loss(*model(x)), 9.0,
        traits=frozenset(["batchnorm"]),
    )  # fmt: skip
    trace = trace_of(program, 0)
    made = [broken(program, BY_ID[name], trace, seed) for seed in range(6)]
    assert {each[1].partition(":")[0] for each in made if each is not None} == {"student.1"}


class Routed(nn.Module):
    """Weights of two experts by a softmax over numbers of their own, whose first axis is none of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Parameter(torch.zeros(2, 3)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.experts(x) * self.gate.softmax(-1)[0]
        return out


class Square(nn.Module):
    """A weight that is made of others, with as many rows as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.made, self.body = nn.Parameter(torch.randn(5, 6)), nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.linear(x, self.made(self.weight)) + self.body(x)
        return out


def test_rows_that_are_no_samples_are_told_apart() -> None:
    """One sample more, and only what stands for samples has a row more."""
    program = Program(
        "plain/Square", "plain", Square, lambda: (fixed(5, 6), fixed(5, 5)),
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]), 9.0,
    )  # fmt: skip
    trace = trace_of(program, 0)
    assert trace.of_samples() == {"", "body"}
    assert {broken(program, BY_ID["mean_over_batch"], trace, seed)[1] for seed in range(6)} == {"body: mean over dim 0"}  # type: ignore[index]


def test_what_comes_after_the_limit_is_seen_by_nobody() -> None:
    """A loss that stays below the limit as long as a run holds, and climbs afterwards, has learnt."""
    run = train(replace(TOKENS, steps=EARLY), healthy(TOKENS, 0), 0)
    assert replace(run, losses=(3.0, *[0.1] * 5, 9.0, math.nan)).learns(0.5)
    assert not replace(run, losses=(3.0, *[0.1] * 4, 9.0, 9.0, 9.0)).learns(0.5)
    assert replace(run, losses=(3.0, *[0.9, 0.2] * 4)).learns(0.7)
    assert not replace(run, losses=(3.0, *[0.9, math.nan] * 4)).learns(0.7)


def test_softmax_of_parameters_is_not_over_the_batch() -> None:
    """The axis has to be one of samples."""
    program = Program(
        "plain/Routed", "plain", Routed, lambda: (fixed(5, 6), fixed(5, 3)),
        lambda model, batch: F.mse_loss(nn.Sequential(model)(batch[0]), batch[1]), 9.0,
    )  # fmt: skip
    assert trace_of(program, 0).softmaxes == [("", (2, 3))]
    assert where("softmax_over_batch", program) is None
