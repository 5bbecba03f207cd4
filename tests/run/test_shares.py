"""How much of a target is read, and what the data mark as left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.run.as_loss import as_loss
from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.loss_call import LossCall
from pytest_overfit.run.shares import measure_shares
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.supervision_record import Share


def shares(batch: Any, loss: Any, *keys: str, model: nn.Module | None = None, step: Any = None) -> dict[str, Share]:
    """The shares of some tensors under an untrained linear model."""
    torch.manual_seed(0)
    trained = nn.Linear(4, 3) if model is None else model
    task = CallTask(trained, trained, None if loss is None else as_loss(loss), batch, torch.device("cpu"))
    snapshot = Snapshot()
    snapshot.add(trained)
    return measure_shares(LossCall(task, snapshot, seed=0, step=step), dict.fromkeys(keys, True))


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 3
HIGH = int((Y > 0.5).sum())


def test_numbers_and_labels_are_counted_by_their_gradients() -> None:
    """A target of numbers by its own, labels by that of the predictions at their places."""
    assert shares((X, Y), F.mse_loss, "1") == {"1": Share(24, 24)}
    assert shares((X, LABELS), F.cross_entropy, "1") == {"1": Share(8, 8)}


def test_half_of_a_target_is_half() -> None:
    """The loss reads the first four samples."""
    assert shares((X, Y), lambda m, b: F.mse_loss(m(b[0])[:4], b[1][:4]), "1")["1"].ratio == pytest.approx(
        0.5, abs=0.15
    )
    assert shares((X, LABELS), lambda m, b: F.cross_entropy(m(b[0])[:4], b[1][:4]), "1") == {"1": Share(4, 8)}


def test_single_elements_are_exchanged_where_there_is_no_gradient() -> None:
    """Two are enough where both answer; a target that is only compared has no slope."""
    compared = shares((X, Y), lambda m, b: (m(b[0]) - b[1].sign()).square().mean(), "1")
    assert compared["1"].tried

    def step(batch: Any) -> Tensor:
        return F.cross_entropy(X @ torch.eye(4, 3), batch[1])

    assert shares((X, LABELS), None, "1", step=step) == {"1": Share(2, 2, tried=True)}


@pytest.mark.parametrize(
    ("batch", "loss", "key", "elements"),
    [
        ((X, torch.where(torch.arange(8) < 6, LABELS, -100)), F.cross_entropy, "1", 6),
        ({"x": X, "y": Y, "mask": torch.arange(8) < 6},
         lambda m, b: (m(b["x"]) - b["y"]).square()[b["mask"]].mean(), "y", 18),
        ({"x": X, "y": Y, "nodes": torch.tensor([1, 5])},
         lambda m, b: (m(b["x"]) - b["y"]).square()[b["nodes"]].mean(), "y", 6),
        ((X, torch.where(Y > 0.5, Y, 0.0)), lambda m, b: (m(b[0]) - b[1]).square()[b[1] > 0].mean(), "1", HIGH),
        ((X, torch.where(Y > 0.5, Y, torch.nan)), lambda m, b: (m(b[0]) - b[1]).square()[b[1] > 0].mean(), "1", HIGH),
        ((X, Y), lambda m, b: (m(b[0]) - b[1]).square()[:, 1].mean(), "1", 8),
    ],
    ids=["negative labels", "a mask", "places", "zeros", "NaN", "one column"],
)  # fmt: skip
def test_what_the_data_leave_out_is_no_element(batch: Any, loss: Any, key: str, elements: int) -> None:
    """All that is left is read."""
    found = shares(batch, loss, key)[key]
    assert found.ratio == 1.0
    assert found.elements == elements


def test_a_class_that_the_loss_ignores_is_no_mark_of_the_data() -> None:
    """Nearly all labels are of the class that is left out."""
    labels = torch.zeros(8, dtype=torch.long)
    labels[3] = 1
    assert shares((X, labels), nn.CrossEntropyLoss(ignore_index=0), "1") == {"1": Share(1, 8)}


def test_a_loss_that_refuses_a_gradient_of_its_target_is_asked_by_exchange() -> None:
    """It goes through numpy."""

    def loss(model: Any, batch: Any) -> Any:
        return (model(batch[0]) - torch.from_numpy(batch[1].numpy())).square().mean()

    assert shares((X, Y), loss, "1") == {"1": Share(2, 2, tried=True)}
