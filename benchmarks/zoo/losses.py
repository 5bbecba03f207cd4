# mypy: disable-error-code="no-any-return"
"""Losses with a life of their own: contrastive, ranking, masked, weighted, learned, physical, noisy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, mlp
from benchmarks.zoo.dense import classify, labelled, regress, targets
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]


class TwoTowers(nn.Module):
    """One encoder per modality and a learned temperature (Radford et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = mlp(32, 96, 32), mlp(24, 96, 32)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        left, right = F.normalize(self.image(image), dim=1), F.normalize(self.text(text), dim=1)
        return self.log_scale.exp() * left @ right.T


def contrastive_two_towers() -> Setup:
    """Symmetric InfoNCE over pairs of an image and a text."""
    source = fixed()
    batch = {"image": torch.randn(12, 32, generator=source), "text": torch.randn(12, 24, generator=source)}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(**batch)
        index = torch.arange(len(logits))
        return (F.cross_entropy(logits, index) + F.cross_entropy(logits.T, index)) / 2

    return Setup(TwoTowers(), batch, loss)


def simclr() -> Setup:
    """NT-Xent of two noisy views under a projection head; the negatives put a floor under it, so a limit is stated."""
    source = fixed()
    x = torch.randn(12, 24, generator=source)
    views = [x + 0.6 * torch.randn(x.shape, generator=source) for _ in range(2)]
    model = nn.Sequential(mlp(24, 96, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        z = F.normalize(model(torch.cat(batch)), dim=1)
        logits = (z @ z.T / 0.2).fill_diagonal_(-1e9)
        return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))

    return Setup(model, views, loss, settings={"objective": 0.1})


def triplet() -> Setup:
    """Normalised embeddings; the loss is exactly zero once every triplet keeps its margin."""
    source = fixed()
    batch = {name: torch.randn(12, 20, generator=source) for name in ("anchor", "positive", "negative")}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        anchor, positive, negative = (F.normalize(model(batch[n]), dim=1) for n in ("anchor", "positive", "negative"))
        return F.triplet_margin_loss(anchor, positive, negative, margin=0.3)

    return Setup(mlp(20, 96, 24), batch, loss)


def siamese() -> Setup:
    """One encoder, two inputs, the contrastive loss of Hadsell et al. (2006)."""
    source = fixed()
    x, same = torch.randn(2, 12, 20, generator=source), torch.arange(12) % 2 == 0

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        distance = F.pairwise_distance(model(batch[0]), model(batch[1]))
        return torch.where(batch[2], distance.square(), F.relu(1 - distance).square()).mean()

    model = nn.Sequential(mlp(20, 96, 24), nn.Tanh())
    return Setup(model, (x[0], x[1], same), loss)


def quantile_regression() -> Setup:
    """The pinball loss of three quantiles; one target per sample, so they all meet."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        error = batch["y"] - model(batch["x"])
        levels = torch.tensor([0.1, 0.5, 0.9])
        return torch.maximum(levels * error, (levels - 1) * error).mean()

    return Setup(mlp(20, 128, 3), targets(outputs=1), loss, optimizer=adam(1e-3))


class Cosine(nn.Module):
    """Logits are scaled cosines between features and class vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(20, 96, 32)
        self.classes = nn.Parameter(torch.randn(5, 32))

    def forward(self, x: Tensor) -> Tensor:
        return 16 * F.normalize(self.body(x), dim=1) @ F.normalize(self.classes, dim=1).T


def cosine_head_int_labels() -> Setup:
    """Labels of type int32, cast in the loss."""
    batch = labelled()
    batch["y"] = batch["y"].int()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"].long())

    return Setup(Cosine(), batch, loss)


class TwoTasks(nn.Module):
    """A trunk with a class head and a value head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(mlp(20, 96, 96), nn.ReLU())
        self.label, self.value = nn.Linear(96, 5), nn.Linear(96, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {"label": self.label(features), "value": self.value(features)}


class UncertaintyWeights(nn.Module):
    """Sum of exp(-s) L + s over the tasks with learned s (Kendall et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, predicted: Batch, target: Batch) -> dict[str, Tensor]:
        label = F.cross_entropy(predicted["label"], target["label"])
        value = F.mse_loss(predicted["value"], target["value"])
        weighted = torch.stack([label, value]) * (-self.log_variance).exp() + self.log_variance
        return {"objective": weighted.sum(), "label": label, "value": value}


def two_task_batch() -> Batch:
    """Features, labels and values of the same samples."""
    return {"x": labelled()["x"], "label": labelled()["y"], "value": targets(outputs=2)["y"]}


def uncertainty_weighted_tasks() -> Setup:
    """The weights live in the loss module and train with the model; the objective falls below zero, as stated."""
    model, loss = TwoTasks(), UncertaintyWeights()
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=2e-3)
    target = two_task_batch()
    return Setup(model, (target.pop("x"), target), loss, optimizer=optimizer, settings={"objective": -1.0})


def two_tasks_with_metrics() -> Setup:
    """A fixed weight per task; accuracy, a metric that climbs, rides along among the terms."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        predicted = model(batch["x"])
        label = F.cross_entropy(predicted["label"], batch["label"])
        value = F.smooth_l1_loss(predicted["value"], batch["value"])
        accuracy = (predicted["label"].argmax(1) == batch["label"]).float().mean()
        return label + 0.5 * value, {"label": label, "value": value, "accuracy": accuracy, "weight": 0.5}

    return Setup(TwoTasks(), two_task_batch(), loss)


def per_sample_weights() -> Setup:
    """Two samples weigh nothing at all."""
    batch = targets()
    batch["weight"] = torch.rand(16, generator=fixed(1))
    batch["weight"][:2] = 0.0

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        error = (model(batch["x"]) - batch["y"]).square().mean(1)
        return (error * batch["weight"]).sum() / batch["weight"].sum()

    return Setup(mlp(20, 128, 128, 3), batch, loss)


def missing_targets() -> Setup:
    """Missing values are NaN in the target and masked with torch.where before they meet the prediction."""
    batch = targets()
    batch["y"][torch.rand(16, 3, generator=fixed(1)) < 0.3] = math.nan

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        known = ~batch["y"].isnan()
        error = model(batch["x"]) - torch.where(known, batch["y"], 0.0)
        return (error.square() * known).sum() / known.sum()

    return Setup(mlp(20, 128, 128, 3), batch, loss)


def padded_regression() -> Setup:
    """Sequences of several lengths; a mean over what is there."""
    source = fixed()
    lengths = torch.tensor([10, 7, 4, 9])
    mask = torch.arange(10) < lengths[:, None]
    x, y = torch.randn(4, 10, 8, generator=source), torch.randn(4, 10, generator=source)
    batch = {"x": x * mask[..., None], "y": y * mask, "mask": mask}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        error = F.huber_loss(model(batch["x"]).squeeze(-1), batch["y"], reduction="none")
        return (error * batch["mask"]).sum() / batch["mask"].sum()

    return Setup(mlp(8, 128, 128, 1), batch, loss)


def label_smoothing() -> Setup:
    """Smoothing by 0.1 over 5 classes leaves 0.39 as the floor, so a limit is stated."""
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    batch = labelled()
    return Setup(mlp(20, 128, 128, 5), (batch["x"], batch["y"]), criterion, settings={"objective": 0.45})


def soft_labels_kl() -> Setup:
    """Probabilities as targets, by the divergence: zero is reached."""
    target = (2 * torch.randn(16, 5, generator=fixed(1))).softmax(1)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.kl_div(model(batch["x"]).log_softmax(1), batch["y"], reduction="batchmean")

    return Setup(mlp(20, 128, 128, 5), {"x": labelled()["x"], "y": target}, loss)


def distillation() -> Setup:
    """A fixed teacher next to the student, both in one mapping; only the student trains."""
    models = {"student": mlp(20, 96, 5), "teacher": mlp(20, 64, 5).requires_grad_(False)}

    def loss(models: Mapping[str, nn.Module], batch: Batch) -> Tensor:
        with torch.no_grad():
            goal = (4 * models["teacher"](batch["x"])).softmax(1)
        return F.kl_div(models["student"](batch["x"]).log_softmax(1), goal, reduction="batchmean")

    return Setup(models, {"x": labelled()["x"]}, loss)


def focal_loss() -> Setup:
    """(1 - p)^2 times the cross entropy (Lin et al., 2017)."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        entropy = F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
        return ((1 - (-entropy).exp()).square() * entropy).mean()

    return Setup(mlp(20, 128, 128, 5), labelled(), loss)


def hinge_loss() -> Setup:
    """Exactly zero, gradients included, once every margin is kept."""
    batch = labelled()
    return Setup(mlp(20, 128, 5), (batch["x"], batch["y"]), nn.MultiMarginLoss())


def pinn() -> Setup:
    """u'' = -pi^2 sin(pi x) with u = 0 at the ends: derivatives of the network inside the loss."""
    batch = {"inside": torch.linspace(-0.98, 0.98, 32)[:, None], "ends": torch.tensor([[-1.0], [1.0]])}

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x = batch["inside"].clone().requires_grad_(True)
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        residual = (curvature / math.pi**2 + torch.sin(math.pi * x)).square().mean()
        ends = model(batch["ends"]).square().mean()
        return {"objective": residual + ends, "residual": residual, "ends": ends}

    return Setup(mlp(1, 48, 48, 1, activation=nn.Tanh), batch, loss, optimizer=adam(3e-3))


def gradient_penalty() -> Setup:
    """An energy and its negative gradient, the force, of every sample."""
    source = fixed()
    batch = {"x": torch.randn(8, 6, generator=source), "energy": torch.randn(8, 1, generator=source)}
    batch["force"] = 0.3 * torch.randn(8, 6, generator=source)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        x = batch["x"].detach().requires_grad_()
        energy = model(x)
        (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return F.mse_loss(energy, batch["energy"]) + F.mse_loss(-slope, batch["force"])

    return Setup(mlp(6, 96, 96, 1, activation=nn.SiLU), batch, loss, optimizer=adam(3e-3))


def noisy_but_falling() -> Setup:
    """New noise on the input in every step, plain SGD: the curve is rough and falls; its mean is judged."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        noisy = {**batch, "x": batch["x"] + 0.3 * torch.randn_like(batch["x"])}
        return classify(model, noisy)

    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.5)  # noqa: E731
    return Setup(mlp(20, 128, 128, 5), labelled(), loss, optimizer=sgd, settings={"stochastic": True})


def regularised() -> Setup:
    """A penalty on the weights by hand; its terms are shown."""

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        fit = regress(model, batch)
        penalty = sum((p.square().sum() for p in model.parameters()), torch.zeros(()))
        return {"objective": fit + 1e-5 * penalty, "fit": fit, "penalty": penalty}

    return Setup(mlp(20, 128, 128, 3), targets(), loss)


CASES = cases(
    "losses", contrastive_two_towers, simclr, triplet, siamese, quantile_regression, cosine_head_int_labels,
    uncertainty_weighted_tasks, two_tasks_with_metrics, per_sample_weights, missing_targets, padded_regression,
    label_smoothing, soft_labels_kl, distillation, focal_loss, hinge_loss, pinn, gradient_penalty,
    noisy_but_falling, regularised,
)  # fmt: skip
