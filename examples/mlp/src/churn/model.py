"""The network."""

from __future__ import annotations

from torch import Tensor, nn

FEATURES = 12


class ChurnNet(nn.Module):
    """Standardised features (B, 12) to one logit per customer, (B,)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).squeeze(-1)
