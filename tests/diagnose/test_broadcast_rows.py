"""Rows that are broadcast against all others, in another order: of numbers, and not of ids or masks."""

from __future__ import annotations

import torch
from torch import Tensor

from pytest_overfit.diagnose.operation import Broadcast, Op
from pytest_overfit.diagnose.questions.broadcasts import unpaired
from pytest_overfit.run.task import Heard, Terms

IDS = torch.tensor([1, 2, 3])


def table(op: str, rows: Tensor) -> tuple[Op, ...]:
    """What is answered of the mean of all against all."""

    def forward() -> tuple[Heard, Terms]:
        rows_and_others = rows[:, None], rows[None] * 2
        met = torch.eq(*rows_and_others) if op == "eq" else torch.sub(*rows_and_others).square()
        return Heard(), {"objective": met.float().mean()}

    fact = Broadcast(op, True, False, 1)
    return unpaired(forward, [Op(op, "the loss", "", ((3, 1), (1, 3), (3, 3)), "", fact)])


def test_ids_have_no_other_rows() -> None:
    assert table("eq", IDS) == ()


def test_numbers_have() -> None:
    (op,) = table("sub", IDS.float())
    assert isinstance(op.fact, Broadcast)
    assert op.fact.unpaired is True
