"""The shared reference data as this package loads them."""

from __future__ import annotations

from typing import Any

from pytest_overfit.two_view.data.dataset import PairDataset, build_loader
from tests.shared_data import golden


def golden_dataset(name: str, **changes: Any) -> PairDataset:
    """The data set of a golden reference, with some settings changed."""
    reference = golden(name)
    settings = {"img_size": reference.img_size, "aspect_ratio": reference.aspect_ratio} | changes
    return PairDataset(reference.root, reference.split_file, reference.segmentation_root, **settings)


def golden_batch(name: str, **changes: Any) -> dict[str, Any]:
    """The one batch of a golden reference."""
    (batch,) = build_loader(golden_dataset(name, **changes), pair_index=golden(name).pair_index)
    assert isinstance(batch, dict)
    return batch
