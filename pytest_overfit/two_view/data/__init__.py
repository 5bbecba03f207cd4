"""From a pair on disk to one frozen, fingerprinted batch.

Example:
    >>> from pytest_overfit.two_view.data import PairDataset, build_loader, normalize_batch
    >>> (batch,) = build_loader(PairDataset("single_pair_data", "single_pair_data/train.npz"))
    >>> normalize_batch(batch)["avg_scale"]
    tensor([33.8855])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_overfit.two_view.data.contract import batch_problems
    from pytest_overfit.two_view.data.dataset import PairDataset
    from pytest_overfit.two_view.data.loader import build_loader
    from pytest_overfit.two_view.data.normalize import normalize_batch
    from pytest_overfit.two_view.data.transform import ViewArrays, process_view, target_shape

__all__ = [
    "PairDataset",
    "ViewArrays",
    "batch_problems",
    "build_loader",
    "normalize_batch",
    "process_view",
    "target_shape",
]

_HOMES = {
    "PairDataset": "dataset",
    "ViewArrays": "transform",
    "batch_problems": "contract",
    "build_loader": "loader",
    "normalize_batch": "normalize",
    "process_view": "transform",
    "target_shape": "transform",
}


def __getattr__(name: str) -> Any:
    # Lazy: the transform is plain numpy and must stay usable without importing torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
