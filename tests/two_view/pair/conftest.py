from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_overfit.two_view.pair.index import locate_pair
from pytest_overfit.two_view.pair.pair_files import PairFiles
from pytest_overfit.two_view.pair.synthetic import RenderedSource, render_source


@pytest.fixture(scope="session")
def shared_town(tmp_path_factory: pytest.TempPathFactory) -> RenderedSource:
    """A rendered source of 160 x 120 pixels; read only."""
    return render_source(tmp_path_factory.mktemp("town"), seed=1, width=160, height=120)


@pytest.fixture
def town(shared_town: RenderedSource, tmp_path: Path) -> RenderedSource:
    """A copy of the rendered source that a test may damage."""
    root = tmp_path / "town"
    shutil.copytree(shared_town.source_root.parent, root)
    return RenderedSource(root / "cropped", root / "cropped_seg", root / "cropped" / "train.npz")


@pytest.fixture
def town_pair(town: RenderedSource) -> PairFiles:
    """The one pair of `town`."""
    return locate_pair(town.source_root, town.source_npz, town.source_seg_root, 0)
