"""Losses and models that are made of transforms of torch.func: what they hand around inside ends with the transform."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn import functional as F

from pytest_overfit import run_overfit


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))


def per_sample(model: nn.Module, batch: Any) -> Tensor:
    """The loss of each sample by itself."""
    return vmap(lambda x, y: F.mse_loss(model(x), y))(*batch).mean()


def with_tangents(model: nn.Module, batch: Any) -> Tensor:
    """With a penalty on how fast the outputs turn."""
    out, turned = jvp(model, (batch[0],), (torch.ones_like(batch[0]),))[:2]
    loss: Tensor = F.mse_loss(out, batch[1]) + 1e-6 * turned.square().mean()
    return loss


def adapted(model: nn.Module, batch: Any) -> Tensor:
    """After one step of its own, as in MAML."""
    weights = dict(model.named_parameters())
    inner = grad(lambda held: F.mse_loss(functional_call(model, held, (batch[0],)), batch[1]))(weights)
    return F.mse_loss(
        functional_call(model, {k: v - 0.1 * inner[k] for k, v in weights.items()}, (batch[0],)), batch[1]
    )


class Ensemble(nn.Module):
    """Three models in one call: the one that is called has no numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        models = [net() for _ in range(3)]
        stacked, _ = stack_module_state(models)
        self.base = [copy.deepcopy(models[0]).to("meta")]
        self.names = list(stacked)
        self.held = nn.ParameterList(nn.Parameter(value.detach().clone()) for value in stacked.values())

    def forward(self, x: Tensor) -> Tensor:
        held = dict(zip(self.names, self.held, strict=True))
        made: Tensor = vmap(lambda weights: functional_call(self.base[0], weights, (x,)))(held)
        return made


def of_all(model: nn.Module, batch: Any) -> Tensor:
    """Every model of an ensemble has the same targets."""
    return F.mse_loss(model(batch[0]), batch[1].expand(3, -1, -1))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, at the first jvp
@pytest.mark.parametrize(
    ("model", "loss"), [(net, per_sample), (net, with_tangents), (net, adapted), (Ensemble, of_all)]
)
def test_a_loss_of_transforms_is_judged_and_nothing_of_ours_breaks(model: Any, loss: Any) -> None:
    """It memorises as any other, and no question falls over what it cannot read."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
    torch.manual_seed(0)
    result = run_overfit(model, batch, loss, lr=0.01, max_steps=600)
    assert result.passed, result.summary()
    assert not [each for each in result.not_asked if each.ours or "refuses" in each.why]
