"""A view that ``no_grad`` made may not be asked for its graph once its base was changed in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.questions.tensors import final_operation, graph_nodes, made_by


def forbidden() -> Tensor:
    """PyTorch raises where its ``grad_fn`` is read."""
    base = torch.zeros(3)
    with torch.no_grad():
        view = base[:2]
    base.mul_(torch.ones(3, requires_grad=True))
    return view


def test_it_has_no_graph_that_we_could_follow() -> None:
    """And none of what follows graphs ends."""
    view = forbidden()
    assert made_by(view) is None
    assert final_operation(view) == ""
    assert list(graph_nodes(view)) == []


class Buffered(nn.Module):
    """Keeps a window of a buffer that every call writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The window is looked at without a gradient, as for a log."""
        features = self.inner(x)
        room = torch.zeros_like(features)
        with torch.no_grad():
            self.window = room[:2]
            self.seen = self.window.detach()
        room += features
        return self.head(room)  # type: ignore[no-any-return]


def test_a_model_that_holds_one_passes_and_every_question_is_asked() -> None:
    """None of them breaks on it."""
    x, y = torch.randn(6, 4), torch.arange(6) % 3

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    result: Any = run_overfit(Buffered(), (x, y), loss, lr=0.02, max_steps=400)
    assert result.passed
    assert not [note for note in result.notes if "mistake of pytest-overfit" in note]
