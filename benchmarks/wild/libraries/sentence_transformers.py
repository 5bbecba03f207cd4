"""sentence-transformers: sentences as vectors, by its own losses on the features that its loader makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers as t
from sentence_transformers import SentenceTransformer, losses
from sentence_transformers import models as parts
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, padding_mask


class Encoder(nn.Module):
    """BERT as a module of sentence-transformers: features in, token embeddings out."""

    def __init__(self) -> None:
        super().__init__()
        config = t.BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.bert = t.BertModel(config, add_pooling_layer=False)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features with ``token_embeddings``."""
        out = self.bert(features["input_ids"], features["attention_mask"]).last_hidden_state
        return {**features, "token_embeddings": out}


def model(criterion: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    """A loss module, which holds the model."""
    return lambda: criterion(SentenceTransformer(modules=[Encoder(), parts.Pooling(32)], device="cpu"))


def sentences(seed: int) -> dict[str, Tensor]:
    """Six padded sentences."""
    mask = padding_mask([8, 6, 7, 5, 8, 4], 8)
    return {"input_ids": integers(3, 64, 6, 8, seed=seed) * mask, "attention_mask": mask}


def batch(count: int, labels: Callable[[], Tensor | None]) -> Callable[[], Any]:
    """Several lists of sentences that stand beside each other, and labels where there are some."""
    return lambda: ([sentences(seed) for seed in range(count)], labels())


def own(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the module returns; it is given copies of the dictionaries, into which it writes."""
    features, labels = batch
    value: Tensor = model([dict(each) for each in features], labels)
    return value


def programs() -> Iterator[Program]:
    """Pairs with scores, pairs without, triplets, classes."""
    traits = frozenset(
        ["ids", "attention_mask", "padding", "attention", "norm", "residual", "embedding", "tuple", "dict"]
    )
    library = "sentence_transformers"
    scores = lambda: torch.tensor([0.9, 0.1, 0.5, 0.3, 0.8, 0.2])  # noqa: E731
    nothing = lambda: None  # noqa: E731 - as the trainer gives where a data set has no labels
    for name, criterion, data, limit, more in (
        ("CosineSimilarityLoss", losses.CosineSimilarityLoss, batch(2, scores), 0.01, {"regression"}),
        ("MultipleNegativesRankingLoss", losses.MultipleNegativesRankingLoss, batch(2, nothing), 0.01, {"contrastive"}),
        ("TripletLoss", losses.TripletLoss, batch(3, nothing), 0.02, {"contrastive"}),
        ("CoSENTLoss", losses.CoSENTLoss, batch(2, scores), 0.01, {"regression"}),
        (
            "ContrastiveLoss",
            losses.ContrastiveLoss,
            batch(2, lambda: torch.tensor([1, 0, 1, 0, 1, 0])),
            0.002,
            {"labels"},
        ),
        (
            "SoftmaxLoss",
            lambda model: losses.SoftmaxLoss(model, embedding_dimension=32, num_labels=3),
            batch(2, lambda: torch.arange(6) % 3),
            0.01,
            {"labels"},
        ),
    ):
        yield Program(f"{library}/{name}", library, model(criterion), data, own, limit, traits=traits | more)
