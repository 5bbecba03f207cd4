"""Can the Trainer teach its model three lines?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
pytest.importorskip("transformers", reason="transformers is not installed")

from rhymes import build_model, build_trainer, collate
from transformers import Trainer

from pytest_overfit import run_overfit

Overfit = Callable[..., Any]


class ShiftedTwice(Trainer):
    """The labels are shifted before the model, which shifts them again."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        labels = inputs["labels"].roll(-1, dims=1)
        labels[:, -1] = -100
        return super().compute_loss(model, {**inputs, "labels": labels}, *args, **kwargs)


def frozen_body() -> Any:
    """All that learns is the last norm."""
    model = build_model()
    model.requires_grad_(False)
    model.transformer.ln_f.requires_grad_(True)
    return model


MISTAKES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "predicts the token after the next": ("target-mismatch", lambda: {"kind": ShiftedTwice}),
    "attention_mask is 0": ("target-mismatch", lambda: {"data_collator": partial(collate, ignored=0)}),
    "parameter tensors are frozen": ("frozen", lambda: {"model": frozen_body()}),
}


@pytest.mark.overfit(max_steps=400, generates=True)
def test_memorises_three_lines(overfit: Overfit, tmp_path: Path) -> None:
    """And says them again from their first characters."""
    overfit(build_trainer(str(tmp_path)))


@pytest.mark.overfit(max_steps=400, generates=True, seeds=[0, 1])
def test_memorises_them_under_two_seeds(overfit: Overfit, tmp_path: Path) -> None:
    """A factory builds a Trainer with new weights for each."""
    overfit(lambda: build_trainer(str(tmp_path / "out")))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("words", MISTAKES)
def test_the_first_cause_is_the_mistake(tmp_path: Path, words: str) -> None:
    """Outside of a test function the same call gives a record."""
    cause, changes = MISTAKES[words]
    result = run_overfit(lambda: build_trainer(str(tmp_path), **changes()), max_steps=400, generates=True)
    assert not result.passed
    assert (result.causes[0].id, words in result.causes[0].observed) == (cause, True)


def test_each_mistake_is_found(overfit: Overfit, tmp_path: Path) -> None:
    """The loss is small; what is generated tells."""
    with pytest.raises(AssertionError, match=r"(?s)target-mismatch.*generates: \d+ of \d+ tokens right"):
        overfit(lambda: build_trainer(str(tmp_path), kind=ShiftedTwice), max_steps=400, generates=True)
