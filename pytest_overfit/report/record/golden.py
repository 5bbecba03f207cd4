"""Golden curves: the first losses of a run, step by step, against those of the same platform, torch and device."""

from __future__ import annotations

import itertools
import math
import platform
from collections.abc import Mapping

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.record.document import Change
from pytest_overfit.result import OverfitResult

CURVE = "curve"  # the quantity of ``--overfit-compare-fail``
STEPS = 100
Golden = Mapping[str, tuple[float, ...]]


def first_losses(result: OverfitResult) -> dict[str, tuple[float, ...]]:
    """Platform, torch, device and seed -> the first losses: nowhere else are they the same to the last bits."""
    here = f"{platform.system()} {platform.machine()}"
    records = [run.record for run in result.runs or (result,)]
    return {
        f"{here}, torch {record.environment.get('torch', '?')}, {record.device}, seed {record.seed}": tuple(
            itertools.takewhile(math.isfinite, record.curves.get("objective", ())[:STEPS])
        )
        for record in records
    }


def golden_change(saved: Golden, result: OverfitResult, allowed: float) -> Change:
    """The losses against the golden ones of this platform, at the first step that is too far, else at the worst.

    Raises:
        OverfitError: none was saved on this platform.
    """
    here = first_losses(result)
    gaps = [
        (abs(then - now) / max(abs(then), 0.01 * abs(saved[name][0]), 1e-30), step, then, now)
        for name, curve in here.items()
        for step, (then, now) in enumerate(zip(saved.get(name, ()), curve, strict=False), 1)
    ]
    if not gaps:
        raise OverfitError(
            f"no golden curve for {'; '.join(here)}",
            where=f"--overfit-compare-fail {CURVE}",
            allowed=f"one of: {'; '.join(saved)}" if saved else "what --overfit-save writes from this release on",
            hint="save it here too, under the same name: those of other platforms are kept",
        )
    gap, step, then, now = next((each for each in gaps if not each[0] <= allowed), max(gaps))
    return Change(CURVE, then, now, gap, (gap, gap), len(here), gap > allowed, step=step)


def golden_text(change: Change) -> str:
    """One line.

    Example:
        >>> golden_text(Change("curve", 0.5, 0.6, 0.2, (0.2, 0.2), 1, True, 1e-4, 7))
        'the loss of step 7: 0.5 -> 0.6, apart by 0.2 of it'
    """
    return f"the loss of step {change.step}: {change.then:.7g} -> {change.now:.7g}, apart by {change.ratio:.2g} of it"


def most_of(change: Change, *, named: bool) -> str:
    """What was allowed: of a quantity a ratio, of a curve a distance."""
    golden = change.quantity == CURVE
    return f"{f'{change.quantity} ' * (named or golden)}<= {change.allowed:.4g}{'x' * (not golden)}"
