"""Can the two towers memorise eight pairs?"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranker import contrastive_terms, towers
from torch import Tensor, nn


@pytest.mark.usefixtures("overfit")
class RankerTest(unittest.TestCase):
    """A TestCase takes no fixture as an argument: ``usefixtures`` sets the attribute."""

    overfit: Callable[..., Any]

    def setUp(self) -> None:
        source = torch.Generator().manual_seed(0)
        self.pairs = {name: torch.randint(50, (8, 6), generator=source) for name in ("query", "product")}

    def test_memorises_eight_pairs(self) -> None:
        """A factory of several modules, and a limit on a metric that has to rise."""
        self.overfit(towers, self.pairs, contrastive_terms, objective=0.05, recall={"above": 0.99})

    def test_a_cache_of_query_vectors_is_found(self) -> None:
        """They were computed once, to save time: the loss still falls, and the query's tower learns nothing."""
        torch.manual_seed(0)
        models = towers()
        with torch.no_grad():
            cached = models["query"](self.pairs["query"])

        def loss(models: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return contrastive_terms({**models, "query": lambda words: cached}, batch)

        silent = r"(?s)where: query\..*gradients: 3 parameter tensors: no gradient arrives"
        with pytest.raises(AssertionError, match=silent):
            self.overfit(models, self.pairs, loss, objective=0.05)
