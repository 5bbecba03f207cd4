"""Documents of real runs, of a second or two each, for whatever is written out of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from benchmarks.gallery.registry import BUGS
from benchmarks.zoo.case import Setup
from pytest_overfit.api import overfit_config, run_overfit
from pytest_overfit.config.explain import explain_config
from pytest_overfit.config.loading import load_config
from pytest_overfit.document.folder import run_id
from pytest_overfit.document.record import Change, Comparison, Curve, Document, Pair, PairView, SettingRow, limits_of
from pytest_overfit.fixtures import dataset, loader
from pytest_overfit.pair.create import create_pair
from pytest_overfit.pair.render import render_source
from pytest_overfit.report.pictures import panels
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.parts import build_model
from pytest_overfit.run.pictures import FramePicture
from pytest_overfit.run.sample import Sample, draw_batch
from tests.support.configs import write_tiny

STARTED, WRITTEN = "2026-03-01T10:00:00+01:00", "2026-03-01T10:00:21+01:00"
Pictures = Sequence[FramePicture]


class Keeper(Observer):
    """An observer that keeps the pictures."""

    wants_pictures = True

    def __init__(self) -> None:
        self.pictures: Pictures = ()

    def on_pictures(self, pictures: Pictures) -> None:
        self.pictures = pictures


def document_of(title: str, result: OverfitResult | None, **changes: Any) -> Document:
    """The document of a finished run."""
    values: dict[str, Any] = {
        "id": run_id(title),
        "title": title,
        "session": "s1",
        "state": "finished",
        "started": STARTED,
        "written": WRITTEN,
        "result": result,
        "command": f"pytest {title!r}",
        "environment": {"python": "3.12", "pytest-overfit": "0.1.0"},
        **changes,
    }
    return Document(**values)


@lru_cache(maxsize=1)
def two_view() -> tuple[Document, Pictures]:
    """The tiny two-view run, which passes, and its pictures."""
    return _two_view("tiny.yaml")


@lru_cache(maxsize=1)
def frozen_trunk() -> tuple[Document, Pictures]:
    """The tiny two-view run with its depth frozen: it fails, and the cause is named."""
    return _two_view("frozen_trunk.yaml", "optim.frozen_module_names=[trunk]")


def _two_view(name: str, *overrides: str) -> tuple[Document, Pictures]:
    with TemporaryDirectory() as made:
        folder = Path(made)
        config = load_config(write_tiny(folder, name), ["logging.log_visuals=true", *overrides])
        source = render_source(folder / "source", width=160, height=120)
        files = create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair")
        drawn, differences = draw_batch(loader(config, files, dataset(config, config.train, files)))
    keeper = Keeper()
    sample = Sample(drawn, drawn, differences)
    result = overfit_config(config, build_model(config), sample, observers=lambda seed: (keeper,))
    shares = result.record.supervision.frames if result.record.supervision else ()
    views = tuple(
        PairView("0000", image, share.valid, share.total)
        for image, share in zip(("aerial.jpeg", "ground.jpeg"), shares, strict=True)
    )
    document = document_of(
        name,
        result,
        limits=limits_of(config.overfit.criteria.limits(), result.record),
        settings=tuple(SettingRow(*row) for row in explain_config(config)),
        pair=Pair("0000", views),
        command=f"pytest --overfit-config {name}",
        pictures=tuple(f"{stem}.png" for stem in _panels(keeper.pictures)),
    )
    return document, keeper.pictures


def _panels(pictures: Pictures) -> dict[str, Any]:
    return {
        f"frame_{picture.frame}_{panel}": pixels for picture in pictures for panel, pixels in panels(picture).items()
    }


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """The PNG files beside a record."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, pixels in _panels(pictures).items():
        Image.fromarray(pixels).save(folder / f"{stem}.png")


@lru_cache
def of_bug(name: str, seeds: tuple[int, ...] = (0,)) -> Document:
    """The run of a bug of the gallery, diagnosed."""
    bug = next(bug for bug in BUGS if bug.name == name)
    return _of_setup(f"tests/test_models.py::test_{name}", bug.build(seeds[0]), seeds)


@lru_cache
def of_healthy(name: str, seeds: tuple[int, ...] = (0,)) -> Document:
    """The run of the healthy twin of a bug."""
    bug = next(bug for bug in BUGS if bug.name == name)
    return _of_setup(f"tests/test_models.py::test_{bug.family}", bug.healthy(seeds[0]), seeds)


def _of_setup(title: str, setup: Setup, seeds: tuple[int, ...]) -> Document:
    result = run_overfit(
        setup.model, setup.data, setup.loss, optimizer=setup.optimizer, step=setup.step, seeds=seeds, **setup.settings
    )
    limits = result.evidence.limits if result.evidence else {}
    return document_of(title, result, limits=limits_of(limits, result.record))


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
