"""Models whose training mode returns losses: detection models over lists of images and lists of targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitError, run_overfit
from pytest_overfit.run.batch import fingerprint, freeze_batch

Targets = list[dict[str, Tensor]]


class Detector(nn.Module):
    """Called as torchvision's are: losses in training mode, detections in evaluation mode; images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(0))
        self.box, self.label = nn.Linear(256, 4), nn.Linear(256, 3)

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> Any:
        features = torch.stack([self.body(image) for image in images])
        boxes, logits = self.box(features), self.label(features)
        if targets is None or not self.training:
            return [{"boxes": box[None], "scores": row.softmax(-1)} for box, row in zip(boxes, logits, strict=True)]
        wanted = torch.cat([target["boxes"] for target in targets])
        labels = torch.cat([target["labels"] for target in targets])
        return {"loss_box": F.mse_loss(boxes, wanted), "loss_label": F.cross_entropy(logits, labels)}


def scenes() -> tuple[list[Tensor], Targets]:
    source = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 8 + i, 8, generator=source) for i in range(3)]
    return images, [{"boxes": torch.rand(1, 4, generator=source), "labels": torch.tensor([i])} for i in range(3)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sum_is_minimised_and_each_is_a_term(seed: int) -> None:
    """Without a loss, and with a limit on one term."""
    result = run_overfit(Detector, scenes(), seeds=[seed], loss_box=0.01)
    assert result.passed, result.summary()
    curves = result.record.curves
    assert curves["objective"][0] == pytest.approx(curves["loss_box"][0] + curves["loss_label"][0], rel=1e-6)
    assert result.record.supervision is not None
    assert "1.0.boxes" in result.record.supervision.answers


def test_lists_of_tensors_and_of_mappings_are_frozen_and_fingerprinted() -> None:
    """A change of one of them is seen."""
    given = scenes()
    frozen = freeze_batch(given, "cpu")
    before = fingerprint(given)
    given[1][2]["boxes"] += 1
    assert fingerprint(frozen) == before != fingerprint(given)


def test_a_mistake_in_one_loss_is_named() -> None:
    """Labels are never looked at."""

    class Blind(Detector):
        def forward(self, images: list[Tensor], targets: Targets | None = None) -> Any:
            losses = super().forward(images, targets)
            return {**losses, "loss_label": losses["loss_label"].detach()} if isinstance(losses, dict) else losses

    result = run_overfit(Blind, scenes(), max_steps=200)
    assert {"gradients", "objective"} <= {finding.name for finding in result.findings if not finding.passed}


@pytest.mark.parametrize(
    "returned", [{"loss_a": torch.zeros(2), "loss_b": torch.zeros(())}, {"logits": torch.zeros(2, 3)}, {}]
)
def test_a_mapping_that_is_no_losses_is_told(returned: dict[str, Tensor]) -> None:
    """With the names that it has."""

    class Returns(nn.Linear):
        def forward(self, given: Tensor) -> Any:
            return returned

    with pytest.raises(OverfitError, match="returned none, only " + (", ".join(returned) or "nothing")):
        run_overfit(Returns(1, 1), torch.zeros(1, 1), supervised=False)
