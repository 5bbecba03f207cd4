"""lightly: learning from images without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightly import loss as losses
from lightly.models import modules
from lightly.models.modules import heads
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal, uniform

COUNT = 8


def backbone() -> nn.Module:
    """A convolutional network that gives 32 features."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def views() -> tuple[Tensor, Tensor]:
    """Two views of each image: the same with other noise."""
    image = nn.functional.interpolate(uniform(COUNT, 3, 4, 4), (16, 16))
    return image + 0.1 * normal(COUNT, 3, 16, 16, seed=1), image + 0.1 * normal(COUNT, 3, 16, 16, seed=2)


class Projected(nn.Module):
    """A backbone and a projection head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone(), head

    def forward(self, x: Tensor) -> Any:
        """What the head gives."""
        return self.head(self.backbone(x))


class Siamese(nn.Module):
    """A prediction of one view from the other, whose own path takes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.projection, self.prediction = (
            heads.SimSiamProjectionHead(32, 32, 16),
            heads.SimSiamPredictionHead(16, 8, 16),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The projection without a gradient, and the prediction."""
        projected = self.projection(self.backbone(x))
        return projected.detach(), self.prediction(projected)


class Teacher(nn.Module):
    """A student, and a teacher that is a copy of it and is not trained."""

    def __init__(self, head: Callable[[], nn.Module], predicts: bool = False) -> None:
        super().__init__()
        self.student, self.teacher = Projected(head()), Projected(head()).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.prediction = heads.BYOLPredictionHead(16, 32, 16) if predicts else nn.Identity()


def both(criterion: Callable[[], Any]) -> Callable[[nn.Module, Any], Tensor]:
    """A criterion on the projections of both views."""
    return lambda model, batch: criterion()(model(batch[0]), model(batch[1]))


def siamese(model: nn.Module, batch: Any) -> Tensor:
    """Each prediction beside the other projection."""
    criterion = losses.NegativeCosineSimilarity()
    (first, told_second), (second, told_first) = model(batch[0]), model(batch[1])
    loss: Tensor = 0.5 * (criterion(told_second, second) + criterion(told_first, first))
    return 1 + loss


def byol(model: Any, batch: Any) -> Tensor:
    """The student tells what the teacher sees in the other view."""
    criterion = losses.NegativeCosineSimilarity()
    with torch.no_grad():
        seen = model.teacher(batch[0]), model.teacher(batch[1])
    told = [model.prediction(model.student(view)) for view in batch]
    loss: Tensor = 0.5 * (criterion(told[0], seen[1]) + criterion(told[1], seen[0]))
    return 1 + loss


def dino(model: Any, batch: Any) -> Tensor:
    """The student's distribution follows the teacher's, without centring, whose state a step would change."""
    with torch.no_grad():
        seen = [(model.teacher(view) / 0.04).softmax(-1) for view in batch]
    told = [(model.student(view) / 0.1).log_softmax(-1) for view in batch]
    divergence = [
        torch.nn.functional.kl_div(t, s, reduction="batchmean") for t, s in zip(told, reversed(seen), strict=True)
    ]
    return torch.stack(divergence).mean()


def program(
    name: str, model: Callable[[], nn.Module], loss: Callable[[nn.Module, Any], Tensor], limit: float, **more: Any
) -> Program:
    """Two views, and a loss that compares them."""
    traits = frozenset(["image", "conv", "norm", "batchnorm", "tuple", "contrastive", *more.pop("traits", "").split()])
    return Program(f"lightly/{name}", "lightly", model, views, loss, limit, traits=traits, **{"lr": 3e-3, **more})


def programs() -> Iterator[Program]:
    """By what keeps the features apart."""
    project = lambda: Projected(heads.SimCLRProjectionHead(32, 32, 16))  # noqa: E731
    wide = lambda: Projected(heads.BarlowTwinsProjectionHead(32, 32, 32))  # noqa: E731
    yield program("NTXentLoss", project, both(lambda: losses.NTXentLoss(temperature=0.5)), 0.95)
    yield program("DCLLoss", project, both(lambda: losses.DCLLoss(temperature=0.5)), 0.5, given={"unbounded": True})
    yield program("BarlowTwinsLoss", wide, both(lambda: losses.BarlowTwinsLoss()), 1.5, traits="terms")
    yield program("VICRegLoss", wide, both(lambda: losses.VICRegLoss()), 9.0, traits="terms")
    yield program("SimSiam", Siamese, siamese, 0.1)
    yield program(
        "BYOL",
        lambda: Teacher(lambda: heads.BYOLProjectionHead(32, 32, 16), predicts=True),
        byol,
        0.02,
        traits="adapter",
    )
    yield program(
        "DINO", lambda: Teacher(lambda: heads.DINOProjectionHead(32, 32, 16, 24)), dino, 0.1, traits="adapter"
    )
    yield program("SwaV", Clusters, swapped, 0.8, traits="terms")


class Clusters(nn.Module):
    """A projection, and prototypes that it is compared with."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.head, self.prototypes = heads.SwaVProjectionHead(32, 32, 16), modules.heads.SwaVPrototypes(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        """How near each image is to each prototype."""
        features = nn.functional.normalize(self.head(self.backbone(x)), dim=1)
        out: Tensor = self.prototypes(features)
        return out


def swapped(model: Any, batch: Any) -> Tensor:
    """Each view tells the cluster of the other."""
    loss: Tensor = losses.SwaVLoss()([model(batch[0]), model(batch[1])], [])
    return loss.mean()  # of one element
