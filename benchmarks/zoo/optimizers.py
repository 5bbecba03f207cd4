# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Optimizers: closures, momentum, sparse gradients, groups, several of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.case import Setup, cases, fixed, mlp
from benchmarks.zoo.dense import classify, labelled, regress, targets

Batch = dict[str, Any]
Optimizer = torch.optim.Optimizer


def lbfgs_closure() -> Setup:
    """Twenty evaluations in one step, with a line search."""
    factory = lambda parameters: torch.optim.LBFGS(parameters, max_iter=20, line_search_fn="strong_wolfe")  # noqa: E731
    return Setup(mlp(20, 64, 3, activation=nn.Tanh), targets(), regress, optimizer=factory)


def lbfgs_own_step() -> Setup:
    """The closure in the user's own step, five evaluations each."""
    model = mlp(20, 64, 5, activation=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = classify(model, batch)
            loss.backward()
            return loss

        return optimizer.step(closure)  # type: ignore[arg-type, return-value]

    return Setup(model, labelled(), step=step, optimizer=optimizer)


def classifier(factory: Callable[[Any], Optimizer]) -> Setup:
    """The same classifier under some optimizer."""
    return Setup(mlp(20, 128, 128, 5), labelled(), classify, optimizer=factory)


def sgd_momentum() -> Setup:
    """Nesterov momentum."""
    return classifier(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True))


def sgd_plain() -> Setup:
    """No momentum."""
    return classifier(lambda p: torch.optim.SGD(p, lr=0.3))


def rmsprop() -> Setup:
    """Centred RMSprop."""
    return classifier(lambda p: torch.optim.RMSprop(p, lr=5e-4, centered=True))


def adagrad() -> Setup:
    """Steps that shrink."""
    return classifier(lambda p: torch.optim.Adagrad(p, lr=0.02))


def nadam() -> Setup:
    """Weight decay included."""
    return classifier(lambda p: torch.optim.NAdam(p, lr=1e-3, weight_decay=1e-4))


def foreach_off_amsgrad() -> Setup:
    """AMSGrad, one parameter at a time."""
    return classifier(lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True, foreach=False))


class Tags(nn.Module):
    """The mean of sparse vectors of the words, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(300, 32, sparse=True)
        self.head = mlp(32, 64, 5)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.words(words).mean(1))


def words() -> Batch:
    """Lists of word ids with labels."""
    return {"x": torch.randint(0, 300, (16, 6), generator=fixed()), "y": labelled()["y"]}


def sparse_adam_two_optimizers() -> Setup:
    """Sparse gradients for the embedding under SparseAdam, Adam for the rest, by name."""
    model = Tags()
    optimizers = {
        "sparse": torch.optim.SparseAdam(model.words.parameters(), lr=5e-3),
        "dense": torch.optim.Adam(model.head.parameters(), lr=2e-3),
    }
    return Setup(model, words(), classify, optimizer=optimizers)


def sparse_sgd() -> Setup:
    """One optimizer that takes sparse and dense gradients."""
    return Setup(Tags(), words(), classify, optimizer=lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9))


def parameter_groups() -> Setup:
    """No decay on vectors, a smaller learning rate for the first layer."""
    model = mlp(20, 128, 128, 5)
    first = {id(p) for p in model[0].parameters()}
    rest = [p for p in model.parameters() if id(p) not in first]
    groups: list[dict[str, Any]] = [
        {"params": list(model[0].parameters()), "lr": 2e-4},
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
    ]
    return Setup(model, labelled(), classify, optimizer=torch.optim.AdamW(groups, lr=1e-3))


def two_optimizers_one_model() -> Setup:
    """Two optimizers by name over halves of one model, stepped by the user."""
    model = mlp(20, 128, 128, 5)
    optimizers = {
        "body": torch.optim.SGD(model[:2].parameters(), lr=0.02, momentum=0.9),
        "head": torch.optim.Adam(model[2:].parameters(), lr=1e-3),
    }

    def step(model: nn.Module, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
        loss = classify(model, batch)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        return {"objective": loss}

    return Setup(model, labelled(), step=step, optimizer=optimizers)


CASES = cases(
    "optimizers", lbfgs_closure, lbfgs_own_step, sgd_momentum, sgd_plain, rmsprop, adagrad, nadam,
    foreach_off_amsgrad, sparse_adam_two_optimizers, sparse_sgd, parameter_groups, two_optimizers_one_model,
)  # fmt: skip
