from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor
from twoview import PairNet


class OneViewNet(PairNet):
    """An index that is off: what is said of the first frame is said of the second, too."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        said = super().forward(images)
        said = {name: said[name][:, :1].expand_as(said[name]) for name in ("depth", "depth_conf", "pose_enc")}
        return {**said, "pose_enc_list": [said["pose_enc"]]}


@pytest.fixture
def one_view_net() -> type[OneViewNet]:
    return OneViewNet
