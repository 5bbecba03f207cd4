"""Which keyword is spoken?"""

from __future__ import annotations

from torch import Tensor, nn

BANDS, KEYWORDS = 20, 5


class KeywordNet(nn.Module):
    """Log-mel frames (B, T, 20) to logits (B, 5): a convolution over time, a GRU, its last state."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(BANDS, width, 5, stride=2, padding=2)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, KEYWORDS)

    def forward(self, frames: Tensor) -> Tensor:
        features = self.convolution(frames.transpose(1, 2)).relu().transpose(1, 2)
        _, last = self.recurrent(features)
        return self.head(last[0])
