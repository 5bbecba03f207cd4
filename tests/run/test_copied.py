"""A target that stands in the input."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from pytest_overfit.run.copied import copied_target

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(12, 8, generator=GENERATOR)
Y = torch.randn(12, 2, generator=GENERATOR)
LABELS = torch.arange(12) % 3


def test_columns_are_found() -> None:
    """Numbers as they are, classes as they are or as a column each."""
    assert copied_target((torch.cat([X, Y], 1), Y), ["0"], ["1"]) == "1 stands in 0: columns 8, 9"
    coded = torch.cat([F.one_hot(LABELS).float(), X], 1)
    assert copied_target((coded, LABELS), ["0"], ["1"]) == "1 stands in 0: columns 0, 1, 2"
    assert copied_target((torch.cat([X, LABELS[:, None]], 1), LABELS), ["0"], ["1"]) == "1 stands in 0: column 8"


def test_what_is_meant_or_may_be_chance_is_none() -> None:
    """A whole input, a constant, few samples of few values, another tensor."""
    assert copied_target((X, X), ["0"], ["1"]) is None
    assert copied_target((X, Y), ["0"], ["1"]) is None
    assert copied_target((torch.cat([X, torch.ones(12, 1)], 1), torch.ones(12)), ["0"], ["1"]) is None
    few = torch.tensor([0, 1, 1])
    assert copied_target((torch.tensor([[0, 1], [1, 1], [1, 0]]), few), ["0"], ["1"]) is None
