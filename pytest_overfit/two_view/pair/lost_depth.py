"""Why nothing of the depth of a file is left to learn from: its unit, or its sky mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_overfit.two_view.pair.pair_files import SKY_LABEL, BoolArray, DepthArray, RawView

UNITS = {0.001: "millimetres", 0.01: "centimetres"}
MOST, LEAST = 0.5, 0.5  # share of the depth that is lost in one way, and that would be left otherwise


@dataclass(frozen=True)
class Lost:
    """What took the depth of a view: `told` with its numbers, what to `do`, and where. `mask`: its sky mask did."""

    told: str
    do: str
    place: Path | None
    mask: bool = False


def why_lost(view: RawView, *, remove_sky: bool, max_depth: float, factor: float | None) -> Lost | None:
    """What took the depth of a view that has none left, or next to none.

    Args:
        factor: what brings the depths of the pair into range, by `factor_in_range`.
    """
    held = view.depth > 0
    if not held.any():
        return None
    if remove_sky and view.labels is not None:
        sky = held & (view.labels == SKY_LABEL)
        if sky.sum() > MOST * held.sum() and sky.mean() > LEAST:
            return Lost(
                f"its sky mask is inverted: it leaves {_share(held & ~sky)} of the pixels with depth, and its "
                f"complement would leave {_share(sky)}",
                f"{view.files.mask.name if view.files.mask else 'the mask'}: label {SKY_LABEL} where sky is, and "
                "nowhere else",
                view.files.mask,
                mask=True,
            )
    near, far = (float(np.percentile(view.depth[held], share)) for share in (2, 98))
    if (view.depth[held] > max_depth).mean() <= MOST:
        return None
    held_there = f"its file holds {near:,.5g} to {far:,.5g}, above max_depth: {max_depth:g}"
    if factor is None:
        return Lost(held_there, f"depth in metres, or a max_depth above {far:,.5g}", view.files.depth)
    unit, file = UNITS[factor], view.files.depth.name
    told = f"depth in {unit}, in range times {factor:g}: {held_there}"
    return Lost(told, f"depth * {factor:g} in {file}: metres", view.files.depth)


def factor_in_range(
    raw: Sequence[RawView], agree: Callable[[Sequence[DepthArray]], bool], *, max_depth: float
) -> float | None:
    """The unit by which the depth beyond `max_depth` is in range: that under which the views agree, else the first."""
    fitting = [
        factor
        for factor in UNITS
        if all((factor * view.depth[view.depth > 0] <= max_depth).mean() > MOST for view in raw if view.depth.any())
    ]
    agreeing = (factor for factor in fitting if agree([np.float32(factor) * view.depth for view in raw]))
    return next(agreeing, next(iter(fitting), None))


def _share(pixels: BoolArray) -> str:
    return f"{100 * float(pixels.mean()):.1f} %"
