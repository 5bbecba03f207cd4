"""Keys of parameter groups: those that nothing reads, and those that an optimizer or a schedule does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Groups = list[dict[str, Any]]


class Scaled(torch.optim.SGD):
    """Reads a key of its own, as the layer-wise optimizers of some libraries do."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = group["lr"] * group.get("lr_scale", 1.0)
        super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 3))


def groups(model: nn.Sequential, **keys: Callable[[int, str], Any]) -> Groups:
    """One for the weight and one for the bias of every layer."""
    layers = [model[0], model[2], model[4]]
    return [
        {"params": [getattr(layer, kind)], **{key: value(place, kind) for key, value in keys.items()}}
        for place, layer in enumerate(layers)
        for kind in ("weight", "bias")
    ]


def learn(build: Callable[[Groups], torch.optim.Optimizer], step: Any = None, **keys: Any) -> OverfitResult:
    model = net()
    optimizer = build(groups(model, **keys))
    before = [p.detach().clone() for p in model.parameters()]
    batch = torch.randn(9, 6), torch.arange(9) % 3
    how: dict[str, Any] = {"loss": nn.CrossEntropyLoss()} if step is None else {"step": step}
    result = run_overfit(model, batch, optimizer=optimizer, max_steps=600, objective=0.1, **how)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    return result


def found(result: OverfitResult) -> list[tuple[str, str]]:
    return [(cause.id, cause.where) for cause in result.causes if cause.certain]


def adamw(of: Groups) -> torch.optim.Optimizer:
    return torch.optim.AdamW(of, lr=5e-3)


def by_depth(place: int, kind: str) -> float:
    return float(0.5 ** (2 - place))


def decayed(place: int, kind: str) -> float:
    return 0.05 if kind == "weight" else 0.0


def test_a_scale_of_the_rate_that_nothing_multiplies() -> None:
    """Though groups differ in their decay too, as they do where layers have rates of their own."""
    result = learn(adamw, lr_scale=by_depth, weight_decay=decayed)
    assert found(result) == [("lr-group", "(AdamW), lr_scale")]
    assert "6 parameter groups differ in lr_scale (0.25, 0.25, 0.5, 0.5, ...)" in result.causes[0].observed


def test_a_setting_under_another_name() -> None:
    assert found(learn(adamw, wd=decayed)) == [("optimizer-hyperparameter", "(AdamW), wd")]


def scheduled(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """The rate is set by hand in every step, from the key."""
    for group in optimizer.param_groups:
        group["lr"] = 5e-3 * group["lr_scale"]
    loss = F.cross_entropy(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


@pytest.mark.parametrize(
    ("build", "step", "keys"),
    [
        (lambda of: Scaled(of, lr=0.3, momentum=0.9), None, {"lr_scale": by_depth}),
        (adamw, scheduled, {"lr_scale": by_depth}),
        (adamw, None, {"lr": lambda place, kind: 5e-3 * by_depth(place, kind), "lr_scale": by_depth}),
        (adamw, None, {"weight_decay": decayed, "layer": lambda place, kind: place, "name": lambda place, kind: kind}),
        (adamw, None, {"lr_scale": lambda place, kind: 1.0}),
        (adamw, None, {"share": by_depth, "weight_decay": decayed}),
    ],
    ids=["its own optimizer", "by hand", "applied", "names", "all alike", "no setting"],
)
def test_keys_that_are_read_or_only_say_something(build: Any, step: Any, keys: dict[str, Any]) -> None:
    assert found(learn(build, step, **keys)) == []
