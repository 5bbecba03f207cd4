"""One pair has one source: two of them in a config are an error that names both keys and the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer.loading import load_config

from .helpers import EXAMPLES, load, problems, problems_in, write

ENTRY = "data.train.dataset.dataset_configs[0]"


def data(entry: str, source: str) -> str:
    return f"data: {{train: {{dataset: {{dataset_configs: [{{{entry}}}]}}}}}}\noverfit: {{pair: {{{source}}}}}\n"


@pytest.mark.parametrize("name", ["ROOT", "split_file", "segmentation_root"])
@pytest.mark.parametrize("source", ["source: render", "source: cut, source_root: src"])
def test_a_dataset_beside_another_source(tmp_path: Path, name: str, source: str) -> None:
    """Each setting of a dataset contradicts a stated render or cut."""
    (line,) = problems_in(tmp_path, data(f"{name}: /my/real/data", source))
    word = source.partition(",")[0].partition(" ")[2]
    assert line == (
        f"a.yaml: {ENTRY}.{name}: found a setting of another source beside overfit.pair.source: {word}, allowed: one "
        f"source of the pair (set overfit.pair.source to dataset, or leave out {ENTRY}.{name})"
    )


def test_the_shipped_example_with_its_root_filled_in() -> None:
    """The ROOT that its comment speaks of, and the source that stays: one error, in both ways of saying it."""
    (line,) = problems(EXAMPLES / "single_pair_test.yaml", [f"{ENTRY}.ROOT=/my/real/data"])
    assert f"{ENTRY}.ROOT: found a setting of another source beside overfit.pair.source: render" in line
    assert "set overfit.pair.source to dataset" in line
    given = [f"{ENTRY}.ROOT=/my/real/data", "overfit.pair.source=dataset", "overfit.pair.seed=0"]
    assert load_config(EXAMPLES / "single_pair_test.yaml", given).overfit.pair.source == "dataset"


@pytest.mark.parametrize("name", ["source_root", "source_seg_root", "source_npz"])
@pytest.mark.parametrize("source", ["render", "dataset"])
def test_a_cut_beside_another_source(tmp_path: Path, name: str, source: str) -> None:
    """The settings of a cut contradict every other stated source."""
    root = "ROOT: /x" if source == "dataset" else ""
    (line,) = problems_in(tmp_path, data(root, f"source: {source}, {name}: /y"))
    assert line.startswith(f"a.yaml: overfit.pair.{name}: found a setting of another source beside overfit.pair.source")
    assert line.endswith(f"(set overfit.pair.source to cut, or leave out overfit.pair.{name})")


def test_a_source_that_the_command_line_states_is_a_choice(tmp_path: Path) -> None:
    """Whoever asks for the rendered pair there knows of the config's own: a note. The ini file is weaker: an error."""
    path = write(tmp_path, data("ROOT: /x", "seed: 0"))
    config = load_config(path, ["overfit.pair.source=render"])
    assert config.notes == (f"{ENTRY}.ROOT has no effect: overfit.pair.source is render",)
    (line,) = problems(path, ["overfit.pair.source=render", f"{ENTRY}.ROOT=/y"])
    assert "another source" in line


def test_settings_that_a_source_has_no_use_for(tmp_path: Path) -> None:
    """An index among rendered pairs is an error; the sizes of a render beside a dataset are noted."""
    (line,) = problems_in(tmp_path, "overfit: {pair: {pair_index: 3}}\n")
    assert line.startswith("a.yaml: overfit.pair.pair_index: found 3 beside overfit.pair.source: render")
    config = load(tmp_path, data("ROOT: /x", "source: dataset, width: 320"))
    assert config.notes == ("overfit.pair.width: no effect, nothing is rendered (overfit.pair.source is dataset)",)
    assert load(tmp_path, "overfit: {pair: {follow_links: true}}\n").notes == (
        "overfit.pair.follow_links has no effect: overfit.pair.source is render",
    )
