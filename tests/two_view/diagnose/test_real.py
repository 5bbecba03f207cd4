"""The golden batches and real views: nothing is said of them, and their mistakes are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pytest_overfit.two_view.data.dataset import PairDataset
from pytest_overfit.two_view.data.normalize import normalize_batch
from tests.shared_data import GOLDEN, golden, shared_data
from tests.support.golden import golden_dataset
from tests.two_view.diagnose.scenes import (
    Batch,
    causes,
    named,
    posed,
)


@pytest.mark.parametrize("name", GOLDEN)
def test_nothing_is_said_of_the_golden_batches(name: str) -> None:
    """The reference data, metric and normalised."""
    batch = batched(golden_dataset(name)[golden(name).pair_index])
    assert causes(batch) == []
    assert causes(normalize_batch(batch)) == []


def batched(item: dict[str, Any]) -> Batch:
    return {key: value[None] for key, value in item.items() if isinstance(value, Tensor)}


def test_nothing_is_said_of_real_views() -> None:
    """RGB-D frames of a Kinect: holes, noise, poses that are a little off, a baseline of a few centimetres."""
    root = shared_data("real_rgbd", "cropped")
    pairs = PairDataset(root, root / "train.npz", img_size=112, aspect_ratio=0.75)
    assert [causes(batched(pairs[k])) for k in range(len(pairs))] == [[]] * len(pairs)


def test_mistake_in_real_views_is_named() -> None:
    """The same frames with cam2world under the key of world2cam."""
    root = shared_data("real_rgbd", "cropped")
    pair = PairDataset(root, root / "train.npz", img_size=112, aspect_ratio=0.75)[2]
    assert named(posed(torch.inverse)(batched(pair))) == [("camera-convention", True)]
