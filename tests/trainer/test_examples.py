"""The example configs load, and say what they are meant to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer.loading import load_config

from .helpers import EXAMPLES, SOURCE_ENV

pytestmark = pytest.mark.usefixtures("composer")


@pytest.fixture(autouse=True)
def source_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """real_pair.yaml reads its folders from the environment."""
    for name, value in SOURCE_ENV.items():
        monkeypatch.setenv(name, value)


def test_examples_are_found() -> None:
    """The test below runs over the four documented examples."""
    names = {"single_pair_test.yaml", "single_pair_518.yaml", "quick.yaml", "real_pair.yaml"}
    assert names <= {path.name for path in EXAMPLES.glob("*.yaml")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    """Every example loads, is free of randomness, and is named after its file."""
    config = load_config(path)
    assert (config.randomness, config.notes, config.exp_name) == ((), (), path.stem)


@pytest.mark.parametrize(
    ("name", "shape", "source"),
    [
        ("single_pair_test", (196, 224), "render"),
        ("single_pair_518", (476, 518), "render"),
        ("quick", (98, 112), "render"),
        ("real_pair", (196, 224), "cut"),
    ],
)
def test_shape_and_source(name: str, shape: tuple[int, int], source: str) -> None:
    """Each example has its resolution and takes its pair from where it says."""
    config = load_config(EXAMPLES / f"{name}.yaml")
    assert ((config.train.height, config.train.width), config.overfit.pair.source) == (shape, source)
    assert config.val is not None
    assert "train_val" in config.overfit.criteria.names()


def test_single_pair_is_the_guides(tmp_path: Path) -> None:
    """The embedded default has the guide's loss, limits and length."""
    config = load_config(EXAMPLES / "single_pair_test.yaml")
    assert config.loss["depth"]["valid_range"] == 0.98
    limits = config.overfit.criteria
    assert [limit.below for limit in (limits.objective, limits.camera, limits.depth) if limit] == [0.01, 0.001, 0.01]
    assert config.planned_steps == config.max_epochs * config.overfit.steps_per_epoch


def test_real_pair_reads_the_environment() -> None:
    """The source folders come from the environment, its pair file from the layout."""
    pair = load_config(EXAMPLES / "real_pair.yaml").overfit.pair
    assert (pair.source_root, pair.source_seg_root) == (Path("/data/cropped"), Path("/data/seg"))
    assert (pair.source_npz, pair.pair_index) == (Path("/data/cropped/train.npz"), 1)
