"""The pair, the data set, the loader and the one sample that a config describes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_overfit.run.sample import LOADER_DRAWS, Sample
from pytest_overfit.trainer.config import OverfitConfig, SplitConfig
from pytest_overfit.two_view.data.dataset import draw_batch
from pytest_overfit.two_view.data.trainer_data import TrainerData, draw_sample
from pytest_overfit.two_view.inspections import hinted, look_at, not_none, refuse_missing
from pytest_overfit.two_view.pair.pair_files import PairFiles


def pair_of(config: OverfitConfig, new_folder: Callable[[], Path]) -> PairFiles:
    """The pair in place (``dataset``), or cut into a new folder out of a given or a rendered source.

    Raises:
        PairError: a file of it is missing, or cannot be read.
    """
    refuse_missing(config, "train")
    wanted = config.overfit.pair
    if wanted.source == "dataset":
        return _in_place(config, config.train)
    from pytest_overfit.two_view.pair.create import create_pair

    folder = new_folder()
    if wanted.source == "render":
        from pytest_overfit.two_view.pair.synthetic import render_source

        source = render_source(folder / "source", seed=wanted.seed, width=wanted.width, height=wanted.height)
        return create_pair(*source, folder / "pair")
    assert wanted.source_root is not None
    with hinted(f"look at that file; the source is {wanted.source_root}"):
        index, which = wanted.source_npz or wanted.source_root / "train.npz", wanted.pair_index
        place = wanted.source_root, wanted.source_seg_root, index, folder / "pair"
        return create_pair(*place, pair_index=which, follow_links=wanted.follow_links)


def dataset_of(config: OverfitConfig, split: SplitConfig, files: Any, *, split_file: Path | None = None) -> Any:
    """The Dataset of one split over the files of the pair; the trainer's own object where it has one."""
    from pytest_overfit.two_view.data.dataset import PairDataset

    if not isinstance(not_none(files, "overfit_pair"), PairFiles):
        return files.source
    return PairDataset(
        files.root,
        split_file or files.split_file,
        files.segmentation_root,
        img_size=split.img_size,
        patch_size=split.patch_size,
        aspect_ratio=split.aspect_ratio,
        remove_sky=split.remove_sky,
        max_depth=split.max_depth,
        depth_percentile=split.depth_percentile,
        half_pixel_depth=config.overfit.half_pixel_depth,
        follow_links=config.overfit.pair.follow_links,
    )


def loader_of(config: OverfitConfig, files: Any, data: Any) -> Any:
    """The DataLoader of the one pair, or what stands for it."""
    from pytest_overfit.two_view.data.dataset import build_loader

    if not isinstance(not_none(files, "overfit_pair"), PairFiles):
        return files
    return build_loader(not_none(data, "overfit_dataset"), pair_index=files.pair_index, num_workers=config.num_workers)


def val_batch_of(config: OverfitConfig, split: SplitConfig, cut_pair: Callable[[], PairFiles]) -> Mapping[str, Any]:
    """The normalised batch of the validation split: of the cut pair's ``val.npz``, or of ``data.val`` in place.

    Raises:
        PairError: a file of it is missing, or cannot be read.
    """
    from pytest_overfit.two_view.data.dataset import draw_batch

    refuse_missing(config, "val")
    if config.overfit.pair.source == "dataset":
        files = _in_place(config, split)
        data = dataset_of(config, split, files)
    else:
        files = cut_pair()
        data = dataset_of(config, split, files, split_file=files.root / "val.npz")
    return draw_batch(loader_of(config, files, data))[0]


def _in_place(config: OverfitConfig, split: SplitConfig) -> PairFiles:
    from pytest_overfit.two_view.pair.index import locate_pair

    assert split.root is not None
    assert split.split_file is not None
    wanted = config.overfit.pair
    with hinted(look_at(split.root, split.split_file)):
        return locate_pair(
            split.root, split.split_file, split.segmentation_root, wanted.pair_index, follow_links=wanted.follow_links
        )


def sample_of(config: OverfitConfig) -> Sample:
    """The batches that a config names, as the model gets them; a pair that is cut or rendered is so for this call.

    Raises:
        OverfitError: a path is missing, a file cannot be read, or there is no batch.
    """
    if config.trainer is not None:
        return replace(draw_sample(TrainerData(config)), val=val_of_trainer(config))
    with tempfile.TemporaryDirectory(prefix="overfit_pair") as folder:
        files = pair_of(config, lambda: Path(folder))
        batch, differences = draw_batch(loader_of(config, files, dataset_of(config, config.train, files)))
        val = None if config.val is None else val_batch_of(config, config.val, lambda: files)
        return Sample(batch, val, differences, draws=LOADER_DRAWS)


def val_of_trainer(config: OverfitConfig) -> dict[str, object] | None:
    """The validation batch of a trainer's own data class, as the model gets it; None where the config has none."""
    if config.val is None:
        return None
    theirs = TrainerData(config, "val")
    return dict(theirs.prepared(theirs.draw(0)[0]))
