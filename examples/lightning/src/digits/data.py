"""Pictures of noise with a label each: enough to be memorised."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class DigitsData(LightningDataModule):
    """Batches of (pictures (B, 1, 12, 12), labels (B)), shuffled as training wants them."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        source = torch.Generator().manual_seed(0)
        self.pictures = TensorDataset(torch.randn(64, 1, 12, 12, generator=source), torch.arange(64) % 10)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.pictures, batch_size=self.batch_size, shuffle=True)
