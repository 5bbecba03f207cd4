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

    def test_a_loss_of_one_tower_is_found(self) -> None:
        """The products are scored against themselves: the query's tower is never asked."""

        def loss(models: dict[str, nn.Module], batch: dict[str, Tensor]) -> Tensor:
            same = {"query": models["product"], "product": models["product"]}
            return contrastive_terms(same, {**batch, "query": batch["product"]})["loss"]

        silent = r"(?s)gradients: 3 parameter tensors: no gradient arrives.*query\."
        with pytest.raises(AssertionError, match=silent):
            self.overfit(towers, self.pairs, loss, objective=0.05)
