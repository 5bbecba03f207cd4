"""The classifier with one mistake each."""

from __future__ import annotations

from typing import Any

import torch
from digits import Digits, ManualDigits
from torch import Tensor


class ForgottenHead(Digits):
    """The optimizer gets the backbone alone."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.backbone.parameters(), lr=self.hparams.lr)


class SoftmaxFirst(Digits):
    """``cross_entropy`` applies a softmax itself."""

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures).softmax(dim=1)


class NothingZeroed(ManualDigits):
    """Gradients of all steps add up."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        loss = Digits.training_step(self, batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().step()
