from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def tickets() -> dict[str, Tensor]:
    """Six tickets of up to twelve tokens, padded with zeros."""
    source = torch.Generator().manual_seed(0)
    lengths = torch.tensor([12, 9, 7, 12, 10, 5])
    mask = (torch.arange(12) < lengths[:, None]).long()
    tokens = torch.randint(1, 100, (6, 12), generator=source)
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
