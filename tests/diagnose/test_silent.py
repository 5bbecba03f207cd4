"""Mistakes that leave the loss at its limit: each fails the run, and its nearest sound relative does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Batch = dict[str, Tensor]


def learn(model: Any, batch: Any, loss: Any, **settings: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 400, **settings}
    return run_overfit(model, batch, loss, **settings)


def names(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes]


class Pairs(nn.Module):
    """Images against captions."""

    def __init__(self, change: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change, self.after = change, after
        self.visual = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16))
        self.text = nn.EmbeddingBag(40, 16)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        shown, said = self.change(self.visual(images)), F.normalize(self.text(tokens), dim=-1)
        return self.after(10 * shown @ said.T)


def contrastive(model: nn.Module, batch: Batch) -> Tensor:
    scores = model(batch["images"], batch["tokens"])
    return F.cross_entropy(scores, torch.arange(len(scores)))


@pytest.mark.parametrize(
    ("change", "after", "found"),
    [
        (lambda x: F.normalize(x, dim=0), lambda s: s, ["batch-mixing"]),
        (lambda x: F.normalize(x, dim=-1), lambda s: s, []),
        (lambda x: F.normalize(x, dim=-1), lambda s: s.log_softmax(-1), []),
        (lambda x: F.normalize(x, dim=-1), lambda s: s - s.mean(0), []),
    ],
    ids=["features over the batch", "features", "a softmax over the captions", "the mean of the images off"],
)
def test_features_of_pairs_that_depend_on_a_third_sample(change: Any, after: Any, found: list[str]) -> None:
    """What shifts or scales rows or columns as a whole may be meant."""
    torch.manual_seed(0)
    batch = {"images": torch.randn(6, 3, 8, 8), "tokens": torch.randint(0, 40, (6, 5))}
    assert names(learn(Pairs(change, after), batch, contrastive, objective=0.02)) == found


class Pooled(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.embed = axis, nn.Embedding(40, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(tokens)).mean(self.axis))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("axis", "found"), [(0, ["batch-mixing"]), (1, [])])
def test_a_mean_over_the_samples_where_there_are_as_many_places(axis: int, found: list[str]) -> None:
    """The shape is right either way."""
    torch.manual_seed(0)
    batch = (torch.randint(0, 40, (8, 8)), torch.arange(8) % 3)
    assert names(learn(Pooled(axis), batch, nn.CrossEntropyLoss(), max_steps=200)) == found


class Experts(nn.Module):
    def __init__(self, hard: bool) -> None:
        super().__init__()
        self.hard, self.gate = hard, nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2)) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shares = self.gate(x).softmax(-1)
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        best = shares.argmax(-1)
        chosen = answers[torch.arange(len(x)), best]
        return (chosen if self.hard else chosen * shares.gather(1, best[:, None])), shares


def routed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    answer, shares = model(batch[0])
    task, balance = F.mse_loss(answer, batch[1]), 3 * shares.mean(0).square().sum() - 1
    return {"objective": task + 1e-3 * balance, "task": task, "balance": balance}


@pytest.mark.parametrize(("hard", "found"), [(True, ["no-gradient"]), (False, [])])
def test_a_gate_that_only_a_regulariser_trains(hard: bool, found: list[str]) -> None:
    """Weighing the chosen expert by its share gives the gate a gradient of the task."""
    torch.manual_seed(0)
    assert names(learn(Experts(hard), (torch.randn(16, 6), torch.randn(16, 2)), routed)) == found


@pytest.mark.parametrize(("of_itself", "found"), [(True, ["loss-ignores-output"]), (False, [])])
def test_a_teacher_that_is_compared_with_itself(of_itself: bool, found: list[str]) -> None:
    """Weight decay by hand is all that reaches the student."""
    torch.manual_seed(0)
    models = {"student": nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 3)),
              "teacher": nn.Linear(5, 3).requires_grad_(False)}  # fmt: skip

    def step(models: Any, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        answer, wanted = models["student"](x), models["teacher"](x)
        decay = sum(p.square().sum() for p in models["student"].parameters())
        loss: Tensor = F.mse_loss(wanted if of_itself else answer, wanted) + 1e-6 * decay
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    optimizer = torch.optim.Adam(models["student"].parameters(), lr=1e-2)
    limit = {"below": 0.5, "relative": True}
    found_here = learn(models, torch.randn(8, 5), None, step=step, optimizer=optimizer, objective=limit)
    assert names(found_here)[:1] == found


@pytest.mark.parametrize(("target", "found"), [("x", ["leak"]), ("clean", [])])
def test_a_prediction_that_the_target_is_added_to(target: str, found: list[str]) -> None:
    """A residual is added to what is known, which is not the target."""
    torch.manual_seed(0)
    clean = torch.randn(8, 6)
    batch = {"x": clean + 0.5 * torch.randn(8, 6), "clean": clean}
    model = nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 6))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(batch["x"] + model(batch["x"]), batch[target])

    assert names(learn(model, batch, loss))[:1] == found


def test_classes_scrambled_by_a_reshape_in_a_run_that_passes() -> None:
    """The outputs of a model are known of every watched step, not of thorough ones alone."""
    torch.manual_seed(0)
    images, labels = torch.randn(2, 3, 6, 6), torch.arange(72).view(2, 6, 6) % 4
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 3, padding=1))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).reshape(-1, 4), batch[1].flatten())

    result = learn(model, (images, labels), loss, objective=0.3)
    assert names(result)[:1] == ["target-mismatch"]


class Builds(nn.Module):
    """Two layers and dropout, and a module that forward builds between them."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.last, self.drop, self.build = nn.Linear(8, 32), nn.Linear(32, 3), nn.Dropout(0.1), build

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.build()(self.first(x))))  # type: ignore[no-any-return]


def filtered() -> nn.Module:
    """A layer whose weights are put in by hand, the same ones each time."""
    layer = nn.Linear(32, 32, bias=False)
    layer.weight = nn.Parameter(torch.eye(32), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (nn.Tanh, ""),
        (lambda: nn.Softmax(-1), ""),
        (nn.ReLU, ""),
        (lambda: nn.Dropout(0.1), "dropout (p=0.1) goes on in evaluation mode"),
        (lambda: nn.Sequential(nn.GELU(), nn.Identity()), ""),
        (filtered, ""),
        (lambda: nn.Linear(32, 32), "Linear is built anew in every forward pass"),
        (lambda: nn.Sequential(nn.Linear(32, 32), nn.ReLU()), "Linear is built anew in every forward pass"),
    ],
    ids=["tanh", "softmax", "relu", "dropout", "several", "a fixed filter", "linear", "linear among others"],
)
def test_a_layer_that_forward_builds(build: Any, found: str) -> None:
    """Only what has weights of its own, others each time, is a new layer; the dropout is by itself."""
    torch.manual_seed(0)
    batch = (torch.randn(6, 8), torch.arange(6) % 3)
    causes = learn(Builds(build), batch, nn.CrossEntropyLoss(), objective=0.2).causes
    said = [cause.observed for cause in causes if cause.id == "stochastic"]
    assert len(said) == bool(found)
    assert all(text.startswith(found) for text in said)


def test_a_criterion_that_forward_builds_beside_dropout() -> None:
    """As the models of transformers do that return their own loss."""

    class Labelled(Builds):
        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            logits = super().forward(x)
            return {"loss": nn.CrossEntropyLoss()(logits, labels), "logits": logits}

    torch.manual_seed(0)
    batch = {"x": torch.randn(6, 8), "labels": torch.arange(6) % 3}
    result = learn(Labelled(nn.Tanh), batch, None, objective=0.2)
    assert result.passed
    assert not names(result)


class _TokenModel(nn.Module):
    """A small causal language model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.body, self.head = nn.Embedding(12, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.embed(tokens))[0])
        return logits


@pytest.mark.parametrize("tokens", [torch.arange(1, 11), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])])
def test_the_next_token_is_not_the_token_itself(tokens: Tensor) -> None:
    """Tokens that count up are a rising line of the next ones, and no answer that leaks."""
    batch = tokens[None, :-1], tokens[None, 1:]
    result = run_overfit(
        _TokenModel(),
        batch,
        lambda model, data: F.cross_entropy(model(data[0]).flatten(0, 1), data[1].flatten()),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        max_steps=400,
    )
    assert result.passed, result.failure_text()
