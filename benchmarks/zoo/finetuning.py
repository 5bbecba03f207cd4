# mypy: disable-error-code="no-any-return"
"""Models that train in part: LoRA, frozen and unused parts, frozen statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.zoo.case import Setup, cases, mlp
from benchmarks.zoo.dense import classify, labelled
from benchmarks.zoo.vision import adam


class LoRALinear(nn.Module):
    """A fixed linear layer plus B A x, with B zero at first (Hu et al., 2022)."""

    def __init__(self, base: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * x @ self.lora_a.T @ self.lora_b.T


def lora() -> Setup:
    """A has no gradient in the first step; the optimizer gets only what trains."""
    model = nn.Sequential(
        LoRALinear(nn.Linear(20, 96)), nn.ReLU(), LoRALinear(nn.Linear(96, 96)), nn.ReLU(), nn.Linear(96, 5)
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    return Setup(model, labelled(), classify, optimizer=optimizer)


class Finetuned(nn.Module):
    """A backbone, a pooler that some tasks use, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(mlp(20, 128, 128), nn.ReLU())
        self.pooler = nn.Linear(128, 128)
        self.head = mlp(128, 64, 5)

    def forward(self, x: Tensor, pooled: bool = False) -> Tensor:
        features = self.backbone(x)
        return self.head(torch.tanh(self.pooler(features)) if pooled else features)


def frozen_backbone() -> Setup:
    """No gradient is asked for in the backbone; all parameters go to the optimizer all the same."""
    model = Finetuned()
    model.backbone.requires_grad_(False)
    model.pooler.requires_grad_(False)
    return Setup(model, labelled(), classify, optimizer=torch.optim.AdamW(model.parameters(), lr=2e-3))


def backbone_left_out_of_the_optimizer() -> Setup:
    """Gradients reach the backbone, and on purpose nobody uses them."""
    model = Finetuned()
    model.pooler.requires_grad_(False)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=2e-3)
    return Setup(model, labelled(), classify, optimizer=optimizer, settings={"frozen": ["backbone.*"]})


def unused_pooler() -> Setup:
    """A part of the model that this loss does not use."""
    return Setup(Finetuned(), labelled(), classify, settings={"unused": ["pooler.*"]})


class FrozenStatistics(nn.Module):
    """A pretrained stem held in evaluation mode, whatever the mode of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU()).requires_grad_(False)
        self.head = mlp(64, 96, 5)

    def train(self, mode: bool = True) -> FrozenStatistics:
        super().train(mode)
        self.stem.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.stem(x)
        return self.head(features)


def frozen_batch_norm() -> Setup:
    """train() is overridden so that the statistics stay."""
    return Setup(FrozenStatistics(), labelled(), classify, optimizer=adam(2e-3))


CASES = cases(
    "finetuning", lora, frozen_backbone, backbone_left_out_of_the_optimizer, unused_pooler, frozen_batch_norm,
)  # fmt: skip
