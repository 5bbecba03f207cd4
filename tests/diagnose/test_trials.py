"""The run again with one thing changed: which, and what they leave behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.trials.changes import settings


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 4, generator=generator).to(dtype), torch.randn(8, 1, generator=generator).to(dtype)


def adam(lr: float) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def made(result: Any) -> list[str]:
    return [attempt.trial.text for attempt in result.evidence.attempts]


@pytest.mark.parametrize("lr", [1e-6, 10.0])
def test_no_trial_is_made_twice(lr: float) -> None:
    """The usual rates and the steps from the given one overlap where it is far off."""
    result = run_overfit(net(), batch(), F.mse_loss, optimizer=adam(lr), objective=1e-12, max_steps=30)
    assert any(text.startswith("lr") for text in made(result))
    assert len(made(result)) == len(set(made(result)))


def test_a_half_model_on_a_half_batch_is_tried_in_full_precision() -> None:
    """Both change, or they do not fit each other."""
    given = batch(torch.float16)
    result = run_overfit(net().half(), given, F.mse_loss, optimizer=adam(1e-8), max_steps=30)
    assert "float32" in made(result)
    assert not [each for each in result.not_asked if "float32" in each.text()]
    assert given[0].dtype is torch.float16


def test_settings_of_a_trial_hold_for_the_length_of_a_step() -> None:
    """Those that a group does not have are not given to it."""
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1, momentum=0.5)
    seen: list[tuple[float, bool]] = []
    optimizer.register_step_post_hook(lambda opt, args, kwargs: seen.append((opt.param_groups[0]["momentum"], True)))
    with settings(momentum=0.9, betas=(0.0, 0.9))(None):  # type: ignore[arg-type]  # it looks at no run
        optimizer.step()
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert "betas" not in optimizer.param_groups[0]


class Breaks(nn.Module):
    """Gives NaN from its third training step on, and is interrupted where that is looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls, self.broken = nn.Linear(4, 1), 0, False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        if self.broken:
            raise KeyboardInterrupt
        if bool((self.layer.bias.detach().abs() > 0.05).any()):
            return (out * 0 - 1).log()
        return out


def test_ctrl_c_ends_the_search_for_a_nan_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is interrupted, and no trial follows."""
    from pytest_overfit.diagnose.questions import nonfinite

    model = Breaks()
    with torch.no_grad():
        model.layer.bias.zero_()
    fit = vars(nonfinite)["fit"]

    def watched(*args: Any, **kwargs: Any) -> Any:
        model.broken = True
        try:
            return fit(*args, **kwargs)
        finally:
            model.broken = False

    monkeypatch.setattr(nonfinite, "fit", watched)
    result = run_overfit(model, batch(), F.mse_loss, optimizer=adam(0.02), max_steps=60)
    assert result.interrupted
    assert not made(result)
