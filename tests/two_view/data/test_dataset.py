"""Pairs as samples, and the loader of exactly one of them."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_overfit.errors import ConfigError, PairError
from pytest_overfit.run.batch import fingerprint
from pytest_overfit.two_view.data.contract import batch_problems
from pytest_overfit.two_view.data.dataset import PairDataset, build_loader
from tests.shared_data import GOLDEN, golden
from tests.support.golden import golden_batch, golden_dataset


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_batch(name: str) -> None:
    """The loader's batch is the original's, depths and masks exactly."""
    batch, expected = golden_batch(name), golden(name).arrays
    for key in ("depths", "point_masks", "extrinsics"):
        np.testing.assert_array_equal(batch[key].numpy(), expected[key])
    np.testing.assert_allclose(batch["intrinsics"].numpy(), expected["intrinsics"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(batch["images"].numpy(), expected["images"] / 255, rtol=0, atol=1.0001 / 255)
    every7 = batch["world_points"].numpy()[:, :, ::7, ::7]
    np.testing.assert_allclose(every7, expected["world_points_every7"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GOLDEN)
def test_batch_keeps_the_contract(name: str) -> None:
    """The embedded loader's own batch has none of the problems that a foreign one is searched for."""
    height, width = golden(name).arrays["images"].shape[-2:]
    assert batch_problems(golden_batch(name), height=height, width=width) == ()


def test_what_an_item_holds() -> None:
    """Keys, shapes and types of an item are the ones that are documented."""
    item = golden_dataset("pair0_112")[0]
    described = {k: (tuple(v.shape), str(v.dtype)) for k, v in item.items() if isinstance(v, torch.Tensor)}
    assert described == {
        "images": ((2, 3, 98, 112), "torch.float32"),
        "depths": ((2, 98, 112), "torch.float32"),
        "extrinsics": ((2, 3, 4), "torch.float32"),
        "intrinsics": ((2, 3, 3), "torch.float32"),
        "cam_points": ((2, 98, 112, 3), "torch.float32"),
        "world_points": ((2, 98, 112, 3), "torch.float32"),
        "point_masks": ((2, 98, 112), "torch.bool"),
        "ids": ((2,), "torch.int64"),
    }
    assert set(item) - set(described) == {"seq_name"}
    assert item["seq_name"] == "aerial_megadepth_0001_0"


def test_sequence_names_are_a_list_in_a_batch() -> None:
    """The batch names its one sample by scene and pair index."""
    assert golden_batch("real1_252")["seq_name"] == ["aerial_megadepth_0001_1"]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers: int) -> None:
    """Worker processes hand out exactly one batch, with the bytes of this process."""
    dataset = golden_dataset("pair0_112")
    batches = list(build_loader(dataset, num_workers=num_workers))
    assert len(batches) == 1
    assert fingerprint(batches[0]) == fingerprint(next(iter(build_loader(dataset))))


def test_loading_draws_no_random_number() -> None:
    """Iterating over the loader leaves the generators of torch, numpy and Python as they were."""
    loader = build_loader(golden_dataset("pair0_112"))
    torch.manual_seed(3)
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state()), random.getstate()  # noqa: NPY002
    list(loader)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (pickle.dumps(np.random.get_state()), random.getstate())  # noqa: NPY002


def test_every_pair_of_a_split_loads() -> None:
    """The length is the number of pairs, and each of them is another sample."""
    dataset = golden_dataset("real1_252", img_size=56)
    names, prints = zip(*((item["seq_name"], fingerprint(item["images"])) for item in dataset), strict=True)
    assert len(set(prints)) == len(set(names)) == len(dataset) > 1


def test_pickling_keeps_the_dataset() -> None:
    """A pickled dataset, as a spawned worker gets it, gives the same bytes."""
    dataset = golden_dataset("pair0_112")
    assert fingerprint(pickle.loads(pickle.dumps(dataset))[0]) == fingerprint(dataset[0])


def test_options_reach_the_transform() -> None:
    """Each option changes the depths."""
    plain = golden_dataset("pair0_112")[0]["depths"]
    options: tuple[dict[str, Any], ...] = (
        {"max_depth": 30.0},
        {"depth_percentile": 80.0},
        {"half_pixel_depth": True},
        {"remove_sky": False},
    )
    for option in options:
        assert not torch.equal(golden_dataset("pair0_112", **option)[0]["depths"], plain), option


def test_without_segmentation_no_sky_is_removed() -> None:
    """Without a segmentation root the depths are those of `remove_sky=False`."""
    reference = golden("pair0_112")
    bare = PairDataset(reference.root, reference.split_file, img_size=112, aspect_ratio=0.93)
    assert torch.equal(bare[0]["depths"], golden_dataset("pair0_112", remove_sky=False)[0]["depths"])


@pytest.fixture
def broken(tmp_path: Path) -> PairDataset:
    """The golden pair, whose second depth file is cut short after the dataset was built."""
    reference = golden("pair0_112")
    root = tmp_path / "pair"
    shutil.copytree(reference.root, root)
    dataset = PairDataset(root, root / "train.npz", img_size=112, aspect_ratio=0.93)
    depth = next((root / "0001").glob("3775*.exr"))
    depth.write_bytes(depth.read_bytes()[:1000])
    return dataset


@pytest.mark.parametrize("num_workers", [0, 1])
def test_failed_load_is_an_error(broken: PairDataset, num_workers: int) -> None:
    """A damaged file is a PairError that names it, out of a worker process too; there is no dummy batch."""
    with pytest.raises(PairError, match=r"3775224815_2e30aeddbb_o\.jpg\.jpg\.exr"):
        list(build_loader(broken, num_workers=num_workers))


@pytest.mark.parametrize("pair_index", [-1, 1])
def test_pair_that_is_not_there(pair_index: int) -> None:
    """A pair index beyond the split is refused with the ones that are there."""
    with pytest.raises(PairError, match=f"pair_index {pair_index} of 1 pairs\n  allowed: 0 .. 0"):
        build_loader(golden_dataset("pair0_112"), pair_index=pair_index)


def test_wrong_size_is_refused_before_loading() -> None:
    """A size that does not fit the patch is a configuration error of the constructor."""
    with pytest.raises(ConfigError, match="multiple of the patch size 14"):
        golden_dataset("pair0_112", img_size=100)
