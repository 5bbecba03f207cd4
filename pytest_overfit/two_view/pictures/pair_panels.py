"""What a pair looks like, panel by panel: depths, masks, the points of one view in the other, where geometry disagrees.

A panel has the size of its view and is (H, W, 3) uint8 RGB. Depth is z in metres, 0 = invalid; world2cam, OpenCV axes.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.check import CheckedView, checked_view
from pytest_overfit.two_view.pair.pair_files import SKY_LABEL, ByteArray, PairFiles, RawView
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.two_view.pair.reprojection import TOLERANCE, Lookup, look_up
from pytest_overfit.two_view.pictures.drawing import Colour, Panel, coloured

SKY: Colour = (168, 206, 240)
OCCLUDED: Colour = (196, 200, 206)
ERROR_SCALE = 0.1  # relative depth error of the last colour
DOTS = 12_000  # points that are drawn into another view, roughly


@dataclass(frozen=True)
class ShownView:
    """One view as it is shown: `arrays` with the depth that training leaves valid, `labels` (H, W) or None.

    `sky` says whether label 2 has lost its depth.
    """

    scene: str
    arrays: CheckedView
    labels: ByteArray | None
    sky: bool = True


def views_on_disk(files: PairFiles, *, remove_sky: bool = True) -> tuple[ShownView, ShownView]:
    """The views as they lie on disk, with the depth cleaned as training does.

    Raises:
        PairError: a file cannot be read.
    """
    raw = [read_view(view) for view in files.views]
    first, second = (
        ShownView(view.files.scene, checked_view(view, remove_sky=remove_sky), view.labels, remove_sky) for view in raw
    )
    return first, second


def views_of_batch(
    files: PairFiles, *, img_size: int, aspect_ratio: float, patch_size: int, remove_sky: bool = True
) -> tuple[ShownView, ShownView]:
    """The views as the loader hands them to a model: cropped around the principal point and resized.

    Raises:
        ConfigError: the sizes do not fit together.
        PairError: a file cannot be read.
    """
    from pytest_overfit.two_view.data.transform import process_view, target_shape

    shape = target_shape(img_size, aspect_ratio, patch_size)

    def shown(raw: RawView) -> ShownView:
        arrays = process_view(raw, shape=shape, remove_sky=remove_sky)
        labels = None
        if raw.labels is not None:  # through the same crops and the same nearest neighbours as the depth
            as_depth = replace(raw, depth=(raw.labels + np.float32(1)).astype(np.float32), labels=None)
            moved = process_view(as_depth, shape=shape, remove_sky=False, depth_percentile=100.0).depth
            labels = np.maximum(moved - 1, 0).astype(np.uint8)
        checked = CheckedView(raw.files.tag, arrays.image, arrays.depth, arrays.intrinsics, arrays.extrinsics)
        return ShownView(raw.files.scene, checked, labels, remove_sky)

    first, second = (shown(read_view(view)) for view in files.views)
    return first, second


def depth_range(views: Sequence[ShownView]) -> tuple[float, float]:
    """The one scale of all depths, in metres.

    Raises:
        PairError: no view has a valid depth.
    """
    depths = np.concatenate([view.arrays.depth[view.arrays.depth > 0] for view in views])
    if not depths.size:
        raise PairError("no valid depth at all", where=" and ".join(view.arrays.name for view in views))
    low, high = float(depths.min()), float(depths.max())
    return low, high if high > low else low + 1e-3


def depth_panel(view: ShownView, low: float, high: float) -> Panel:
    """Depth in colours; the sky light blue, every other invalid pixel grey."""
    depth = view.arrays.depth
    panel = coloured(depth, low, high, depth > 0)
    if view.labels is not None:
        panel[(view.labels == SKY_LABEL) & ~(depth > 0)] = SKY
    return panel


def mask_panel(view: ShownView) -> Panel | None:
    """One colour per class, the sky always light blue; None without a mask."""
    return None if view.labels is None else np.asarray(_palette()[view.labels], dtype=np.uint8)


def class_shares(views: Sequence[ShownView]) -> list[tuple[int, float, Colour]]:
    """(class, share of all labelled pixels, colour), the largest first."""
    counts: Counter[int] = Counter()
    for view in views:
        if view.labels is not None:
            values, found = np.unique(view.labels, return_counts=True)
            counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    palette = _palette().tolist()
    return [(label, count / counts.total(), tuple(palette[label])) for label, count in counts.most_common()]


def seen_from(source: ShownView, target: ShownView) -> Lookup:
    """The valid pixels of `source` in the image of `target`."""
    return look_up(source.arrays, target.arrays)


def points_panel(source: ShownView, target: ShownView, found: Lookup, *, scale: float = 1.0) -> Panel:
    """The points of `source` as dots of its colours over the dimmed, grey image of `target`, at `scale` of its size.

    What `target` cannot see, because it has something in front of it, is left out.
    """
    height, width = target.arrays.depth.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    grey = np.asarray(Image.fromarray(target.arrays.image).resize(size, how).convert("L"))
    panel: Panel = np.repeat((110 + 0.4 * grey[..., None]).astype(np.uint8), 3, axis=2)
    every = max(1, round((found.valid / DOTS) ** 0.5))  # on a grid: scattered dots would hide what is beneath
    visible = np.nonzero(~(found.excess >= TOLERANCE) & (found.rows % every == 0) & (found.columns % every == 0))[0]
    visible = visible[np.argsort(-found.z[visible], kind="stable")]  # the near ones over the far ones
    columns = np.rint((found.u[visible] + 0.5) * scale - 0.5).astype(np.int64)
    rows = np.rint((found.v[visible] + 0.5) * scale - 0.5).astype(np.int64)
    colours = source.arrays.image[found.rows[visible], found.columns[visible]]
    for dv, du in ((0, 0), (0, 1), (1, 0), (1, 1)):
        panel[np.clip(rows + dv, 0, size[1] - 1), np.clip(columns + du, 0, size[0] - 1)] = colours
    return panel


def error_panel(source: ShownView, found: Lookup) -> Panel:
    """The relative depth error of every pixel of `source` against the other view's depth.

    Light grey where the other view has something in front (no error), dark grey where nothing can be compared.
    """
    error = np.full(source.arrays.depth.shape, np.nan)
    error[found.rows, found.columns] = np.abs(found.excess)
    panel = coloured(error, 0.0, ERROR_SCALE)
    hidden = found.excess >= TOLERANCE
    panel[found.rows[hidden], found.columns[hidden]] = OCCLUDED
    return panel


def median_error(found: Lookup) -> float:
    """The median relative depth error of the points that meet depth of the other view; NaN where none does.

    Hidden points count: under a wrong focal length most points can look hidden, and the few others agree by chance.
    """
    met = found.excess[np.isfinite(found.excess)]
    return float(np.median(np.abs(met))) if met.size else float("nan")


def _palette() -> ByteArray:
    """(256, 3) colours, soft and far apart for neighbouring numbers; the sky's own for the sky."""
    hues = [(label * 47 + 20) % 180 / 180 for label in range(256)]
    tones = [((90 + 40 * (label % 3)) / 255, (225 - 35 * (label % 2)) / 255) for label in range(256)]
    colours = [colorsys.hsv_to_rgb(hue, *tone) for hue, tone in zip(hues, tones, strict=True)]
    palette: ByteArray = (255 * np.array(colours)).round().astype(np.uint8)
    palette[SKY_LABEL] = SKY
    return palette
