"""A batch in parts has the gradient that a trainer accumulates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pytest_overfit.trainer.config_subject import Accumulated, split_samples


def masked_mean(predictions: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Any]:
    error = (predictions["x"] - batch["y"]).abs() * batch["mask"]
    return {"objective": error.sum() / batch["mask"].sum(), "names": batch["names"]}


def test_the_mean_over_parts_is_not_that_over_the_batch() -> None:
    """Masks of different size weigh the parts differently, and parts divided by their number weigh them alike."""
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    batch: dict[str, Any] = {"images": torch.zeros(2, 1), "y": torch.zeros(2, 2), "mask": mask, "names": ["a", "b"]}
    whole = masked_mean({"x": x}, batch)["objective"]
    parts = Accumulated(masked_mean, 2)({"x": x}, batch)["objective"]
    assert float(whole.detach()) == pytest.approx(7 / 3)
    assert float(parts.detach()) == (1.5 + 4) / 2
    (parts_gradient,) = torch.autograd.grad(parts, x)
    accumulated = torch.zeros(2, 2)
    for row in range(2):
        part = {key: value[row : row + 1] for key, value in batch.items()}
        loss = masked_mean({"x": x[row : row + 1]}, part)["objective"] / 2
        accumulated += torch.autograd.grad(loss, x)[0]
    torch.testing.assert_close(parts_gradient, accumulated)


def test_fewer_samples_than_parts_are_one_batch() -> None:
    """One pair cannot be cut."""
    loss = Accumulated(masked_mean, 4)
    batch = {"images": torch.zeros(1, 1), "y": torch.zeros(1, 2), "mask": torch.ones(1, 2), "names": ["a"]}
    assert float(loss({"x": torch.ones(1, 2)}, batch)["objective"]) == 1


def test_parts_cover_every_sample_once() -> None:
    """Also where they are not of one size; lists of tensors are cut inside."""
    x = torch.arange(5)
    nest: dict[str, Any] = {"x": x, "stages": [x, x + 1], "names": list("abcde"), "scalar": torch.ones(())}
    parts = split_samples(nest, 5, 2)
    assert torch.equal(torch.cat([part["x"] for part in parts]), x)
    assert [part["names"] for part in parts] == [["a", "b"], ["c", "d", "e"]]
    assert [len(part["stages"][1]) for part in parts] == [2, 3]
    assert all(part["scalar"] == 1 for part in parts)


class Out(NamedTuple):
    x: Tensor
    y: Tensor


def test_a_part_may_give_nothing_for_a_term() -> None:
    """The first one or a later one; named tuples are cut inside."""

    def loss(predictions: Out, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {"objective": predictions.x.mean()}
        return {**terms, "depth": predictions.y.sum()} if batch["valid"].any() else terms

    for valid in ([True, False], [False, True]):
        batch = {"images": torch.zeros(2), "valid": torch.tensor(valid)}
        found = Accumulated(loss, 2)(Out(torch.ones(2), torch.ones(2)), batch)
        assert {name: float(value) for name, value in found.items()} == {"objective": 1.0, "depth": 0.5}
