"""Two draws of a loader, and what they differ in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pytest_overfit.errors import OverfitError
from pytest_overfit.two_view.data.dataset import draw_batch
from tests.support.batches import two_view_batch


def test_equal_draws_have_no_differences() -> None:
    """A constant loader is constant, and its batch comes back normalised."""
    batch, differences = draw_batch([two_view_batch()])
    assert differences == ()
    assert "avg_scale" in batch


def test_a_loader_that_augments_is_named_by_key() -> None:
    """The key and the largest difference."""

    class Jitter:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            batch = two_view_batch()
            batch["images"] = batch["images"] + 0.1 * torch.rand(())
            yield batch

    _, differences = draw_batch(Jitter())
    assert len(differences) == 1
    assert differences[0].startswith("images: ")


def test_a_loader_that_is_spent_after_one_draw_is_said() -> None:
    """A generator cannot show that it is constant."""
    _, differences = draw_batch(batch for batch in [two_view_batch()])
    assert differences == ("the second draw is empty: a loader that can be drawn twice is wanted",)


def test_an_empty_loader_is_an_error() -> None:
    """Nothing to train on."""
    with pytest.raises(OverfitError, match="the loader gives no batch"):
        draw_batch([])
