"""The picture that shows what was missed: the cameras, or the depth of the frame that is furthest off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_overfit.report.page.images import Frame, Picture, Pictures
from pytest_overfit.report.page.sentences import missed
from pytest_overfit.report.record.document import Document
from pytest_overfit.run.record import FramePrediction

Kind = Literal["camera", "depth"]
CAMERAS = "cameras.svg"
ROW = ("depth_true", "depth_predicted", "depth_error")  # beside each other
JUDGED: Mapping[Kind, tuple[str, ...]] = {
    "camera": ("rotation_deg", "translation_deg", "fov_deg"),
    "depth": ("abs_rel", "delta_1_25"),
}
OF_DEPTH = ("AbsRel", "delta<1.25")  # what a finding says of depth, everything else is said of cameras


@dataclass(frozen=True)
class Telling:
    """Pictures in a row, as wide as the page, and what they show in words; ``frame`` is theirs where they have one."""

    pictures: tuple[Picture, ...]
    numbers: str
    frame: int | None = None


def telling_of(document: Document, pictures: Pictures) -> Telling | None:
    """What is shown beside the cause; None where nothing that can be seen was missed."""
    for kind in _furthest_first(document):
        cameras = next((each for each in pictures.others if each.file == CAMERAS), None)
        if kind == "camera" and cameras is not None:
            return Telling((cameras,), _numbers(document, kind))
        frame = _worst_frame(document, pictures) if kind == "depth" else None
        if frame is not None:
            row = tuple(frame.panels[name] for name in ROW if name in frame.panels)
            return Telling(row, _numbers(document, kind, f"frame {frame.number} "), frame.number)
    return None


def prediction_limits(document: Document) -> Mapping[str, float]:
    """Key of ``FramePrediction`` -> the limit that its value was held against, as the settings have it."""
    given = document.setting_values.get("overfit.criteria.prediction", "")
    return {name: float(limit) for name, limit in re.findall(r"(\w+) ([\d.][\d.e-]*)", given)}


def _furthest_first(document: Document) -> list[Kind]:
    """What was missed of cameras and depth, what is off by more times of what is allowed first."""
    lost = {finding.name: finding for finding in missed(document)}
    limits = prediction_limits(document)
    frames = document.result.record.predictions if document.result else ()
    off: dict[Kind, float] = {}
    for kind, keys in JUDGED.items():
        if "prediction" in lost and limits:
            worst = max((_times(frame, key, limits) for frame in frames for key in keys), default=0.0)
            off |= {kind: worst} if worst > 1 or kind in lost else {}
        elif kind in lost:
            margin = lost[kind].margin
            off[kind] = 1 / margin if margin and margin > 0 else float("inf")
    return sorted(off, key=lambda kind: -off[kind])


def _times(frame: FramePrediction, key: str, limits: Mapping[str, float]) -> float:
    """How many times as far off as is allowed."""
    value, limit = getattr(frame, key), limits.get(key)
    if value is None or limit is None:
        return 0.0
    error, allowed = (1 - value, 1 - limit) if key == "delta_1_25" else (value, limit)
    return float("inf") if error != error or allowed <= 0 else float(error / allowed)


def _worst_frame(document: Document, pictures: Pictures) -> Frame | None:
    frames = document.result.record.predictions if document.result else ()
    off = {frame.frame: frame.abs_rel or 0.0 for frame in frames}
    shown = [frame for frame in pictures.frames if "depth_error" in frame.panels]
    return max(shown, key=lambda frame: off.get(frame.number, 0.0), default=None)


def _numbers(document: Document, kind: Kind, frame: str = "") -> str:
    """The same in words, of every frame that is off, or of one."""
    said = next((finding.observed for finding in missed(document) if finding.name == "prediction"), "")
    of_seed, rest = re.fullmatch(r"(seed \d+: )?(.*)", said, re.DOTALL).groups()  # type: ignore[union-attr]
    of_kind = [part for part in rest.split("; ") if any(word in part for word in OF_DEPTH) == (kind == "depth")]
    parts = [part for part in of_kind if part.startswith(frame)]
    return f"{of_seed or ''}{'; '.join(parts)}" if any(parts) else ""
