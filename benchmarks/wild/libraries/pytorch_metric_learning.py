"""pytorch-metric-learning: embeddings that are near for the same class and far for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal


def samples() -> tuple[Tensor, Tensor]:
    """Twelve samples of four classes."""
    return normal(12, 8), classes(12, 4)


def embedder() -> nn.Module:
    """A perceptron to sixteen numbers."""
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16))


class WithLoss(nn.Module):
    """An embedder beside a loss that has weights of its own."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.embedder, self.loss = embedder(), loss

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """The loss."""
        out: Tensor = self.loss(self.embedder(x), labels)
        return out


def by(criterion: Callable[[], Any], miner: Callable[[], Any] | None = None) -> Callable[[nn.Module, Any], Tensor]:
    """A criterion of embeddings and labels, on the pairs that a miner finds."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        embeddings = model(batch[0])
        pairs = miner()(embeddings, batch[1]) if miner else None
        value: Tensor = criterion()(embeddings, batch[1], pairs)
        return value

    return loss


def own(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the model returns."""
    value: Tensor = model(*batch)
    return value


def program(
    name: str,
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    model: Callable[[], nn.Module] = embedder,
    **more: Any,
) -> Program:
    """An embedder with one of the losses."""
    library = "pytorch_metric_learning"
    traits = frozenset(["labels", "tuple", "contrastive"])
    return Program(f"{library}/{name}", library, model, samples, loss, limit, traits=traits, **{"lr": 3e-3, **more})


def programs() -> Iterator[Program]:
    """Pairs and triplets, then losses with weights."""
    yield program("ContrastiveLoss", by(lambda: losses.ContrastiveLoss(0, 1)), 0.05)
    yield program("TripletMarginLoss", by(losses.TripletMarginLoss), 0.02)
    yield program(
        "TripletMarginLoss-mined",
        by(
            lambda: losses.TripletMarginLoss(0.3, reducer=reducers.AvgNonZeroReducer()),
            lambda: miners.BatchHardMiner(distance=distances.CosineSimilarity()),
        ),
        0.05,
    )
    yield program("SupConLoss", by(lambda: losses.SupConLoss(0.1)), 0.8)
    yield program("MultiSimilarityLoss", by(losses.MultiSimilarityLoss), 0.35)
    yield program("CircleLoss", by(lambda: losses.CircleLoss(m=0.4, gamma=16)), 1.0, steps=100)
    yield program("ArcFaceLoss", own, 0.1, lambda: WithLoss(losses.ArcFaceLoss(4, 16, margin=20, scale=16)))
    yield program("ProxyAnchorLoss", own, 0.1, lambda: WithLoss(losses.ProxyAnchorLoss(4, 16)), lr=1e-2)
    yield program("NormalizedSoftmaxLoss", own, 0.1, lambda: WithLoss(losses.NormalizedSoftmaxLoss(4, 16)))
