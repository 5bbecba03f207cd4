"""Gradients per parameter and group, and the first non-finite tensor."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit.run.gradient_watch import (
    GradientWatch,
    first_non_finite_state,
    locate_non_finite,
    named_outputs,
    parameter_records,
)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)  # type: ignore[no-any-return]


def test_group_norms_are_those_of_torch() -> None:
    """One norm per direct child, over all its gradients."""
    torch.manual_seed(0)
    net = Two()
    watch = GradientWatch(net)
    net(torch.ones(1, 2)).sum().backward()
    norms = dict(zip(watch.groups, watch.take(watch.observe()[None].numpy())[0].tolist(), strict=True))
    assert norms["used"] == pytest.approx(math.sqrt(4 + 2))
    assert norms["unused"] == 0.0


def test_the_largest_gradient_is_kept_and_a_missing_one_is_none() -> None:
    """None is not zero: no gradient ever arrived."""
    net = Two()
    watch = GradientWatch(net)
    for factor in (1.0, 5.0, 2.0):
        net.zero_grad()
        (factor * net(torch.ones(1, 2)).sum()).backward()
        watch.take(watch.observe()[None].numpy())
    largest = watch.largest()
    assert largest["used.bias"] == pytest.approx(5 * math.sqrt(2))
    assert largest["unused.bias"] is None


def test_parameter_records_tell_moved_from_unmoved() -> None:
    """What the optimizer holds and what it moved."""
    net = Two()
    before = {id(p): p.detach().clone() for p in net.parameters()}
    optimizer = torch.optim.SGD(net.used.parameters(), lr=1.0)

    def initial(parameter: Tensor) -> Tensor:
        return before[id(parameter)]

    with torch.no_grad():
        net.used.weight.add_(0.25)
    records = {r.name: r for r in parameter_records(net, initial, [optimizer], {}, {"unused.weight": "*unused*"})}
    assert records["used.weight"].moved == pytest.approx(0.25)
    assert records["used.bias"].moved == 0.0
    assert records["used.weight"].in_optimizer
    assert not records["unused.weight"].in_optimizer
    assert records["unused.weight"].frozen_by == "*unused*"


def test_the_innermost_module_that_breaks_is_named() -> None:
    """Execution order decides, and the containers around it are not blamed."""

    class Break(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0 * 0

    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Break(), nn.ReLU()))
    assert locate_non_finite(net, lambda: net(torch.ones(1, 2))) == "1.0 (Break)"
    assert locate_non_finite(net[0], lambda: net[0](torch.ones(1, 2))) is None


def test_a_mask_of_minus_infinity_has_not_gone_wrong() -> None:
    """The logarithm behind it has."""

    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((2, 2), -math.inf).triu(1)

    class Head(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 5).log()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mask, self.head = nn.Linear(2, 2), Mask(), Head()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x) + self.mask(x).softmax(1))  # type: ignore[no-any-return]

    net = Net()
    assert locate_non_finite(net, lambda: net(torch.ones(2, 2))) == "head (Head)"


def test_a_gradient_in_half_precision_may_have_a_norm_beyond_it() -> None:
    """A million gradients of 100 are as finite as one."""
    net = nn.Linear(1000, 1000, bias=False).half()
    net.weight.grad = torch.full_like(net.weight, 100.0)
    norms = GradientWatch(net).observe()
    assert norms.tolist() == pytest.approx([1e5], rel=0.01)


@pytest.mark.parametrize("kind", ["parameter", "buffer", "optimizer state"])
def test_a_non_finite_state_is_named(kind: str) -> None:
    """Parameters, buffers and the optimizer's own tensors are looked at."""
    norm = nn.BatchNorm1d(2)
    net = nn.Sequential(norm)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    assert first_non_finite_state(net, [optimizer], 3) is None
    with torch.no_grad():
        if kind == "parameter":
            norm.weight[0] = float("inf")
        elif kind == "buffer":
            assert norm.running_var is not None
            norm.running_var[0] = float("nan")
        else:
            optimizer.state[norm.weight]["exp_avg"][0] = float("nan")
    found = first_non_finite_state(net, [optimizer], 3)
    assert found is not None
    assert found.step == 3
    assert found.what.startswith(kind)


def test_outputs_of_any_nest_are_named() -> None:
    """Dotted names through mappings and lists; integers are no predictions."""
    nest = {"depth": torch.ones(1), "pose_enc_list": [torch.ones(1), torch.ones(2)], "ids": torch.ones(1).int()}
    assert [name for name, _ in named_outputs(nest)] == ["depth", "pose_enc_list.0", "pose_enc_list.1"]
