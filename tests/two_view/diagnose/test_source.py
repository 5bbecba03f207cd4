"""A batch beside its files: what a loader does wrong is measured in pixels, and what it may do is not blamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.data.transform import process_view, target_shape
from pytest_overfit.two_view.diagnose.source_causes import RULES, causes_of_source, look_at_source
from pytest_overfit.two_view.diagnose.source_geometry import compare_with_files
from pytest_overfit.two_view.pair.create import create_pair
from pytest_overfit.two_view.pair.pair_files import RawView, view_files
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.two_view.pair.synthetic import render_source
from tests.shared_data import shared_data

Batch = dict[str, Any]
NEAR = [("0001", "frame-000000", "frame-000020"), ("0001", "frame-000060", "frame-000020"),
        ("0002", "frame-000100", "frame-000200"), ("0002", "frame-000200", "frame-000150")]  # fmt: skip


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> list[RawView]:
    """A rendered pair: half of the second view is sky, which carries depth on disk."""
    folder = tmp_path_factory.mktemp("town")
    source = render_source(folder / "source")
    files = create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair")
    return [read_view(view) for view in files.views]


def room(scene: str, *tags: str) -> list[RawView]:
    root = shared_data("real_rgbd", "cropped")
    masks = root.with_name("cropped_seg")
    return [read_view(view_files(root, masks, scene, f"{tag}.jpeg")) for tag in tags]


def handed_out(raw: Sequence[RawView], size: int = 112, aspect: float = 0.88, **how: Any) -> Batch:
    """What the data path of the original makes of two views."""
    views = [process_view(view, shape=target_shape(size, aspect), **how) for view in raw]

    def both(key: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(view, key) for view in views]))[None]

    return {
        "images": both("image").permute(0, 1, 4, 2, 3).float() / 255, "depths": both("depth"),
        "intrinsics": both("intrinsics"), "extrinsics": both("extrinsics"), "point_masks": both("point_mask"),
    }  # fmt: skip


def causes(batch: Batch, raw: Sequence[RawView]) -> list[Cause]:
    seen = compare_with_files(batch, "pair", raw)
    assert seen is not None
    return [cause for rule in RULES for cause in rule(seen)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("names", NEAR)
def test_nothing_is_said_of_real_views(names: tuple[str, str, str], half: bool) -> None:
    """Holes, noise, and depth by either nearest neighbour."""
    raw = room(*names)
    assert causes(handed_out(raw, half_pixel_depth=half), raw) == []


@pytest.mark.parametrize(("size", "aspect"), [(112, 0.88), (112, 0.6), (224, 0.75)])
def test_nothing_is_said_of_a_rendered_pair(town: list[RawView], size: int, aspect: float) -> None:
    """Whatever it is cut to."""
    assert causes(handed_out(town, size, aspect), town) == []


def test_nothing_is_said_of_other_colours_units_and_noise(town: list[RawView]) -> None:
    """Brightness and contrast, centimetres throughout, 1 % of noise in depth, a world that is turned."""
    batch = handed_out(town)
    batch["images"] = (0.7 * batch["images"] + 0.2).clamp(0, 1)
    noise = 1 + 0.01 * torch.randn(batch["depths"].shape, generator=torch.Generator().manual_seed(0))
    batch["depths"] = 100 * batch["depths"] * noise
    batch["extrinsics"][..., 3] *= 100
    turn = torch.eye(4)
    turn[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.4, 0.0], [-0.4, 0.0, 0.3], [0.0, -0.3, 0.0]]))
    batch["extrinsics"] = batch["extrinsics"] @ turn
    assert causes(batch, town) == []


def moved(value: Tensor, right: int, down: int) -> Tensor:
    return value.roll((right, down), (-1, -2))


def _shift(batch: Batch) -> None:
    for key in ("depths", "point_masks"):
        batch[key] = moved(batch[key], -1, 0)


def _zoom(batch: Batch) -> None:
    depths = torch.nn.functional.interpolate(batch["depths"][0][:, None], scale_factor=1.1, mode="nearest")[:, 0]
    batch["depths"] = depths[None, :, : batch["images"].shape[3], : batch["images"].shape[4]]
    batch["point_masks"] = batch["depths"] > 0


def _corner(batch: Batch) -> None:
    batch["intrinsics"][..., 0, 2] += 9


def _focal(batch: Batch) -> None:
    batch["intrinsics"][..., 0, 0] *= 1.1


def _upside_down(batch: Batch) -> None:
    batch["images"] = batch["images"].flip(-2)


def _exchanged(batch: Batch) -> None:
    batch["images"] = batch["images"].flip(1)


def _inverse(batch: Batch) -> None:
    batch["depths"] = torch.where(batch["depths"] > 0, 1 / batch["depths"].clamp(min=1e-6), 0)


def _one_in_feet(batch: Batch) -> None:
    batch["depths"][:, 0] *= 3.28


def _baseline(batch: Batch) -> None:
    batch["extrinsics"][..., 3] *= 0.5


def _inverted(batch: Batch) -> None:
    full = torch.eye(4).repeat(1, 2, 1, 1)
    full[..., :3, :] = batch["extrinsics"]
    batch["extrinsics"] = torch.linalg.inv(full)[..., :3, :]


def _left_handed(batch: Batch) -> None:
    batch["extrinsics"] = torch.diag(torch.tensor([1.0, -1.0, 1.0])) @ batch["extrinsics"]


def _one_pose(batch: Batch) -> None:
    batch["extrinsics"] = batch["extrinsics"][:, :1].expand(-1, 2, -1, -1)


def _turned(batch: Batch) -> None:
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.03, 0.0], [-0.03, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    batch["extrinsics"] = torch.cat([batch["extrinsics"][:, :1], turn @ batch["extrinsics"][:, 1:]], 1)


MISTAKES: dict[Callable[[Batch], None], tuple[str, str]] = {
    _shift: ("misalignment", "pixels to the right of"), _zoom: ("misalignment", "pixels to the right of"),
    _corner: ("misalignment", "the intrinsics put the content"),
    _focal: ("misalignment", "the intrinsics put the content"),
    _upside_down: ("misalignment", "the images are flipped upside down"),
    _exchanged: ("misalignment", "of the other view"), _inverse: ("units", "inverted"),
    _one_in_feet: ("units", "3.28 and 1 times"), _baseline: ("units", "the baseline 0.5 times"),
    _inverted: ("camera-convention", "inverted"), _left_handed: ("camera-convention", "y of the camera axes"),
    _one_pose: ("camera-convention", "one pose"), _turned: ("camera-convention", "1.72 degrees"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("which", ["town", "room"])
def test_a_mistake_is_the_first_thing_named(
    mistake: Callable[[Batch], None], which: str, request: pytest.FixtureRequest
) -> None:
    """In a rendered pair and a real one, certainly, with its numbers."""
    raw: list[RawView] = request.getfixturevalue("town") if which == "town" else room(*NEAR[0])
    batch = handed_out(raw)
    mistake(batch)
    id, words = MISTAKES[mistake]
    first = causes(batch, raw)[0]
    assert (first.id, first.certain) == (id, True)
    assert words in first.observed


@pytest.mark.parametrize("label", [None, 3])
def test_sky_that_counts_is_named(town: list[RawView], label: int | None) -> None:
    """No mask applied, or another label of it."""
    assert all(view.labels is not None for view in town)
    other = [replace(view, labels=np.where(view.labels == (label or 99), 2, 0).astype(np.uint8)) for view in town]
    found = causes(handed_out(other), town)
    assert [cause.id for cause in found] == ["sky"]
    assert found[0].evidence["kept"] > 0.8


def test_the_label_that_is_left_out_instead_is_named(town: list[RawView]) -> None:
    """A label off by one, of which the view has much."""
    labels, counts = np.unique(town[1].labels, return_counts=True)  # type: ignore[call-overload]
    ground = int(max((count, label) for label, count in zip(labels, counts, strict=True) if label != 2)[1])
    other = [replace(view, labels=np.where(view.labels == ground, 2, 0).astype(np.uint8)) for view in town]
    assert f"what it calls {ground} has none" in causes(handed_out(other), town)[0].observed


def test_another_picture_is_no_mistake_of_the_batch(town: list[RawView]) -> None:
    """What is not the files' content is not compared with it."""
    batch = handed_out(town)
    batch["images"] = torch.rand(batch["images"].shape, generator=torch.Generator().manual_seed(0))
    assert causes(batch, town) == []


def test_a_layout_of_ones_own_is_not_looked_at(tmp_path: Path) -> None:
    """No index, or none that can be read."""
    for section in ({"dataset": [{"ROOT": str(tmp_path), "split_file": "x.npz"}]}, {"path": str(tmp_path)}):
        assert look_at_source(section, {}) is None


def test_a_comparison_that_breaks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no answer, and not nothing."""
    monkeypatch.delenv("PYTEST_OVERFIT_RAISE", raising=False)

    def broken() -> None:
        raise IndexError

    causes, (not_asked,) = causes_of_source(broken)
    assert (causes, not_asked.ours) == ((), True)
