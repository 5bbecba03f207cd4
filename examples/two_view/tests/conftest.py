from __future__ import annotations

import pytest
from torch import Tensor
from twoview import PairNet


class OneViewNet(PairNet):
    """An index that is off: what is said of the first frame is said of the second, too."""

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        said = super().forward(images)
        pose = repeated(said["pose_enc"])
        return {name: repeated(value) for name, value in said.items() if name != "pose_enc_list"} | {
            "pose_enc_list": [pose]
        }


def repeated(value: Tensor | list[Tensor]) -> Tensor:
    assert isinstance(value, Tensor)
    return value[:, :1].expand_as(value)


@pytest.fixture
def one_view_net() -> type[OneViewNet]:
    return OneViewNet
