"""The batch as both guides describe it, against the code; and the data set that is written from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pytest_overfit.two_view.data.contract import REQUIRED, batch_problems
from pytest_overfit.two_view.data.dataset import PairDataset, build_loader
from pytest_overfit.two_view.data.normalize import normalize_batch
from pytest_overfit.two_view.pair.synthetic import render_source
from tests.plugin.conftest import sessions, tiny  # noqa: F401
from tests.support.sessions import REPOSITORY, outcomes

PAGES = {"guide.md": "may be left out", "guide.zh.md": "可省略"}
ROW = re.compile(r"^\| `(\w+)` \| (\([^|]*\))? ?\| (\w+) \| (.*) \|$", re.MULTILINE)
SIZES = {"S": 2, "H": 56, "W": 56, "3": 3, "4": 4}


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of our own data set."""
    folder = tmp_path_factory.mktemp("pair")
    root, masks, index = render_source(folder, width=80, height=80)
    dataset = PairDataset(root, index, masks, img_size=56, aspect_ratio=1.0)
    return dataset[0]


def shape_of(text: str) -> tuple[int, ...]:
    return tuple(SIZES[each] for each in re.findall(r"\w+", text))


@pytest.mark.parametrize("name", PAGES)
def test_the_keys_of_an_item_are_those_of_the_guide(name: str, item: dict[str, Any]) -> None:
    """Shapes and types too; what is not called optional is what the loader's item asks for."""
    rows = ROW.findall(page(name))
    assert {key for key, *_ in rows} == set(item)
    for key, shape, kind, _ in rows:
        value = item[key]
        if isinstance(value, Tensor):
            assert (tuple(value.shape), str(value.dtype)) == (shape_of(shape), f"torch.{kind}"), key
        else:
            assert (type(value).__name__, shape) == (kind, ""), key
    assert {key for key, *_, told in rows if not told.startswith(PAGES[name])} == set(REQUIRED)


def test_units_and_axes_are_as_they_are_told(item: dict[str, Any]) -> None:
    """Points of the formulas that the table has; images within 0..1; masks where depth is."""
    depths, K, E = item["depths"], item["intrinsics"], item["extrinsics"]
    s, v, u = 1, 20, 31
    z = depths[s, v, u]
    ray = torch.stack([(u - K[s, 0, 2]) * z / K[s, 0, 0], (v - K[s, 1, 2]) * z / K[s, 1, 1], z])
    assert torch.allclose(item["cam_points"][s, v, u], ray, rtol=1e-4)
    assert torch.allclose(item["world_points"][s, v, u], E[s, :, :3].T @ (ray - E[s, :, 3]), rtol=1e-4, atol=1e-3)
    assert 0 <= float(item["images"].min()) < float(item["images"].max()) <= 1
    assert not item["point_masks"][depths == 0].any()


def test_the_batch_of_the_model_is_normalised_as_it_is_told(item: dict[str, Any]) -> None:
    """The first camera is the world, ``avg_scale`` the mean distance of the valid points, and one key more."""
    batch = next(iter(build_loader([item])))  # type: ignore[arg-type]
    given = normalize_batch(batch)
    assert set(given) - set(batch) == {"avg_scale"}
    assert torch.allclose(given["extrinsics"][0, 0], torch.eye(3, 4), atol=1e-5)
    distance = given["world_points"].norm(dim=-1)[given["point_masks"]].mean()
    assert float(distance) == pytest.approx(1.0, abs=1e-3)
    assert torch.allclose(given["depths"] * given["avg_scale"], batch["depths"], rtol=1e-4)


def test_the_data_set_of_the_guide_is_read(pytester: pytest.Pytester, tiny: Any) -> None:  # noqa: F811
    """Its block is a conftest.py, the same in both languages; the loader's item says that nothing is wrong with it."""
    codes = [re.findall(r"^```python\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE) for name in PAGES]
    assert codes[0] == codes[1]
    (code,) = codes[0]
    tiny()
    (Path(pytester.path) / "conftest.py").write_text(code)
    alone = ("--overfit-set=data.val=null", "--overfit-set=overfit.diagnose=false")
    found = outcomes(pytester.runpytest_inprocess("--overfit-config=tiny.yaml", *alone))
    assert set(found.values()) == {"passed"}
    assert {"loader", "supervised", "objective", "camera", "depth", "prediction"} <= found.keys()
    space: dict[str, Any] = {}
    exec(code, space)
    batch = next(iter(build_loader(space["MyPairs"](28, 42))))
    assert batch_problems(batch, height=28, width=42) == ()
