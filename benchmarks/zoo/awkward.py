# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Healthy models with habits that a check may trip over."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, mlp
from benchmarks.zoo.dense import classify, labelled, targets
from benchmarks.zoo.vision import adam, labelled_images

Batch = dict[str, Any]
Optimizer = torch.optim.Optimizer


class FromBytes(nn.Module):
    """Normalises its uint8 images itself."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(127.5))
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images.float() - self.mean) / 64)


def uint8_images() -> Setup:
    """No float in the batch."""
    batch = labelled_images()
    batch["x"] = (64 * batch["x"] + 127.5).clamp(0, 255).to(torch.uint8)
    return Setup(FromBytes(), batch, classify)


class LayerScale(nn.Module):
    """Residual blocks scaled by a vector that starts at 1e-6 (Touvron et al., 2021): tiny gradients inside."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(20, width), nn.Linear(width, 5)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), *mlp(width, 128, width)) for _ in range(3))
        self.scales = nn.ParameterList(nn.Parameter(1e-6 * torch.ones(width)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block, scale in zip(self.blocks, self.scales, strict=True):
            x = x + scale * block(x)
        return self.head(x)


def layer_scale() -> Setup:
    """The inside of a block gets gradients a million times smaller than the rest."""
    return Setup(LayerScale(), labelled(), classify)


def tiny_backbone_rate() -> Setup:
    """A backbone under a learning rate of 1e-6 moves, by very little."""
    model = mlp(20, 128, 128, 5)
    groups: list[dict[str, Any]] = [
        {"params": list(model[:2].parameters()), "lr": 1e-6},
        {"params": list(model[2:].parameters()), "lr": 2e-3},
    ]
    return Setup(model, labelled(), classify, optimizer=torch.optim.AdamW(groups, weight_decay=0.0))


def gradual_unfreezing() -> Setup:
    """The head alone for 20 steps, then everything: the user's step sets requires_grad."""
    model = mlp(20, 128, 128, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    done = 0

    def step(model: nn.Sequential, batch: Batch, optimizer: Optimizer) -> Tensor:
        nonlocal done
        model[:4].requires_grad_(done >= 20)
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        done += 1
        return loss.detach()

    return Setup(model, labelled(), step=step, optimizer=optimizer)


class MovingCodebook(nn.Module):
    """Unit vectors that follow the mean of what falls to each of them, in the forward pass, without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(48, 96, 4 * 8), mlp(4 * 8, 96, 48)
        self.codes: Tensor
        self.register_buffer("codes", F.normalize(torch.randn(16, 8), dim=-1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latent = F.normalize(self.encoder(x).unflatten(1, (4, 8)), dim=-1)
        chosen = (latent @ self.codes.T).argmax(-1)
        if self.training:
            with torch.no_grad():
                share = F.one_hot(chosen.flatten(), 16).float()
                self.codes.copy_(F.normalize(self.codes + 0.1 * share.T @ latent.flatten(0, 1), dim=-1))
        code = self.codes[chosen]
        return self.decoder((latent + (code - latent).detach()).flatten(1)), F.mse_loss(latent, code)


def moving_codebook() -> Setup:
    """Every call in training mode changes the model, with or without an optimizer."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        output, commitment = model(batch)
        return F.mse_loss(output, batch) + 0.25 * commitment

    return Setup(MovingCodebook(), torch.randn(6, 48, generator=fixed()), loss, optimizer=adam(2e-3))


def batch_with_none_and_numpy() -> Setup:
    """Numpy arrays, None, names and numbers next to the tensors."""
    batch = targets()
    data = {
        "x": batch["x"].numpy(),
        "y": batch["y"],
        "mask": None,
        "info": [{"scene": "kitchen", "frame": index, "scale": 0.5} for index in range(16)],
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(torch.from_numpy(batch["x"])), batch["y"])

    return Setup(mlp(20, 128, 128, 3), data, loss)


def target_of_another_task() -> Setup:
    """A data set with labels and values, of which this model learns the values."""
    batch = {**targets(), "label": labelled()["y"]}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch["x"]), batch["y"])

    return Setup(mlp(20, 128, 128, 3), batch, loss)


class Encoding(UserDict[str, Any]):
    """A mapping that is no dict, as tokenizers return."""


def user_dict_batch() -> Setup:
    """The batch goes into the model by name."""
    batch = Encoding(input_ids=torch.randint(0, 30, (8, 6), generator=fixed()), labels=labelled(count=8)["y"])
    model = nn.Sequential(nn.Embedding(30, 16), nn.Flatten(), mlp(96, 96, 5))

    def loss(model: nn.Module, batch: Encoding) -> Tensor:
        return F.cross_entropy(model(batch["input_ids"]), batch["labels"])

    return Setup(model, batch, loss)


class TrainingStep(nn.Module):
    """Brings its loss as a method, and logs what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(20, 128, 128, 3)
        self.logged: dict[str, float] = {}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.logged["loss"] = loss.item()
        return loss


def training_step_method() -> Setup:
    """The model is never called: it has no forward."""
    batch = targets()
    return Setup(TrainingStep(), (batch["x"], batch["y"]), lambda model, batch: model.training_step(batch))


def maml() -> Setup:
    """One gradient step per task inside the loss, by functional_call (Finn et al., 2017): second derivatives."""
    source = fixed()
    x = 4 * torch.rand(2, 4, 10, 1, generator=source) - 2
    phase = torch.rand(4, 1, 1, generator=source) * 2
    batch = {"support": (x[0], torch.sin(x[0] + phase)), "query": (x[1], torch.sin(x[1] + phase))}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        weights = dict(model.named_parameters())
        losses = []
        for xs, ys, xq, yq in zip(*batch["support"], *batch["query"], strict=True):
            inner = F.mse_loss(model(xs), ys)
            slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
            adapted = {name: w - 0.1 * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
            losses.append(F.mse_loss(torch.func.functional_call(model, adapted, (xq,)), yq))
        return torch.stack(losses).mean()

    return Setup(mlp(1, 48, 48, 1, activation=nn.Tanh), batch, loss, optimizer=adam(3e-3))


class Detector(nn.Module):
    """Losses in training mode, detections in evaluation mode, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), mlp(768, 96, 96), nn.ReLU())
        self.box, self.label = nn.Linear(96, 4), nn.Linear(96, 5)

    def forward(self, images: list[Tensor], goals: list[Batch] | None = None) -> Any:
        features = self.trunk(torch.stack(images))
        boxes, logits = self.box(features), self.label(features)
        if not self.training:
            return [{"box": box, "label": row.argmax()} for box, row in zip(boxes, logits, strict=True)]
        assert goals is not None
        box = F.smooth_l1_loss(boxes, torch.stack([goal["box"] for goal in goals]))
        return {"box": box, "label": F.cross_entropy(logits, torch.stack([goal["label"] for goal in goals]))}


def losses_in_training_mode() -> Setup:
    """The loss function works in training mode only."""
    images = labelled_images(4)
    goals = [
        {"box": box, "label": label}
        for box, label in zip(torch.rand(4, 4, generator=fixed(1)), images["y"], strict=True)
    ]

    def loss(model: nn.Module, batch: tuple[list[Tensor], list[Batch]]) -> dict[str, Tensor]:
        terms = model(*batch)
        return {"objective": sum(terms.values()), **terms}

    return Setup(Detector(), (list(images["x"]), goals), loss)


class Auxiliary(nn.Module):
    """A second head on the first layer that is there in training mode only, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(20, 96), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(96, 96), nn.ReLU())
        self.head, self.auxiliary = nn.Linear(96, 5), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Any:
        early = self.first(x)
        logits = self.head(self.second(early))
        return (logits, self.auxiliary(early)) if self.training else logits


def auxiliary_head() -> Setup:
    """The loss function takes both kinds of output."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        out = model(batch["x"])
        if not isinstance(out, tuple):
            return F.cross_entropy(out, batch["y"])
        return F.cross_entropy(out[0], batch["y"]) + 0.3 * F.cross_entropy(out[1], batch["y"])

    return Setup(Auxiliary(), labelled(), loss, optimizer=adam(2e-3))


def large_sum_relative_limit() -> Setup:
    """Targets in hundreds and a sum of squares: the limit is a share of the first value."""
    batch = targets()
    batch["y"] = 100 * batch["y"]
    settings = {"objective": {"below": 0.01, "relative": True}}
    data = (batch["x"], batch["y"])
    return Setup(mlp(20, 256, 256, 3), data, nn.MSELoss(reduction="sum"), optimizer=adam(5e-3), settings=settings)


class MaskedAutoencoder(nn.Module):
    """Half of the patches are hidden, others in every step (He et al., 2022)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(12, width), nn.Linear(width, 12)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(0.5 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.net = nn.TransformerEncoder(layer, 1, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        hide = torch.rand(patches.shape[:2]) < 0.5
        tokens = torch.where(hide[..., None], self.hidden, self.enter(patches)) + self.positions
        return self.leave(self.net(tokens)), hide


def masked_autoencoder() -> Setup:
    """Other patches are hidden in every step."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        restored, hide = model(batch)
        return (restored - batch)[hide].square().mean()

    patches = torch.randn(2, 16, 12, generator=fixed())
    return Setup(MaskedAutoencoder(), patches, loss, optimizer=adam(2e-3), settings={"stochastic": True})


CASES = cases(
    "awkward", uint8_images, layer_scale, tiny_backbone_rate, gradual_unfreezing, moving_codebook,
    batch_with_none_and_numpy, target_of_another_task, user_dict_batch, training_step_method, maml,
    losses_in_training_mode, auxiliary_head, large_sum_relative_limit, masked_autoencoder,
)  # fmt: skip
