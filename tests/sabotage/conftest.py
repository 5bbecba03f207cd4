"""One rendered pair for all sabotages; each gets a copy of its own to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_overfit.two_view.pair.create import create_pair
from pytest_overfit.two_view.pair.synthetic import render_source
from tests.support.configs import write_tiny
from tests.support.sessions import keep_modules, own_plugins_only

AERIAL, GROUND = "aerial.jpeg", "ground.jpeg"
SPLIT = "common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92}"
FROM_FOLDER = (
    (SPLIT, f"{SPLIT}\n    dataset: {{dataset_configs: [{{ROOT: pair, segmentation_root: pair/seg}}]}}"),
    ("{source: render, width: 160, height: 120}", "{source: dataset}"),
)


@dataclass(frozen=True)
class Victim:
    """The tiny config over a pair in a folder, in a session of its own."""

    pytester: pytest.Pytester
    pair: Path

    def file(self, name: str) -> Path:
        """A file of the scene, such as ``ground.jpeg.exr``."""
        return self.pair / "0000" / name

    def run(self, *settings: str, model: str = "", loss: str = "") -> pytest.RunResult:
        """Runs all items with overrides, and with a model or loss out of ``tests.support.saboteurs``."""
        named = [f"{key}._target_=tests.support.{name}" for key, name in (("model", model), ("loss", loss)) if name]
        given = [f"--overfit-set={text}" for text in (*named, *settings)]
        return self.pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", *given)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound pair."""
    folder = tmp_path_factory.mktemp("rendered")
    source = render_source(folder / "source", width=160, height=120)
    return create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair").root


@pytest.fixture(autouse=True)
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch, and their order."""
    keep_modules(monkeypatch)
    own_plugins_only(request, monkeypatch)


@pytest.fixture
def victim(pytester: pytest.Pytester, rendered: Path) -> Victim:
    """A copy of the pair, and the tiny config that reads it in place."""
    folder = pytester.path / "pair"
    shutil.copytree(rendered, folder)
    write_tiny(pytester.path, replace=FROM_FOLDER)
    return Victim(pytester, folder)


@pytest.fixture
def swap(victim: Victim) -> Callable[[str, str], None]:
    """Puts a file of one view in the place of the other view's."""

    def copy(source: str, target: str) -> None:
        shutil.copyfile(victim.file(source), victim.file(target))

    return copy
