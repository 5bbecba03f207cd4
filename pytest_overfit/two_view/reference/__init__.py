"""The embedded default: a small two-view network, the pose encoding and the multitask loss."""

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
