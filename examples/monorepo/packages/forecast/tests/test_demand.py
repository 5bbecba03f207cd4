"""Can the net memorise eight fortnights?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from demand import DemandNet, likelihood_terms


@pytest.mark.overfit(objective=-1.0, squared_error=0.01)
def test_memorises_eight_fortnights(overfit: Callable[..., Any], source: torch.Generator) -> None:
    """A likelihood may go below zero: its limit is stated, and a term with a floor has one beside it."""
    batch = torch.randn(8, 14, generator=source), torch.randn(8, generator=source)
    overfit(DemandNet, batch, likelihood_terms)
