"""What is minimised, and what is reported beside it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def classification_terms(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Cross entropy under ``objective``, and the share of images that are classified right."""
    images, labels = batch
    logits = model(images)
    return {
        "objective": F.cross_entropy(logits, labels),
        "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
    }
