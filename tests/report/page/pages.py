"""Pages of documents, as a reader sees them; and what stands beside a record in its folder."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.document import Change, Comparison, Curve, Document
from pytest_overfit.report.record.folder import folder_of
from pytest_overfit.result import OverfitResult
from pytest_overfit.settings.criteria import Limit
from tests.support.documents import Pictures, all_panels, finished
from tests.support.records import record


def page_of(report: Path, document: Document) -> str:
    write_pages(report, [document])
    return (folder_of(report, document) / "index.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """What a reader sees: no tags, no scripts, single spaces."""
    shown = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<wbr>|<[^>]*>", lambda m: "" if m[0] == "<wbr>" else " ", shown)).split())


def charts_in(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    charts: list[dict[str, Any]] = json.loads(found[1])
    return charts


def plain(**changes: Any) -> Document:
    """A document of a run that was never made."""
    made = record(**changes)
    finding = Finding("objective", True, "objective 0.005", "< 0.01 for 5 steps in a row", steps_to_pass=91, margin=2.0)
    return finished("plain.yaml", OverfitResult(made, (finding,)), limits={"objective": Limit(below=0.01)})


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """The PNG files beside a record."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, pixels in all_panels(pictures).items():
        Image.fromarray(pixels).save(folder / f"{stem}.png")


def compared(result: OverfitResult) -> Comparison:
    """A run against a saved one that took half as many steps."""
    steps = tuple(range(1, 1 + result.record.steps // 2))
    curves = {
        name: Curve(steps, tuple(curve[2 * step - 1] for step in steps)) for name, curve in result.record.curves.items()
    }
    changes = (
        Change("steps to pass", 80.0, 160.0, 2.0, (2.0, 2.0), 1, True, allowed=1.5),
        Change("objective", 0.008, 0.007, 0.875, (0.875, 0.875), 1, False),
        Change("step_ms", 4.0, 4.2, 1.05, (1.05, 1.05), 1, False, allowed=1.5),
    )
    return Comparison("tiny.yaml", "2026-02-01T09:00:00+01:00", changes, curves, "another torch: 2.4 then, 2.6 now")
