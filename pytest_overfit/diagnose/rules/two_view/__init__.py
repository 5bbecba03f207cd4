"""Causes of two-view batches: scale, units, camera conventions, alignment, sky, confidence. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.rules.two_view import agreement, depths, predictions
from pytest_overfit.diagnose.views import ViewsPredicted, ViewsSeen

RULES: tuple[Callable[[ViewsSeen, ViewsPredicted | None], Iterator[Cause]], ...] = (
    *agreement.RULES,
    *depths.RULES,
    *predictions.RULES,
)
