"""What the config's own items do not ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twoview import PairNet


@pytest.mark.overfit(config="../single_pair_test.yaml", camera=0.0005, depth=0.005)
def test_reaches_tighter_limits_too(overfit: Callable[..., Any]) -> None:
    """A second run under the config, of which more is asked."""
    overfit()


@pytest.mark.overfit(config="../single_pair_test.yaml")
def test_a_net_that_sees_one_view_twice_is_found(overfit: Callable[..., Any], one_view_net: type[PairNet]) -> None:
    """Two views have two cameras and two depth maps: one of each is half of the answer."""
    with pytest.raises(
        AssertionError, match=r"(?s)camera: loss_camera 0\.\d.*depth: loss_reg_depth 0\.\d.*prediction: frame"
    ):
        overfit(one_view_net)
