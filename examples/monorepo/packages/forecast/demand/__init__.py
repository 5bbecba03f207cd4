"""How much is sold tomorrow, and how sure is that?"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_VARIANCE = 0.01


class DemandNet(nn.Module):
    """Fourteen days (B, 14) to the mean and the variance of the fifteenth, each (B,)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(14, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        )

    def forward(self, days: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.net(days).unbind(dim=-1)
        return mean, F.softplus(spread) + SMALLEST_VARIANCE


def likelihood_terms(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log likelihood, which has no floor, and the mean squared error, which has."""
    days, sold = batch
    mean, variance = model(days)
    return F.gaussian_nll_loss(mean, sold, variance), {"squared_error": F.mse_loss(mean, sold)}
