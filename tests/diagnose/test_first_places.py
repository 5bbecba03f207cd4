"""What is named first, and where: the line of a factor, the part whose gradient is turned, what mixes samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.cause import Cause

SOURCE = torch.Generator().manual_seed(0)
X, Y = torch.randn(12, 6, generator=SOURCE), torch.arange(12) % 3
WANTED = torch.randn(12, 2, generator=SOURCE)


def net(*first: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*first, nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def learn(model: nn.Module, loss: Any, batch: Any = (X, Y), **more: Any) -> OverfitResult:
    return run_overfit(model, batch, loss, **{"optimizer": adam, "max_steps": 200, "objective": 0.05, **more})


def first(result: OverfitResult) -> Cause:
    assert not result.passed
    assert result.causes, result.failure_text()
    return result.causes[0]


def test_logits_that_are_cooled_are_heated_by_a_trial() -> None:
    """A search over free predictions ends above the limit, and ten thousand times as large they are below it."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]) / 1e4, batch[1])

    cause = first(learn(net(), loss))
    assert (cause.id, cause.strength) == ("output-scale", "proven")
    assert f"test_first_places.py:{loss.__code__.co_firstlineno + 1}" in cause.where
    assert "0.0001" in cause.advice


def test_logits_by_a_usual_temperature_are_none() -> None:
    assert learn(net(), lambda model, batch: F.cross_entropy(model(batch[0]) / 0.07, batch[1])).passed


@pytest.mark.parametrize("mean", [True, False])
def test_a_loss_that_is_divided_once_too_often_is_named_with_the_line(mean: bool) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        error = (model(batch[0])[:, :2] - batch[1]).square()
        return error.mean() / 5000 if mean else error.sum() / 5000  # type: ignore[no-any-return]

    cause = first(learn(net(), loss, (X, WANTED)))
    assert cause.id == "loss-scale"
    assert f"test_first_places.py:{loss.__code__.co_firstlineno + 2}" in cause.where
    assert ("leave out" if mean else "divide by 24") in cause.advice


def test_a_norm_of_large_inputs_is_no_factor_that_makes_them_small() -> None:
    """What a trial of that very thing proves comes first, whatever else is seen beside it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 3))
    cause = first(learn(model, nn.CrossEntropyLoss(), (50_000 + 1000 * X, Y), max_steps=100))
    assert cause.id == "input-scale"


class Turned(nn.Module):
    """A layer in a residual branch whose gradient comes back otherwise than it should."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.inner, self.outer = factor, nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        out = self.outer(self.inner(x).tanh())
        out = self.factor * out + (1 - self.factor) * out.detach()
        return x + out  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("factor", "found"), [(-1.0, "wrong-backward"), (-0.3, "wrong-backward"), (0.0, "no-gradient")]
)
def test_a_gradient_that_is_turned_around_is_named_to_the_layer(factor: float, found: str) -> None:
    torch.manual_seed(0)
    result = learn(net(Turned(factor)), nn.CrossEntropyLoss(), max_steps=400)
    cause = first(result)
    assert cause.id == found, result.failure_text()
    assert "test_first_places.py:" in cause.advice
    if found == "wrong-backward":
        assert cause.where.startswith(("module 0.outer", "module 0.inner"))
        assert f"{factor:g} times" in cause.observed


@pytest.mark.parametrize(("betas", "found"), [((0.999, 0.9), True), ((0.9, 0.95), False), ((0.5, 0.9), False)])
def test_betas_in_the_wrong_order(betas: tuple[float, float], found: bool) -> None:
    """With them steps grow for a weight that gets no gradient any more; no run that passes takes that back."""
    result = learn(net(), nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, 1e-2, betas=betas))
    assert [cause.id for cause in result.causes] == ["optimizer-hyperparameter"] * found
    assert all("50 steps without a gradient move 0.weight by" in cause.observed for cause in result.causes)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("target", "found"), [("noisy", True), ("noise", False)])
def test_an_output_that_is_compared_with_the_input(target: str, found: bool) -> None:
    """Nothing reads what has the shape of the answer, and the input is compared with in its place."""
    batch = {"noisy": X, "noise": torch.randn(12, 6, generator=torch.Generator().manual_seed(1))}
    result = learn(Denoiser(), lambda m, b: F.mse_loss(m(b["noisy"]), b[target]), batch, max_steps=600)
    assert [cause.id for cause in result.causes if cause.certain] == ["target-mismatch"] * found
    if found:
        assert result.causes[0].advice == "compare with noise"


def softmax_over_samples(x: Tensor, weigh: nn.Linear) -> Tensor:
    weights = weigh(x).softmax(0)
    return x * weights * len(x)  # type: ignore[no-any-return]


def turned_for_an_attention(x: Tensor, weigh: nn.Linear) -> Tensor:
    other = x.transpose(0, 1)
    return F.scaled_dot_product_attention(other, other, other).transpose(0, 1)


class Mixing(nn.Module):
    def __init__(self, mix: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.mix, self.embed, self.weigh, self.head = mix, nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(x).tanh(), self.weigh))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        (softmax_over_samples, "softmax() in test_first_places.py:{} makes (12, 16) of [(12, 16)]"),
        (turned_for_an_attention, "transpose() in test_first_places.py:{} makes (16, 12) of [(12, 16)]"),
    ],
)
def test_what_brings_samples_together_is_named_with_its_line(
    mix: Callable[[Tensor, nn.Linear], Tensor], said: str
) -> None:
    torch.manual_seed(0)
    cause = first(learn(Mixing(mix), nn.CrossEntropyLoss(), max_steps=400))
    assert cause.id == "batch-mixing"
    assert said.format(mix.__code__.co_firstlineno + 1) in cause.advice


class Decoder(nn.Module):
    """It computes its own loss of labels that it shifts itself, as those of a translation do."""

    def __init__(self, causal: tuple[bool, ...]) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 32), nn.Parameter(0.1 * torch.randn(8, 32))
        self.layers, self.causal = nn.ModuleList(Attention(each) for each in causal), causal
        self.head = nn.Linear(32, 11)

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        tokens = torch.cat([torch.full_like(labels[:, :1], 10), labels[:, :-1]], 1)
        x = self.embed(tokens) + self.place
        for layer in self.layers:
            x = layer(x)
        logits = self.head(x)
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal, self.qkv = causal, nn.Linear(32, 96)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


@pytest.mark.parametrize(("causal", "where"), [((False,), "layers.0"), ((True, False), "layers.1"), ((True, True), "")])
def test_one_attention_that_reads_the_future_of_labels_it_shifts_itself(causal: tuple[bool, ...], where: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (6, 8), generator=torch.Generator().manual_seed(3))
    result = run_overfit(Decoder(causal), {"labels": labels}, optimizer=adam, max_steps=400, objective=0.1)
    assert [cause.where for cause in result.causes if cause.id == "leak"] == [f"module {where}"] * bool(where)
