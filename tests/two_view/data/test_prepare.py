"""Between loader and model: what a trainer does there, equal to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pytest_overfit.two_view.data.normalize import prepare_batch, repeat_batch
from tests.shared_data import GOLDEN, golden
from tests.support.golden import golden_batch


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_batch(name: str) -> None:
    """The prepared batch is the original trainer's, number by number."""
    reference, batch = golden(name), golden_batch(name)
    prepared, doubled = prepare_batch(batch), prepare_batch(batch, repeat=True)
    for ours in (prepared, {key: value[:1] for key, value in doubled.items()}):
        points = ours["world_points"][:, :, ::7, ::7]
        found = {**ours, "world_points_every7": points, "avg_scale": ours["avg_scale"][0]}
        for key in ("extrinsics", "depths", "avg_scale", "world_points_every7"):
            expected = reference.arrays[f"norm_{key}"]
            np.testing.assert_allclose(found[key].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_repeated_sample_has_its_frames_in_reverse_order() -> None:
    """Tensors of views and lists of names; nothing is changed in place."""
    batch: dict[str, Any] = {"images": torch.arange(6.0).view(1, 2, 3), "seq_name": ["a"], "scale": 2}
    doubled = repeat_batch(batch)
    assert doubled["images"].tolist() == [[[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]]
    assert (doubled["seq_name"], doubled["scale"]) == (["a", "a"], 2)
    assert batch["images"].shape == (1, 2, 3)
