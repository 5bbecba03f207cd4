"""What the pages of a report weigh, and how fast they are written and opened.

    python benchmarks/pages.py [--repeats 5] [--keep FOLDER]

Two cases: a run of 3,000 steps with eight loss terms, validation, 20 module groups and two frames of 518 x 476 pictures
(promised: under 5 MB in all that the page loads, open in under 2 s), and an overview of 200 runs (promised: under 3 s).
Opened is a page when its charts are drawn, in Chromium without a window, from a file, in a new context without a cache;
the figure is the median. Without Chromium the sizes and the times of writing are printed alone.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import folder_of, write_document
from pytest_overfit.report.record.run_ids import run_id
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.record import FramePrediction, ParameterRecord, RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.two_view.pictures.drawing import save_png

STEPS, TERMS, GROUPS, PARAMETERS = 3000, 8, 20, 1200
SIZE = (518, 476)
SCALES = {  # as pytest_overfit/two_view/pictures/frames.py writes them
    "depth_true": "0.5 1.6 normalised",
    "depth_predicted": "0.5 1.6 normalised",
    "depth_error": "0 0.1 normalised",
    "confidence": "1.02 7.9",
}
PANELS = ("image", "depth_true", "depth_predicted", "depth_error", "confidence")
DRAWN = "[...document.querySelectorAll('[data-chart]')].every((chart) => chart.dataset.state === 'drawn')"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def noisy_fall(steps: int, seed: int) -> tuple[float, ...]:
    """A curve with as much noise as there is in training: nothing of it can be left out."""
    noise = np.random.default_rng(seed).normal(0, 0.2, steps)
    return tuple(math.exp(-6 * step / steps + noise[step]) for step in range(steps))


def long_run(steps: int = STEPS) -> Document:
    """A run as long and as wide as those of a team are."""
    curves = {name: noisy_fall(steps, seed) for seed, name in enumerate(["objective", *map(str, range(TERMS - 1))])}
    val_steps = tuple(range(50, steps + 1, 50))
    record = RunRecord(
        name="long",
        seed=0,
        device="cpu",
        planned_steps=steps,
        steps=steps,
        stop="max_steps",
        seconds=900.0,
        curves=curves,
        val_steps=val_steps,
        val_curves={name: tuple(curve[step - 1] for step in val_steps) for name, curve in curves.items()},
        learning_rate=tuple(1e-4 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)),
        grad_norms={f"group_{seed}": noisy_fall(steps, seed) for seed in range(GROUPS)},
        parameters=tuple(
            ParameterRecord(
                f"aggregator.blocks.{i // 12}.layer_{i % 12}.weight", 1024, True, None, True, 0.1, 0.1, True
            )
            for i in range(PARAMETERS)
        ),
        predictions=tuple(FramePrediction(frame, 0.01, 0.99, 0.004, 0.12, 0.05, 0.1, 0.01) for frame in (0, 1)),
    )
    finding = Finding("objective", False, "objective 0.0102", "< 0.01 for 5 steps in a row", margin=0.98)
    cause = Cause("lr-low", "(Adam), group 0", "passes in 140 steps with a rate of 0.01", "set lr=0.01", "proven")
    return Document(
        id=run_id("long.yaml"),
        title="long.yaml",
        session="s",
        state="finished",
        started="2026-01-01T00:00:00+00:00",
        written="2026-01-01T00:15:00+00:00",
        result=OverfitResult(record, (finding,), causes=(cause,)),
        limits={"objective": Limit(below=0.01)},
        pictures=tuple(f"frame_{frame}_{panel}.png" for frame in (0, 1) for panel in PANELS),
    )


def draw_pictures(folder: Path, names: Sequence[str]) -> None:
    """Pictures that compress about as badly as photographs do: smooth, with grain."""
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(0)
    for name in names:
        coarse = source.integers(0, 256, (17, 19, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = source.integers(-2, 3, smooth.shape, dtype=np.int16) if name.endswith("image.png") else 0
        scale = next((text for panel, text in SCALES.items() if name.endswith(f"{panel}.png")), "")
        save_png(folder / name, np.clip(smooth + grain, 0, 255).astype(np.uint8), scale)


def many_runs(count: int) -> list[Document]:
    """Runs of 400 steps; every fifth fails."""
    shown = replace(long_run(400), pictures=())
    assert shown.result is not None
    passed = replace(shown.result, findings=(replace(shown.result.findings[0], passed=True),), causes=())
    titles = [f"tests/models/test_family_{number % 17}.py::test_model[{number}]" for number in range(count)]
    return [
        replace(shown, id=run_id(title), title=title, result=passed if number % 5 else shown.result)
        for number, title in enumerate(titles)
    ]


def opening_seconds(page: Path, repeats: int) -> list[float] | None:
    """Seconds until a page is there and its charts are drawn; None without a browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        times = [_open_once(browser, page) for _ in range(repeats + 1)]
        browser.close()
    return times[1:]  # the first one warms the file cache


def _open_once(browser: Any, page: Path) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    started = time.perf_counter()
    opened.goto(page.as_uri())
    opened.wait_for_function(DRAWN)
    seconds = time.perf_counter() - started
    context.close()
    return seconds


def megabytes(files: Iterable[Path]) -> float:
    return sum(path.stat().st_size for path in files) / 1e6


def measure(name: str, report: Path, documents: Sequence[Document], page: Path, repeats: int, promised: str) -> None:
    started = time.perf_counter()
    write_pages(report, documents)
    written = time.perf_counter() - started
    times = opening_seconds(page, repeats)
    opened = "no Chromium" if times is None else f"{statistics.median(times):.2f} s (worst {max(times):.2f} s)"
    print(f"{name:24} written in {written:6.2f} s   opened in {opened}   promised: {promised}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="write the reports here, and keep them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.keep or Path(made)
        document, report = long_run(), folder / "long"
        run = folder_of(report, document)
        draw_pictures(run, document.pictures)
        write_document(report, document)
        measure("3,000 steps, 2 frames", report, [document], run / "index.html", given.repeats, "2 s")
        parts = {
            "page": megabytes(run.glob("*.html")),
            "pictures": megabytes(run.glob("*.png")),
            "scripts and style": megabytes((report / "assets").iterdir()),
        }
        shown = ", ".join(f"{name} {size:.2f} MB" for name, size in parts.items())
        print(f"{'':24} {shown}: {sum(parts.values()):.2f} MB   promised: 5 MB")
        print(f"{'':24} beside it, not loaded by it: record.json {megabytes(run.glob('*.json')):.2f} MB")
        report = folder / "many"
        measure("overview of 200 runs", report, many_runs(200), report / "index.html", given.repeats, "3 s")
        print(f"{'':24} overview {(report / 'index.html').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
