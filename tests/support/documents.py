"""Documents of small real runs, each trained once per session."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gallery.case import Bug
from benchmarks.gallery.registry import BUGS
from benchmarks.zoo.case import Setup
from benchmarks.zoo.registry import CASES
from pytest_overfit.api import run_config, run_overfit
from pytest_overfit.report.record.document import Document, Pair, PairView, SettingRow, limits_of
from pytest_overfit.report.record.run_ids import run_id
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.sample import Sample
from pytest_overfit.settings.call_settings import settings_of_call
from pytest_overfit.trainer.explain_config import explain_config
from pytest_overfit.trainer.loading import load_config
from pytest_overfit.two_view.data.dataset import draw_batch
from pytest_overfit.two_view.from_config import dataset_of, loader_of
from pytest_overfit.two_view.pair.create import create_pair
from pytest_overfit.two_view.pair.pair_files import FramePicture, PairFiles
from pytest_overfit.two_view.pair.synthetic import render_source
from pytest_overfit.two_view.pictures.frames import panels
from tests.support.configs import write_tiny

SESSION = "session-of-this-test"
STARTED, WRITTEN = "2026-03-05T14:07:31+08:00", "2026-03-05T14:07:52+08:00"
Pictures = Sequence[FramePicture]


@cache
def healthy(case: str = "mlp_classification", seeds: tuple[int, ...] = (0,), **settings: Any) -> Document:
    """A case of the zoo, as a test that calls ``overfit`` once."""
    setup = next(known for known in CASES if known.name == case).build(0)
    return call_document(setup, f"tests/test_{case}.py::test_learns", {"seeds": seeds, **settings})


@cache
def broken(bug: str, seeds: tuple[int, ...] = (0,)) -> Document:
    """A bug of the gallery, as a test that calls ``overfit`` once."""
    return call_document(_bug(bug).build(0), f"tests/test_{bug}.py::test_learns", {"seeds": seeds})


@cache
def mended(bug: str, seeds: tuple[int, ...] = (0,)) -> Document:
    """The healthy twin of a bug of the gallery."""
    return call_document(_bug(bug).healthy(0), f"tests/test_without_{bug}.py::test_learns", {"seeds": seeds})


def _bug(name: str) -> Bug:
    return next(known for known in BUGS if known.name == name)


def call_document(setup: Setup, title: str, settings: dict[str, Any]) -> Document:
    """The document of one call of ``run_overfit``."""
    keywords = {**setup.settings, **settings}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        result = run_overfit(
            setup.model, setup.data, setup.loss, optimizer=setup.optimizer, step=setup.step, **keywords
        )
    limits = settings_of_call(None, None, keywords).criteria.limits()
    return finished(title, result, limits=limits_of(limits, result.record))


def finished(title: str, result: OverfitResult | None, **changes: Any) -> Document:
    """The document of a run that came to its end, with some things changed."""
    values: dict[str, Any] = {
        "id": run_id(title),
        "title": title,
        "session": SESSION,
        "state": "finished",
        "started": STARTED,
        "written": WRITTEN,
        "result": result,
        "command": f"pytest {title}",
        "environment": {"python": "3.12", "pytest-overfit": "0.1.0"},
    }
    return Document(**{**values, **changes})


def unstarted(**changes: Any) -> Document:
    """The document of a run that was never made, with some things changed."""
    values = {"state": "not_run", "error": "ImportError: no module named 'vggt'", "command": "", "environment": {}}
    return finished("configs/a.yaml", None, **{**values, **changes})


def two_view() -> Document:
    """The tiny two-view config, whose pair is rendered: it passes."""
    return two_view_pictured()[0]


def frozen_trunk() -> Document:
    """The same with its depth frozen: it fails, and the cause is named."""
    return frozen_trunk_pictured()[0]


@cache
def two_view_pictured() -> tuple[Document, Pictures]:
    """The document of the tiny config, and the pictures beside it."""
    return _trained("configs/tiny.yaml")


@cache
def frozen_trunk_pictured() -> tuple[Document, Pictures]:
    """The document of the config with a frozen trunk, and the pictures beside it."""
    return _trained("configs/frozen_trunk.yaml", "optim.frozen_module_names=[trunk]")


class _Keeper(Observer):
    """An observer that keeps the pictures."""

    wants_pictures = True

    def __init__(self) -> None:
        self.pictures: Pictures = ()

    def on_pictures(self, pictures: Any) -> None:
        self.pictures = pictures.frames


def _trained(title: str, *overrides: str) -> tuple[Document, Pictures]:
    keeper = _Keeper()
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(write_tiny(Path(folder)), ["logging.log_visuals=true", "max_epochs=30", *overrides])
        wanted = config.overfit.pair
        source = render_source(Path(folder) / "source", seed=wanted.seed, width=wanted.width, height=wanted.height)
        files = create_pair(source.source_root, source.source_seg_root, source.source_npz, Path(folder) / "pair")
        batch, differences = draw_batch(loader_of(config, files, dataset_of(config, config.train, files)))
        result = run_config(config, None, Sample(batch, batch, differences), observers=lambda seed: (keeper,))
    document = finished(
        title,
        result,
        limits=limits_of(config.overfit.criteria.limits(), result.record),
        settings=tuple(SettingRow(*row) for row in explain_config(config)),
        pair=_pair(files, batch),
        command=f"pytest --overfit-config {title}",
        pictures=tuple(f"{stem}.png" for stem in all_panels(keeper.pictures)),
    )
    return document, keeper.pictures


def all_panels(pictures: Pictures) -> dict[str, Any]:
    """The pixels of every file that belongs to the pictures, by the stem of its name."""
    return {
        f"frame_{picture.frame}_{panel}": pixels for picture in pictures for panel, pixels in panels(picture).items()
    }


def _pair(files: PairFiles, batch: Any) -> Pair:
    masks = np.asarray(batch["point_masks"])[0]
    views = (
        PairView(view.image.parent.name, view.image.name, int(mask.sum()), int(mask.size))
        for view, mask in zip(files.views, masks, strict=True)
    )
    return Pair(files.seq_name, tuple(views))
