"""A contact sheet of a pair: one row per view, one column per question, captions with the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.check import PairReport, check_views
from pytest_overfit.two_view.pair.pair_files import SKY_LABEL
from pytest_overfit.two_view.pair.reprojection import Agreement, Lookup, view_agreement
from pytest_overfit.two_view.pictures.drawing import (
    FAINT,
    INK,
    INVALID,
    Panel,
    Pen,
    blank,
    colour_bar,
    fitted,
    save_png,
    wrapped,
)
from pytest_overfit.two_view.pictures.pair_panels import (
    ERROR_SCALE,
    OCCLUDED,
    SKY,
    ShownView,
    class_shares,
    depth_panel,
    depth_range,
    error_panel,
    mask_panel,
    median_error,
    points_panel,
    seen_from,
)

PANEL = 420  # pixels that a panel is wide, and at most as high
MARGIN, GAP, ROW_GAP = 40, 26, 28
HEAD, COLUMN_HEAD, CAPTION, FOOT = 116, 40, 60, 100
TITLE, HEADING, TEXT = 30, 21, 17
GOOD, BAD = (22, 130, 72), (190, 40, 30)
COLUMNS = ("image", "depth", "mask", "points of the other view", "geometry error")


@dataclass(frozen=True)
class Sheet:
    """The picture, and where the panels lie in it: `places[view][column]` is (x, y, scale) of the upper left corner."""

    panel: Panel
    places: tuple[tuple[tuple[int, int, float], ...], ...]
    report: PairReport


def contact_sheet(views: tuple[ShownView, ShownView], *, title: str, subtitle: str = "") -> Sheet:
    """Images, depths on one scale, masks, the points of each view in the other, and the geometry error.

    Raises:
        PairError: no view has a valid depth.
    """
    without_mask = {view.arrays.name: None for view in views if view.sky and view.labels is None}
    report = check_views([view.arrays for view in views], without_mask=without_mask)
    scale = depth_range(views)
    rows = [_row(views, number, scale, report) for number in (0, 1)]
    heights = [max(panel.shape[0] for panel, _, _ in row) for row in rows]
    width = 2 * MARGIN + len(COLUMNS) * PANEL + (len(COLUMNS) - 1) * GAP
    height = HEAD + COLUMN_HEAD + sum(heights) + 2 * CAPTION + ROW_GAP + FOOT + MARGIN
    pen = Pen(blank(width, height))
    _head(pen, width, title, subtitle, report)
    places, top = [], HEAD + COLUMN_HEAD
    for row, tallest in zip(rows, heights, strict=True):
        places.append(_place(pen, row, top))
        top += tallest + CAPTION + ROW_GAP
    _foot(pen, top - ROW_GAP + 16, views, scale)
    return Sheet(pen.panel, tuple(places), report)


def save_sheet(path: Path, sheet: Sheet) -> None:
    """Writes the sheet as PNG; a file that is there is replaced at once.

    Raises:
        PairError: the place cannot be written.
    """
    try:
        save_png(path, sheet.panel)
    except OSError as error:
        found = f"cannot be written: {error.strerror or error}"
        raise PairError(found, where=path, allowed="a file in a folder that can be written") from error


Cell = tuple[Panel, float, tuple[str, str]]


def _row(views: tuple[ShownView, ShownView], number: int, scale: tuple[float, float], report: PairReport) -> list[Cell]:
    """The panels of one view with their scale and captions, in the order of the columns."""
    view, other = views[number], views[1 - number]
    name, other_name = f"view {number + 1}", f"view {2 - number}"
    incoming, outgoing = seen_from(other, view), seen_from(view, other)
    stats, arrays = report.frames[number], view.arrays
    image, factor = fitted(arrays.image, PANEL, PANEL)
    depth, error = (fitted(panel, PANEL, PANEL) for panel in (depth_panel(view, *scale), error_panel(view, outgoing)))
    span = f"{_metres(stats.nearest)} to {_metres(stats.farthest)}" if stats.valid else "no depth at all"
    agreed = _agreement_text(view_agreement(view.arrays, other.arrays))
    landed = f"{_landed(incoming)} of them land on valid depth"
    return [
        (image, factor, (f"{name}: {view.scene}/{arrays.name}", f"{stats.width} x {stats.height} pixels")),
        (*depth, (f"{100 * stats.ratio:.1f} % valid", span)),
        (*_mask_cell(mask_panel(view), image, factor), _mask_caption(view)),
        (points_panel(other, view, incoming, scale=factor), factor, (f"points of {other_name} in {name}", landed)),
        (*error, (f"{name} against {other_name}: {_median(outgoing)}", agreed)),
    ]


def _mask_cell(mask: Panel | None, image: Panel, factor: float) -> tuple[Panel, float]:
    if mask is not None:
        return fitted(mask, PANEL, PANEL)
    empty = Pen(blank(image.shape[1], image.shape[0], (240, 241, 243)))
    empty.text((image.shape[1] / 2, image.shape[0] / 2), "no mask", size=HEADING, colour=FAINT, anchor="mm")
    return empty.panel, factor


def _mask_caption(view: ShownView) -> tuple[str, str]:
    if view.labels is None:
        return ("no mask file", "its sky cannot be removed" if view.sky else "sky is not removed")
    sky = 100 * float((view.labels == SKY_LABEL).mean())
    classes = len(class_shares([view]))
    kept = "" if view.sky else ", and its depth is kept"
    return (f"{classes} class{'' if classes == 1 else 'es'}", f"sky {sky:.1f} %{kept}")


def _agreement_text(found: Agreement) -> str:
    if not found.projected:
        return "no point meets depth of the other view"
    return (
        f"{100 * found.agree:.1f} % agree, {100 * found.occluded:.1f} % occluded, "
        f"{100 * found.violation:.1f} % contradict"
    )


def _median(found: Lookup) -> str:
    error = median_error(found)
    return "nothing to compare" if error != error else f"median {100 * error:.2f} %"


def _landed(found: Lookup) -> str:
    met = int((found.excess == found.excess).sum())
    return f"{100 * met / max(1, found.valid):.1f} %"


def _metres(value: float) -> str:
    return f"{value:.2f} m"


def _head(pen: Pen, width: int, title: str, subtitle: str, report: PairReport) -> None:
    room = (width - 2 * MARGIN - GAP) // 2
    pen.text((MARGIN, 26), title, size=TITLE, room=room)
    pen.text((MARGIN, 68), subtitle, size=TEXT, colour=FAINT, room=room)
    problems = report.problems
    verdict = "the pair is sound" if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    detail = report.headline() if not problems else problems[0]
    pen.text((width - MARGIN, 32), verdict, size=HEADING, colour=BAD if problems else GOOD, anchor="ra")
    for line, text in enumerate(wrapped(detail, TEXT, room, lines=2)):
        pen.text((width - MARGIN, 68 + 22 * line), text, size=TEXT, colour=FAINT, anchor="ra")
    for column, name in enumerate(COLUMNS):
        pen.text((_left(column), HEAD + 6), name, size=HEADING)


def _left(column: int) -> int:
    return MARGIN + column * (PANEL + GAP)


def _place(pen: Pen, row: Sequence[Cell], top: int) -> tuple[tuple[int, int, float], ...]:
    places = []
    for column, (panel, factor, captions) in enumerate(row):
        left = _left(column)
        pen.paste(panel, (left, top))
        for line, text in enumerate(captions):
            at = (left, top + panel.shape[0] + 9 + line * 24)
            pen.text(at, text, size=TEXT, colour=FAINT if line else INK, room=PANEL)
        places.append((left, top, factor))
    return tuple(places)


def _foot(pen: Pen, top: int, views: Sequence[ShownView], scale: tuple[float, float]) -> None:
    """The legends, each below its column."""
    bar = {"width": PANEL, "height": 16, "size": TEXT - 2}
    pen.paste(colour_bar(**bar, low=scale[0], high=scale[1], label=_metres), (_left(1), top))
    below, x = top + 56, _left(1)
    for colour, name in ((SKY, "sky"), (INVALID, "no valid depth")):
        x += pen.swatch((x, below), colour, name, size=TEXT)
    _class_legend(pen, (_left(2), top), views)
    for line, text in enumerate(
        ("in the colours of their own image, over the", "other one dimmed; hidden points are left out")
    ):
        pen.text((_left(3), top + 24 * line), text, size=TEXT, colour=FAINT, room=PANEL)
    error = colour_bar(**bar, low=0.0, high=100 * ERROR_SCALE, label=lambda value: f"{value:.3g} %")
    pen.paste(error, (_left(4), top))
    x = _left(4)
    for colour, name in ((OCCLUDED, "occluded"), (INVALID, "no depth to compare")):
        x += pen.swatch((x, below), colour, name, size=TEXT)


def _class_legend(pen: Pen, at: tuple[int, int], views: Sequence[ShownView]) -> None:
    """The largest classes by their ADE20K number, two lines of three."""
    left, top = at
    for index, (label, share, colour) in enumerate(class_shares(views)[:6]):
        name = "sky" if label == SKY_LABEL else f"class {label}:"
        place = (left + (index % 3) * (PANEL // 3), top + 26 * (index // 3))
        pen.swatch(place, colour, f"{name} {100 * share:.0f} %", size=TEXT)
