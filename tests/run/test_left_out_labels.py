"""Another target is one that the loss reads: a label of what is left out is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.influence import perturbed

SIDE = 24


def labelled(left_out: int) -> tuple[Tensor, Tensor]:
    """Two images with a square each, the classes of their pixels, and a border that is left out."""
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    labels[0, 4:16, 4:16], labels[1, 8:20, 8:20] = 1, 2
    images = F.one_hot(labels, 3).movedim(-1, 1) + 0.1 * torch.randn(2, 3, SIDE, SIDE)
    labels[:, :2] = left_out
    return images, labels


@pytest.mark.parametrize("left_out", [255, -100, -1, 3])
def test_another_target_has_other_labels_where_the_loss_reads_them(left_out: int) -> None:
    """A quarter of them at least, whichever label says that a pixel is left out."""
    _, labels = labelled(left_out)
    other = perturbed(labels)
    assert other is not None
    read = (labels != left_out) & (other != left_out)
    assert float((labels != other)[read].double().mean()) > 0.25


@pytest.mark.parametrize("left_out", [255, -100])
def test_a_network_that_labels_pixels_answers_to_them_at_its_end(left_out: int) -> None:
    """A loss that is a little higher alone, as of a few pixels at the borders, is one that does not answer any more."""
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], ignore_index=left_out)

    result = run_overfit(net, labelled(left_out), loss, lr=0.03, max_steps=150, objective=0.05)
    assert result.passed, str(result)
