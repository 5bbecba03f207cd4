"""The optimizer of every run of ours."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def configure_optimizer(
    parameters: Iterable[Tensor], lr: float = 3e-3, weight_decay: float = 0.01
) -> torch.optim.AdamW:
    """AdamW that decays matrices, and leaves norms and biases alone."""
    chosen = list(parameters)
    groups = [
        {"params": [p for p in chosen if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in chosen if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
