"""Silent mistakes of a kind, each in several places, and their healthy neighbours: rows, masks, states that stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Batch = dict[str, Tensor]
SOURCE = torch.Generator().manual_seed(7)
X, Y, KIND = torch.randn(8, 6, generator=SOURCE), torch.randn(8, 2, generator=SOURCE), torch.tensor([0, 1, 2, 3] * 2)
NOISE = 0.1 * torch.randn(24, 6, generator=SOURCE)


def learn(model: Any, batch: Any, loss: Callable[[nn.Module, Any], Any], **more: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 1e-2), "objective": 0.05, "max_steps": 600}
    result = run_overfit(model, batch, loss, **{**settings, **more})
    assert result.findings
    return result


def ids(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes if cause.certain][:1]


def net(given: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(given, 48), nn.Tanh(), nn.Linear(48, width))


class Sequences(nn.Module):
    """A recurrent model whose state is new in every pass, kept from the last one, handed in, or a cache of angles."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.state = state
        self.kept: Tensor | None = None
        self.angles: Tensor | None = None
        self.cell, self.head = nn.GRU(3, 32, batch_first=True), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Any:
        if self.angles is None and self.state == "cached":
            self.angles = torch.linspace(0, 1, x.shape[1])[:, None]
        out, last = self.cell(x if self.angles is None else x + self.angles, self.kept)
        if self.state == "kept":
            self.kept = last.detach()
        return self.head(out[:, -1])


class Memory(nn.Module):
    """Adds the mean of the last features that it has seen; or keeps them, and adds nothing."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.body, self.head, self.last = net(6, 32), nn.Linear(32, 2), last
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        self.seen = [*self.seen, features.detach()][-self.last :]
        return self.head(features + 0.5 * torch.stack(self.seen).mean(0) * (self.last > 1))


class Centred(nn.Module):
    """Takes off a mean that follows in a plain attribute, or none; counts its calls, and warms up with them."""

    def __init__(self, follows: bool) -> None:
        super().__init__()
        self.body, self.follows, self.calls, self.mean = net(6, 2), follows, 0, torch.zeros(6)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.mean = self.mean.lerp(x.detach().mean(0), 0.1 * self.follows)
        return self.body(x - self.mean) * (1 if self.follows else 1 - 0.99**self.calls)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (partial(Sequences, "kept"), ["stochastic"]),
        (partial(Sequences, "new"), []),
        (partial(Sequences, "cached"), []),
        (partial(Memory, 4), ["stochastic"]),
        (partial(Memory, 1), []),
        (partial(Centred, True), ["stochastic"]),
        (partial(Centred, False), []),
    ],
    ids=["carried", "new", "cached", "four features", "kept for nothing", "followed", "counted"],
)
def test_what_a_module_keeps_of_the_batch_before(model: partial[nn.Module], found: list[str]) -> None:
    given = torch.randn(8, 7, 3, generator=torch.Generator().manual_seed(1)) if model.func is Sequences else X + 3
    result = learn(model, {"x": given, "y": Y}, lambda model, batch: F.mse_loss(model(batch["x"]), batch["y"]))
    assert ids(result) == found, result
    assert result.passed == (not found)


def test_a_declared_state_may_stay() -> None:
    loss = lambda model, batch: F.mse_loss(model(batch["x"]), batch["y"])  # noqa: E731
    assert learn(partial(Memory, 4), {"x": X, "y": Y}, loss, stochastic=True).passed


class Drawn(nn.Module):
    """Three predictions for each sample, as rows of their own or in one row."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.body = way, net(6, 6 if way == "columns" else 2)

    def forward(self, x: Tensor) -> Any:
        if self.way == "columns":
            return self.body(x)
        return self.body((x.repeat_interleave(3, 0) if self.way == "interleaved" else x.repeat(3, 1)) + NOISE)


@pytest.mark.parametrize("way", ["columns", "interleaved", "tiled"])
@pytest.mark.parametrize("right", [True, False])
def test_several_predictions_and_the_targets_of_others(way: str, right: bool) -> None:
    """Of 8 samples 3 each: targets are repeated as the predictions are, or the other way."""

    def loss(model: nn.Module, batch: Batch) -> Any:
        out, target = model(batch["x"]).reshape(-1, 2), batch["y"]
        tiled = (way == "tiled") == right
        return F.mse_loss(out, target.repeat(3, 1) if tiled else target.repeat_interleave(3, 0))

    result = learn(partial(Drawn, way), {"x": X, "y": Y}, loss, max_steps=1500, objective=0.2)
    assert ids(result) == ([] if right else ["target-mismatch"]), result


def test_every_token_is_held_against_its_own() -> None:
    """Rows of flattened tokens, some of which have no label, and pairs that are compared with each other."""
    tokens = torch.arange(24).view(4, 6)
    labels = torch.where(tokens % 5 == 0, -100, tokens % 3)
    words = nn.Sequential(nn.Embedding(24, 16), nn.Flatten(0, 1), nn.Linear(16, 3))
    batch = {"tokens": tokens, "labels": labels}
    result = learn(words, batch, lambda model, b: F.cross_entropy(model(b["tokens"]), b["labels"].flatten()))
    assert result.passed, result


def kept_rows(model: nn.Module, batch: Batch, *, largest: bool) -> Any:
    return F.cross_entropy(model(batch["x"]), batch["kind"], reduction="none").topk(4, largest=largest).values.mean()


def trimmed(model: nn.Module, batch: Batch, *, share: float) -> Any:
    """The mean of squares below a quantile of theirs."""
    each = (model(batch["x"]) - batch["y"]).square().mean(1)
    return each[each.detach() <= each.detach().quantile(share)].mean()


@pytest.mark.parametrize(
    ("loss", "width", "found"),
    [
        (partial(kept_rows, largest=False), 4, ["unsupervised"]),
        (partial(kept_rows, largest=True), 4, []),
        (partial(trimmed, share=0.5), 2, ["unsupervised"]),
        (partial(trimmed, share=1.0), 2, []),
    ],
    ids=["easiest", "hardest", "half", "all"],
)
def test_samples_that_a_loss_leaves_out_for_being_hard(loss: Any, width: int, found: list[str]) -> None:
    torch.manual_seed(1)
    result = learn(net(6, width), {"x": X, "y": Y, "kind": KIND}, loss)
    assert ids(result) == found, result


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda mask: mask.roll(1, 0), ["unsupervised"]),
        (lambda mask: mask.flip(1), ["unsupervised"]),
        (lambda mask: mask, []),
        (lambda mask: torch.cat([mask[:, 1:], 0 * mask[:, :1]], 1), []),
    ],
    ids=["another row", "turned around", "its own", "without the last"],
)
def test_the_mask_of_a_loss(change: Callable[[Tensor], Tensor], found: list[str]) -> None:
    mask = (torch.arange(7)[None] < torch.tensor([7, 5, 3, 6])[:, None]).float()
    x = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(2)) * mask[..., None]
    y = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(3)) * mask[..., None]

    def loss(model: nn.Module, batch: Batch) -> Any:
        weight = change(batch["mask"])[..., None]
        return ((model(batch["x"]) - batch["y"]).square() * weight).sum() / weight.sum() / 2

    result = learn(net(5, 2), {"x": x, "mask": mask, "y": y}, loss, objective=0.5, max_steps=1000)
    assert ids(result) == found, result


def test_a_mask_of_whole_numbers_is_no_class() -> None:
    valid = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1])

    def loss(model: nn.Module, batch: Batch) -> Any:
        keep = batch["valid"].bool()
        return F.cross_entropy(model(batch["x"])[keep], batch["kind"][keep])

    for width, batch in ((4, {"x": X, "kind": KIND, "valid": valid}), (4, {"x": X, "valid": valid, "kind": KIND})):
        assert learn(net(6, width), batch, loss).passed


class Words(nn.Module):
    """Logits of the next token; sharp, so that most slopes are rounded to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.head = nn.Embedding(24, 32), nn.GRU(32, 48, batch_first=True), nn.Linear(48, 24)

    def forward(self, ids: Tensor) -> Any:
        return 3 * self.head(self.cell(self.table(ids))[0])


@pytest.mark.parametrize(("end", "found"), [(-1, ["unsupervised"]), (-5, ["unsupervised"]), (None, [])])
def test_the_last_tokens_of_all(end: int | None, found: list[str]) -> None:
    """Of rows with one more token than is given, flattened, the last ones are cut off."""
    ids_ = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(row))[:9] for row in range(3)])

    def loss(model: nn.Module, batch: Tensor) -> Any:
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1)[:end], batch[:, 1:].flatten()[:end])

    result = learn(Words, ids_, loss, objective=0.02)
    assert ids(result) == found, result


def test_a_text_whose_last_token_has_no_label() -> None:
    """Rows are one text: the token behind the last one is that of the next row, and behind the last there is none."""
    text = torch.randperm(24, generator=torch.Generator().manual_seed(4)).view(3, 8)
    result = learn(
        Words, text, lambda model, batch: F.cross_entropy(model(batch).flatten(0, 1)[:-1], batch.flatten()[1:])
    )
    assert "unsupervised" not in ids(result), result


class Pooled(nn.Module):
    """A mean, or an attention, over the places that a mask leaves."""

    def __init__(self, change: Callable[[Tensor], Tensor], attends: bool) -> None:
        super().__init__()
        self.change = change
        self.body, self.head = net(5, 16), nn.Linear(16, 2)
        self.score = nn.Linear(16, 1) if attends else None

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        features, real = self.body(x), self.change(mask)
        score = torch.zeros_like(x[..., 0]) if self.score is None else self.score(features)[..., 0]
        return self.head((score.masked_fill(~real, -1e9).softmax(1)[..., None] * features).sum(1))


@pytest.mark.parametrize("attends", [True, False])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda mask: mask.flip(1), ["input-ignored"]),
        (lambda mask: mask.roll(1, 0), ["input-ignored"]),
        (lambda mask: mask, []),
    ],
    ids=["turned around", "another row", "its own"],
)
def test_a_mask_over_content(change: Callable[[Tensor], Tensor], attends: bool, found: list[str]) -> None:
    """What the mask hides is no padding by its content: which of its sides is meant only the places say."""
    source = torch.Generator().manual_seed(8)
    mask = torch.arange(7)[None] < torch.tensor([7, 5, 3, 6])[:, None]
    batch = {"x": torch.randn(4, 7, 5, generator=source), "mask": mask, "y": torch.randn(4, 2, generator=source)}
    loss = lambda model, batch: F.mse_loss(model(batch["x"], batch["mask"]), batch["y"])  # noqa: E731
    result = learn(partial(Pooled, change, attends), batch, loss)
    assert [each for each in ids(result) if each != "batch-mixing"] == found, result
