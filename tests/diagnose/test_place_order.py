"""Inputs and targets that are turned against each other, along a row and in an image: by a model, or by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

SOURCE = torch.Generator().manual_seed(11)
ROWS, TAGS = torch.randn(4, 9, 5, generator=SOURCE), torch.randint(0, 3, (4, 9), generator=SOURCE)
IMAGES, DEPTHS = torch.rand(3, 3, 10, 10, generator=SOURCE), torch.rand(3, 1, 10, 10, generator=SOURCE)
Turn = Callable[[Tensor], Tensor]
SAME: Turn = torch.clone


def learn(model: Any, batch: Any, loss: Callable[[nn.Module, Any], Any] | None, **more: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 5e-3), "objective": 1.5, "max_steps": 60}
    return run_overfit(model, batch, loss, **{**settings, **more})


def turned(result: OverfitResult) -> bool:
    return any(cause.id == "target-mismatch" and cause.certain for cause in result.causes)


class Tagger(nn.Module):
    """A recurrent layer, with what is done to its input and to its output; classes last, or as the loss wants them."""

    def __init__(
        self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], both: bool = False
    ) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.cell = nn.GRU(5, 24, batch_first=True, bidirectional=both)
        self.head = nn.Linear(48 if both else 24, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.after(self.cell(self.before(x))[0])).transpose(1, 2)


def flipped(x: Tensor) -> Tensor:
    return x.flip(1)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (partial(Tagger, flipped, SAME), True),
        (partial(Tagger, SAME, flipped), True),
        (partial(Tagger, flipped, flipped), False),
        (partial(Tagger, SAME, SAME), False),
        (partial(Tagger, flipped, SAME, both=True), False),
    ],
    ids=["not turned back", "turned behind", "and back", "forward", "both ways"],
)
def test_a_recurrent_model_that_reads_backward(model: Callable[[], nn.Module], found: bool) -> None:
    """Both ways every output reads every place: nothing says which one is its own."""
    assert turned(learn(model, (ROWS, TAGS), nn.CrossEntropyLoss())) == found


class Dense(nn.Module):
    """Convolutions that turn their input, in some way, inside."""

    def __init__(self, inside: Callable[[Tensor], Tensor] = SAME) -> None:
        super().__init__()
        self.inside = inside
        self.near, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.near(self.inside(x)).tanh())


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        (lambda x: x.transpose(2, 3), True),
        (lambda x: x.flip(3), True),
        (lambda x: x.flip(1), False),
        (lambda x: x.roll((3, 3), (2, 3)).roll((-3, -3), (2, 3)), False),
    ],
    ids=["transposed", "flipped", "colours", "rolled and back"],
)
def test_an_image_that_a_model_turns(inside: Callable[[Tensor], Tensor], found: bool) -> None:
    batch = {"image": IMAGES, "depth": DEPTHS}
    loss = lambda model, batch: F.l1_loss(model(batch["image"]), batch["depth"])  # noqa: E731
    assert turned(learn(partial(Dense, inside), batch, loss)) == found


def by_python() -> bool:
    return random.random() < 0.5


def by_torch() -> bool:
    return bool(torch.rand(()) < 0.5)


@pytest.mark.parametrize("chance", [by_python, by_torch])
@pytest.mark.parametrize("turn", [lambda x: x.flip(3), lambda x: x.rot90(1, (2, 3))], ids=["flip", "rotation"])
@pytest.mark.parametrize(("image", "depth"), [(True, False), (False, True), (True, True)])
def test_an_augmentation_of_one_of_both(chance: Any, turn: Any, image: bool, depth: bool) -> None:
    """In a train step, before the model is called: what is drawn turns the image, the target, or both."""

    def step(model: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        turns = chance()
        given = turn(batch["image"]) if turns and image else batch["image"]
        wanted = turn(batch["depth"]) if turns and depth else batch["depth"]
        optimizer.zero_grad()
        loss = F.l1_loss(model(given), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    result = learn(Dense, {"image": IMAGES, "depth": DEPTHS}, None, step=step)
    assert turned(result) == (image != depth)


@pytest.mark.parametrize("back", [True, False])
def test_what_a_program_turns_on_purpose(back: bool) -> None:
    """Depths that are stored upside down; the mean of an image and its mirror, turned back."""

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        if not back:
            return F.l1_loss(model(batch["image"]), batch["depth"].flip(2))
        return F.l1_loss((model(batch["image"]) + model(batch["image"].flip(3)).flip(3)) / 2, batch["depth"])

    assert not turned(learn(Dense, {"image": IMAGES, "depth": DEPTHS}, loss))


def test_the_next_value_of_a_row() -> None:
    loss = lambda model, x: F.mse_loss(model(x[:, :-1])[0][..., :5], x[:, 1:])  # noqa: E731
    assert not turned(learn(partial(nn.GRU, 5, 24, batch_first=True), ROWS, loss))


def test_classes_of_images_that_are_turned() -> None:
    """A label is the same whichever way the image is turned."""

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        image = batch["image"].flip(3) if by_torch() else batch["image"]
        return F.mse_loss(model(image).mean((1, 2, 3)), batch["depth"][:, 0, 0, 0])

    assert not turned(learn(Dense, {"image": IMAGES, "depth": DEPTHS}, loss))
