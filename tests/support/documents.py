"""Documents of small real runs, each trained once per session."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gallery.registry import BUGS
from benchmarks.zoo.case import Setup
from benchmarks.zoo.registry import CASES
from pytest_overfit.api import overfit_config, run_overfit, settings_of_call
from pytest_overfit.config.explain import explain_config
from pytest_overfit.config.loading import load_config
from pytest_overfit.data.dataset import PairDataset
from pytest_overfit.data.loader import build_loader
from pytest_overfit.document.folder import run_id
from pytest_overfit.document.record import Document, Pair, PairView, SettingRow, limits_of
from pytest_overfit.pair.create import create_pair
from pytest_overfit.pair.layout import PairFiles
from pytest_overfit.pair.render import render_source
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.sample import Sample, draw_batch
from tests.support.configs import write_tiny

STARTED = "2026-03-05T14:07:31+08:00"


@cache
def healthy(case: str = "mlp_classification", seeds: tuple[int, ...] = (0,), **settings: Any) -> Document:
    """A case of the zoo, as a test that calls ``overfit`` once."""
    setup = next(known for known in CASES if known.name == case).build(0)
    return call_document(setup, f"tests/test_{case}.py::test_learns", {"seeds": seeds, **settings})


@cache
def broken(bug: str) -> Document:
    """A bug of the gallery, as a test that calls ``overfit`` once."""
    setup = next(known for known in BUGS if known.name == bug).build(0)
    return call_document(setup, f"tests/test_{bug}.py::test_learns", {"seeds": (0,)})


def call_document(setup: Setup, title: str, settings: dict[str, Any]) -> Document:
    """The document of one call of ``run_overfit``."""
    keywords = {**setup.settings, **settings}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        result = run_overfit(
            setup.model, setup.data, setup.loss, optimizer=setup.optimizer, step=setup.step, **keywords
        )
    limits = settings_of_call(None, None, keywords).criteria.limits()
    return finished(title, result, limits=limits_of(limits, result.record), command=f"pytest {title}")


def finished(title: str, result: OverfitResult, **more: Any) -> Document:
    """The document of a run that came to its end."""
    return Document(
        id=run_id(title),
        title=title,
        session="s",
        state="finished",
        started=STARTED,
        written=STARTED,
        result=result,
        **more,
    )


@cache
def two_view() -> Document:
    """The tiny two-view config, whose pair is rendered."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(write_tiny(Path(folder)))
        wanted = config.overfit.pair
        source = render_source(Path(folder) / "source", seed=wanted.seed, width=wanted.width, height=wanted.height)
        files = create_pair(source.source_root, source.source_seg_root, source.source_npz, Path(folder) / "pair")
        split = config.train
        data = PairDataset(
            files.root,
            files.split_file,
            files.segmentation_root,
            img_size=split.img_size,
            patch_size=split.patch_size,
            aspect_ratio=split.aspect_ratio,
        )
        batch, differences = draw_batch(build_loader(data, pair_index=files.pair_index, num_workers=0))
        result = overfit_config(config, None, Sample(batch, batch, differences))
        return finished(
            "configs/tiny.yaml",
            result,
            limits=limits_of(config.overfit.criteria.limits(), result.record),
            settings=tuple(SettingRow(*row) for row in explain_config(config)),
            pair=_pair(files, batch),
            command="pytest --overfit-config configs/tiny.yaml",
        )


def _pair(files: PairFiles, batch: Any) -> Pair:
    masks = np.asarray(batch["point_masks"])[0]
    views = (
        PairView(view.image.parent.name, view.image.name, int(mask.sum()), int(mask.size))
        for view, mask in zip(files.views, masks, strict=True)
    )
    return Pair(files.seq_name, tuple(views))
