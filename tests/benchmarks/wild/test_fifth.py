"""The fifth set, losses and targets: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.operators import BY_ID
from benchmarks.wild.operators.operator import Setup, broken, healthy
from benchmarks.wild.operators.rewrite import Exchanged
from benchmarks.wild.operators.trace import trace_of
from benchmarks.wild.split import FIFTH
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_held_back import PIXELS, POINTS, TAGS


class Halves(nn.Module):
    """A flow of one affine layer: what it makes of its input, and the logarithm of the determinant."""

    class Affine(nn.Module):
        """Scales and shifts the second half by the first."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            scale, shift = self.net(x[:, :3]).chunk(2, -1)
            return torch.cat([x[:, :3], x[:, 3:] * scale.exp() + shift], -1), scale.sum(-1)

    def __init__(self) -> None:
        super().__init__()
        self.layer = self.Affine()

    def forward(self, x: Tensor) -> Tensor:
        z, more = self.layer(x)
        return z.square().sum(-1) / 2 - more  # type: ignore[no-any-return]


class Twins(nn.Module):
    """A projection, and a prediction of the other view's."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.predict = nn.Linear(6, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.project(x)
        return z.detach(), self.predict(z)


def twins(model: nn.Module, batch: Any) -> Tensor:
    """Each prediction beside the projection of the other view."""
    (first, told_second), (second, told_first) = model(batch[0]), model(batch[1])
    return F.mse_loss(told_second, second) + F.mse_loss(told_first, first)


FLOW = replace(
    POINTS, name="plain/Halves", model=Halves, batch=lambda: (fixed(5, 6),), limit=5.0,
    loss=lambda model, batch: model(batch[0]).mean(), given={"unbounded": True},
)  # fmt: skip
TWINS = replace(POINTS, name="plain/Twins", model=Twins, batch=lambda: (fixed(5, 6), fixed(5, 6) + 1), loss=twins)
MAPS = replace(
    PIXELS, name="plain/Maps", model=lambda: nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 4, 1)),
    batch=lambda: (fixed(4, 3, 8, 8), fixed(4, 4, 8, 8).argmax(1)), limit=2.0, given={},
    loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
)  # fmt: skip
CASES = {
    "own_answer_for_half": (IMAGES, "silent"),
    "focal_factor_inverted": (IMAGES, "silent"),
    "tolerance_in_other_unit": (POINTS, "silent"),
    "rows_without_number_skipped": (POINTS, "silent"),
    "end_of_sequence_ignored": (TOKENS, "silent"),
    "ignored_counted_as_first_class": (TAGS, "silent"),
    "masked_sum_divided_by_all": (TAGS, "silent"),
    "labels_made_boolean": (IMAGES, "silent"),
    "labels_resized_as_pictures": (MAPS, "silent"),
    "stop_gradient_forgotten": (TWINS, "silent"),
    "side_output_forgotten": (FLOW, "silent"),
}


def setup_of(name: str, program: Program) -> Setup:
    """A program with a mistake."""
    made = broken(program, BY_ID[name], trace_of(program, 0), 0)
    assert made is not None
    return made[0]


def assert_no_place(name: str, program: Program) -> None:
    """The operator leaves the program as it is."""
    assert broken(program, BY_ID[name], trace_of(program, 0), 0) is None


def compared_with(name: str, program: Program) -> Tensor:
    """What cross entropy is given as target in a program with a mistake."""
    found: list[Tensor] = []

    def seen(out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        found.append(target)
        return out.sum()

    setup = setup_of(name, program)
    with Exchanged((F.cross_entropy,), lambda func, *args, **kwargs: seen(*args, **kwargs)):
        setup.loss(setup.model, setup.batch)
    return found[0]


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here; all of it has been looked at, as a whole."""
    assert set(CASES) == written_in("fifth_losses")
    assert written_in("fifth_") == FIFTH


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("own_answer_for_half", POINTS),
        ("focal_factor_inverted", SERIES),
        ("tolerance_in_other_unit", replace(POINTS, batch=lambda: (fixed(5, 6), 9 * fixed(5, 2)))),
        ("rows_without_number_skipped", SERIES),  # another term would be NaN
        ("end_of_sequence_ignored", MAPS),  # no sequence
        ("ignored_counted_as_first_class", TOKENS),  # nothing is ignored
        ("masked_sum_divided_by_all", IMAGES),
        ("labels_made_boolean", replace(IMAGES, batch=lambda: (fixed(8, 3, 8, 8), torch.arange(8) % 2))),
        ("labels_resized_as_pictures", IMAGES),
        ("stop_gradient_forgotten", POINTS),
        ("side_output_forgotten", SERIES),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_one_token_of_each_sequence_is_ignored() -> None:
    """The last one that counts, whatever padding is behind it."""
    right = TAGS.batch()["tags"]
    wrong = compared_with("end_of_sequence_ignored", TAGS)
    assert ((right >= 0).sum(1) - (wrong.view_as(right) >= 0).sum(1)).tolist() == [1] * len(right)


def test_loss_of_who_is_certain_and_wrong_is_none() -> None:
    """The other way round it is the loss of those that have learnt already."""
    setup = setup_of("focal_factor_inverted", replace(IMAGES, model=lambda: nn.Sequential(nn.Flatten(), Wrong())))
    assert float(setup.loss(setup.model, setup.batch).detach()) < 1e-6
    assert float(IMAGES.loss(setup.model, setup.batch).detach()) > 10


class Wrong(nn.Module):
    """Is certain of another class than the right one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.one_hot((torch.arange(len(x)) + 1) % 4, 4)


def test_resized_labels_are_in_between() -> None:
    """And what is ignored stays so."""

    def batch() -> tuple[Tensor, Tensor]:
        labels = torch.full((4, 8, 8), 3)
        labels[:, :, :4] = 0
        labels[0, 0] = -100
        return fixed(4, 3, 8, 8), labels

    wrong = compared_with("labels_resized_as_pictures", replace(MAPS, batch=batch))
    assert set(wrong[1].flatten().tolist()) == {0, 2, 3}
    assert bool((wrong[0, 0] == -100).all())


def test_determinant_is_lost() -> None:
    """The features stay, and the number beside them is zero."""
    x = fixed(5, 6)
    right, wrong = healthy(FLOW, 0).model, setup_of("side_output_forgotten", FLOW).model
    (z, number), (same, none) = (model.get_submodule("layer")(x) for model in (right, wrong))
    assert torch.equal(z, same)
    assert number.any()
    assert not none.any()
