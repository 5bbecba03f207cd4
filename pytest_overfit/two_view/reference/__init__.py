"""The embedded default: a small two-view network, the pose encoding and the multitask loss.

Example:
    >>> from pytest_overfit.two_view.reference import MultitaskLoss, TwoViewTransformer
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss
    from pytest_overfit.two_view.reference.pose import (
        decode_pose,
        encode_pose,
        quaternion_to_rotation,
        rotation_to_quaternion,
    )
    from pytest_overfit.two_view.reference.two_view_transformer import TwoViewTransformer

__all__ = [
    "MultitaskLoss",
    "TwoViewTransformer",
    "decode_pose",
    "encode_pose",
    "quaternion_to_rotation",
    "rotation_to_quaternion",
]

_HOMES = {"MultitaskLoss": "multitask_loss", "TwoViewTransformer": "two_view_transformer"}


def __getattr__(name: str) -> Any:
    # Lazy: naming the package (in a config, for one) must not import torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'pose')}"), name)
