"""Can the network memorise eight images?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from defects import DefectNet
from torch import Tensor

Overfit = Callable[..., Any]


@pytest.mark.overfit(objective=0.01, accuracy={"above": 0.99}, max_steps=300)
def test_memorises_eight_images(overfit: Overfit) -> None:
    """Model, batch and loss come from the conftest."""
    overfit()


@pytest.mark.overfit(max_steps=300, hold_steps=30, keep_trained=True)
def test_remembers_in_evaluation_mode(overfit: Overfit, overfit_batch: tuple[Tensor, Tensor]) -> None:
    """Thirty steps below the limit give the running statistics time to catch up with the weights."""
    torch.manual_seed(0)
    network = DefectNet()
    overfit(network)
    images, labels = overfit_batch
    with torch.no_grad():
        assert torch.equal(network.eval()(images).argmax(dim=1), labels)


class ForgetfulNet(DefectNet):
    """A refactoring went wrong: the pooled features of the first block are padded where the second should be."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks[0](self.stem(images)).mean(dim=(2, 3))
        return self.head(torch.cat([features, features], dim=1))


def test_a_block_that_forward_forgets_is_found(overfit: Overfit) -> None:
    """The loss falls to zero all the same: only the gradients tell."""
    with pytest.raises(AssertionError, match=r"(?s)where: .*blocks\.1.*gradients: .*no gradient arrives"):
        overfit(ForgetfulNet, max_steps=300)
