"""A model against the one that it was ported from: right ports and broken ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.errors import OverfitError
from tests.twins.small_twins import batch, net, twins


class Ported(nn.Module):
    """The net under other names."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.inner, self.norm, self.head = (
            nn.Linear(4, 8),
            nn.LayerNorm(8, 1e-3 if fault == "eps" else 1e-5),
            nn.Linear(8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        made = torch.tanh(self.inner(x))
        if self.fault == "cut":
            made = made.detach() / 2 + made / 2
        if self.fault == "act":
            made = F.softsign(self.inner(x))
        out: Tensor = self.head(self.norm(made))
        return out


NAMES = {"inner.*": "0.*", "norm.*": "2.*", "head.*": "3.*"}


@pytest.mark.parametrize(
    ("fault", "outputs", "gradients"), [("", "", ""), ("eps", "norm", ""), ("act", "norm", ""), ("cut", "", "inner")]
)
def test_a_port_against_its_original(fault: str, outputs: str, gradients: str) -> None:
    """The first module whose outputs, or gradients, differ; the original stays as it was."""
    torch.manual_seed(0)
    original = net()
    before = [p.detach().clone() for p in original.parameters()]
    (found,) = twins(Ported(fault), batch(), port_of=(original, NAMES))
    assert found.outcome == ("disagreed" if fault else "agreed"), found.text()
    assert found.outputs == outputs or not outputs
    assert found.gradients == gradients or not gradients
    assert all(torch.equal(a, b) for a, b in zip(before, original.parameters(), strict=True))


def test_tensors_that_are_turned_and_names_by_a_function() -> None:
    """A convolution for a linear layer."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.bias

    (found,) = twins(nn.Linear(4, 1), batch(), port_of=(Turned, {"weight": ("weight", lambda w: w.T)}))
    assert found.outcome == "agreed", found.text()
    (found,) = twins(nn.Linear(4, 1), batch(), port_of=(lambda: nn.Linear(4, 1), lambda name: name))
    assert found.outcome == "agreed", found.text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((net, {"inner.*": "1.*", **NAMES, "head.*": "9.*"}), "has no such tensor"),
        ((lambda: nn.Linear(4, 1), {"inner.*": "*", "norm.*": "*", "head.*": "*"}), "has the shape"),
        ((lambda: 3, {}), "a int"),
        (net, "no pair"),
    ],
)
def test_a_map_that_does_not_fit_is_an_error_at_once(given: Any, told: str) -> None:
    """Before anything is trained."""
    with pytest.raises(OverfitError, match=told):
        twins(Ported(), batch(), port_of=given)
