"""Can the classifier memorise six tickets?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("transformers", reason="transformers is not installed")

from tickets import TicketClassifier, encoder_config
from transformers import BertForSequenceClassification

Overfit = Callable[..., Any]
Batch = dict[str, Tensor]


def classifier() -> TicketClassifier:
    return TicketClassifier(encoder_config(dropout=0.0))


def cross_entropy(model: TicketClassifier, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["input_ids"], batch["attention_mask"]), batch["labels"])


@pytest.mark.overfit(objective=0.01, unused=["*pooler*"], max_steps=300)
def test_memorises_six_tickets(overfit: Overfit, tickets: Batch) -> None:
    """The mean is read, not the pooler: that it learns nothing is meant."""
    overfit(classifier, tickets, cross_entropy)


@pytest.mark.overfit(objective=0.01)
def test_the_library_classifier_memorises_them_too(overfit: Overfit, tickets: Batch) -> None:
    """It is called with the batch as keywords, returns its own loss, and uses its pooler."""
    overfit(lambda: BertForSequenceClassification(encoder_config(dropout=0.0)), tickets)


def test_an_undeclared_pooler_is_found(overfit: Overfit, tickets: Batch) -> None:
    """Two tensors that take memory and learn nothing."""
    with pytest.raises(
        AssertionError, match=r"(?s)where: encoder\.pooler.*gradients: 2 parameter tensors: no gradient arrives"
    ):
        overfit(classifier, tickets, cross_entropy, max_steps=300)
