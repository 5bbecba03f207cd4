from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.cli import main
from pytest_overfit.two_view.pair.synthetic import RenderedSource, render_source


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> RenderedSource:
    """A rendered source of 320 x 240 pixels; read only."""
    return render_source(tmp_path_factory.mktemp("source"), seed=2, width=320, height=240)


@pytest.fixture
def pair_folder(source: RenderedSource, tmp_path: Path) -> Path:
    """A pair that the command made, with its config."""
    folder = tmp_path / "pair"
    words = ["--source-root", str(source.source_root), "--output-root", str(folder), "--create-config"]
    assert main(["pair", "create", *words]) == 0
    return folder
