"""The one sample of a config, drawn from the data that it names."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from pytest_overfit.run.sample import LOADER_DRAWS, Sample
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.two_view.data.loader import draw_batch
from pytest_overfit.two_view.data.trainer_data import TrainerData, draw_sample
from pytest_overfit.two_view.from_config import dataset_of, loader_of, pair_of, val_batch_of


def sample_of(config: OverfitConfig) -> Sample:
    """The batches that a config names, as the model gets them; a pair that is cut or rendered is so for this call.

    Example:
        >>> sample_of(load_config("quick.yaml")).train["images"].shape                # doctest: +SKIP
        torch.Size([1, 2, 3, 98, 112])

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
