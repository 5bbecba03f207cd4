"""Can the net memorise ten recordings?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from keywords import BANDS, KEYWORDS, KeywordNet
from torch import nn


def test_memorises_ten_recordings(overfit: Callable[..., Any], source: torch.Generator) -> None:
    """Steps and seconds are the ini file's."""
    batch = torch.randn(10, 24, BANDS, generator=source), torch.arange(10) % KEYWORDS
    result = overfit(KeywordNet, batch, nn.CrossEntropyLoss())
    assert result.record.planned_steps == 400
