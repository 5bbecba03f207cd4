"""One pair has one source: what speaks for another one is a problem, never left out in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_overfit.settings.problems import Problem
from pytest_overfit.settings.section import Section
from pytest_overfit.settings.settings import PairSource
from pytest_overfit.trainer.config import OverfitConfig

_SOURCE = "overfit.pair.source"
_OF_A_DATASET = ("ROOT", "split_file", "segmentation_root")
_OF_A_CUT = ("source_root", "source_seg_root", "source_npz")
_OF_A_RENDER = ("seed", "width", "height")
_ONE = "one source of the pair"


def expect_one_source(config: OverfitConfig, top: Section, notes: list[str]) -> None:
    """Adds a problem where the config speaks for a source that is not the one that is used.

    A source that the command line or a marker states against a config's ROOT is a choice, and noted.
    """
    source = config.overfit.pair.source
    pair, data = top.silent().section("overfit").section("pair"), top.silent().section("data")
    stated: list[str] = []
    for split in ("train", "val") if config.val else ("train",):
        dataset = _dataset(data, split)
        if source == "dataset" and not dataset.given("ROOT"):
            where = dataset.path("ROOT")
            top.problems.append(Problem(where, "nothing", "the dataset's folder, for a pair from a dataset"))
        elif source in ("render", "cut"):
            stated += [dataset.path(name) for name in _OF_A_DATASET if dataset.given(name)]
    if all(_is_chosen_over(config, key) for key in stated):
        notes += [f"{key} has no effect: {_SOURCE} is {source}" for key in stated]
    else:
        _two_sources(stated, config, top, instead="dataset")
    if source != "cut" and pair.given("source"):
        _two_sources([pair.path(name) for name in _OF_A_CUT if pair.given(name)], config, top, instead="cut")
    if source in ("render", "trainer") and config.overfit.pair.pair_index:
        found = f"{config.overfit.pair.pair_index} beside {_SOURCE}: {source}, which has no index"
        top.problems.append(Problem(pair.path("pair_index"), found, "0, or a pair out of a dataset or a cut"))
    unused = [name for name in _OF_A_RENDER if getattr(config.overfit.pair, name) != getattr(PairSource(), name)]
    if source in ("render", "trainer") and config.overfit.pair.follow_links:
        notes.append(f"{pair.path('follow_links')} has no effect: {_SOURCE} is {source}")
    if source != "render" and unused:
        notes.append(f"{', '.join(map(pair.path, unused))}: no effect, nothing is rendered ({_SOURCE} is {source})")


def _two_sources(keys: Sequence[str], config: OverfitConfig, top: Section, *, instead: str) -> None:
    """One problem for all the keys of the other source."""
    if not keys:
        return
    found = f"a setting of another source beside {_SOURCE}: {config.overfit.pair.source}"
    hint = f"set {_SOURCE} to {instead}, or leave out {', '.join(keys)}"
    top.problems.append(Problem(keys[0], found, _ONE, hint))


def _dataset(data: Section, split: str) -> Section:
    dataset = data.section(split).section("dataset")
    entries = dataset.sections("dataset_configs")
    return entries[0] if entries else replace(data, values={}, key=f"{dataset.path('dataset_configs')}[0]")


def _is_chosen_over(config: OverfitConfig, key: str) -> bool:
    """Whether the source is stated by a stronger place than the key: the command line or a marker over the file."""
    weak = (config.path.name, "default", "ini")
    return config.origin(_SOURCE) not in weak and config.origin(key) in weak
