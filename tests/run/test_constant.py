"""The batch of every step: writes that are seen, and writes that change nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pytest_overfit.run.batch import fingerprint
from pytest_overfit.run.constant import Constant, Writes
from pytest_overfit.run.update import Row


class Writing:
    """An update that does something to the batch."""

    def __init__(self, write: Callable[[int], object]) -> None:
        self.optimizers: list[Any] = []
        self.write = write

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        self.write(step)
        return Row([], [], [], None)

    def running(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()


def watched(batch: Tensor, write: Callable[[int], object], steps: int = 16) -> Constant:
    constant = Constant(Writing(write), batch, fingerprint(batch))
    with constant.running():
        for step in range(steps):
            constant(step, look=True, observe=False)
    return constant


def test_an_untouched_batch_is_constant() -> None:
    """Nothing is seen where nothing happens."""
    constant = watched(torch.ones(3), lambda step: None)
    assert constant.changed_at is None
    assert not constant.written


@pytest.mark.parametrize("behind", [False, True])
def test_a_change_that_lasts_some_steps_is_seen(behind: bool) -> None:
    """Steps 5 to 12 have another batch; the look after step 8 finds it, also where autograd is told nothing."""
    batch = torch.ones(3)

    def write(step: int) -> None:
        (batch.data if behind else batch).fill_(2.0 if 4 <= step < 12 else 1.0)

    assert watched(batch, write).changed_at == 8


def test_a_write_that_changes_nothing_is_written_and_no_change() -> None:
    """As labels[labels < 0] = 0 is, where none is."""
    batch = torch.ones(3)
    constant = watched(batch, lambda step: batch.clamp_(min=0))
    assert constant.changed_at is None
    assert list(constant.written) == ["batch"]


@pytest.mark.parametrize(
    ("write", "changed"),
    [
        (lambda t: t.mul_(2), "y"),
        (lambda t: t.data.mul_(2), "y"),
        (lambda t: t[1:].fill_(5), "y"),
        (lambda t: t.clamp_(min=0), None),
        (lambda t: t * 2, None),
    ],
)
def test_writes_are_followed(write: Callable[[Tensor], object], changed: str | None) -> None:
    """Also through views and behind the back of autograd; only those that change an element count."""
    tensor = torch.ones(3)
    with Writes([("y", tensor)]) as writes:
        write(tensor)
    assert writes.changed == changed
