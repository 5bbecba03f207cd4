"""What is told first, and what is not told beside it, of programs as people write them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.rank import find_causes
from pytest_overfit.diagnose.trial import Attempt, Trial
from tests.diagnose.test_rank import FAILED
from tests.support.told import told


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_in_no_optimizer_is_not_said_to_get_no_gradient() -> None:
    """A step of the user's hands the optimizer what it holds: of the rest nobody has asked for a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Linear(256, 3))

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    optimizer = torch.optim.AdamW(model[2].parameters(), lr=1e-2)
    result = run_overfit(model, (numbers(6, 4), torch.arange(6) % 3), step=step, optimizer=optimizer)
    assert [cause.id for cause in result.causes] == ["optimizer-coverage"]


class Depth(nn.Module):
    def __init__(self, *, squeezed: bool) -> None:
        super().__init__()
        self.squeezed = squeezed
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out[:, 0] if self.squeezed else out


@pytest.mark.parametrize("squeezed", [True, False])
@pytest.mark.parametrize("of", ["target", "prediction"])
def test_shapes_that_broadcast_under_a_mask(squeezed: bool, of: str) -> None:
    """The mask goes with the rows of the one, and those of the other may stand in any order."""
    torch.manual_seed(0)
    batch = {"image": numbers(2, 3, 8, 8), "depth": 1 + numbers(2, 1, 8, 8, seed=1).sigmoid()}
    valid = (numbers(2, 1, 8, 8, seed=2) > -0.5).float()

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        said = model(batch["image"])
        weight = valid.reshape(said.shape) if of == "prediction" else valid
        return ((said - batch["depth"]).abs() * weight).sum() / weight.sum()  # type: ignore[no-any-return]

    adam = partial(torch.optim.Adam, lr=0.02)
    result = run_overfit(lambda: Depth(squeezed=squeezed), batch, loss, optimizer=adam, max_steps=200, objective=0.19)
    assert told(result) == ("broadcast" if squeezed else "")


def test_a_logarithm_of_less_than_zero_comes_before_a_rate_that_gets_there_later() -> None:
    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            maps = self.body(x)
            return maps[:, 0].exp(), 3 + 3 * maps[:, 1]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        depth, sure = model(batch[0])
        return ((depth - batch[1]).abs() * sure - 0.02 * sure.log()).mean()  # type: ignore[no-any-return]

    torch.manual_seed(0)
    batch = numbers(64, 8), 0.5 + numbers(64, seed=1).sigmoid()
    result = run_overfit(Sure, batch, loss, optimizer=partial(torch.optim.Adam, lr=0.05), max_steps=200)
    assert told(result) == "nonfinite-loss"


@pytest.mark.parametrize(("passed_at", "first"), [(100, "weight-decay"), (790, "grad-accumulation")])
def test_a_trial_that_learns_just_before_its_end_is_no_reason_to_come_first(passed_at: int, first: str) -> None:
    def rules(evidence: Any) -> list[Cause]:
        return [
            Cause("weight-decay", "group 0", "passes without it", "set it to 0", "proven", weight=0.9),
            Cause("grad-accumulation", "a line", "gradients are left", "zero them", certain=True, weight=0.97),
        ]

    record = replace(FAILED.record, planned_steps=1000)
    attempt = Attempt(Trial("no weight decay", was=0.01, value=0.0), (1.0, 0.1), passed_at, "passed")
    found = find_causes(replace(FAILED, record=record, attempts=(attempt,)), rules=(rules,))
    assert found[0].id == first


@pytest.mark.parametrize(("key", "read", "cause"), [
    ("valid", False, "target-mismatch"), ("valid", True, ""), ("val_mask", False, ""), ("scores", False, ""),
])  # fmt: skip
def test_a_mask_beside_a_target_that_nothing_reads(key: str, read: bool, cause: str) -> None:
    torch.manual_seed(0)
    valid = numbers(2, 1, 8, 8, seed=2) > -0.5
    batch = {"image": numbers(2, 3, 8, 8), "depth": (1 + numbers(2, 1, 8, 8, seed=1).sigmoid()) * valid, key: valid}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error = (model(batch["image"]) - batch["depth"]).abs()
        return (error[batch[key]] if read else error).mean()  # type: ignore[no-any-return]

    adam = partial(torch.optim.Adam, lr=0.02)
    result = run_overfit(lambda: Depth(squeezed=False), batch, loss, optimizer=adam, max_steps=300, objective=0.4)
    assert told(result) == cause
