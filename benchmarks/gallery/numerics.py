# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in numerics: where a NaN arises, precision, explosions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.case import breaking, silent
from benchmarks.zoo.case import Setup
from benchmarks.zoo.dense import classify
from benchmarks.zoo.graph_and_sets import AttentionPooling
from benchmarks.zoo.sequence import Recurrent
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]


@breaking("padded_regression", "nonfinite-loss", "vacuous", where="0 / 0: the mean over an empty mask")
def mean_over_an_empty_mask(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        wanted = batch["mask"].cumsum(1) > 10
        return (model(batch["x"]).squeeze(-1) - batch["y"]).square()[wanted].mean()

    return replace(h, loss=loss)


@breaking("small_depth", "nonfinite-loss", where="log of the predicted depth, which is negative at times")
def log_of_a_negative_prediction(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        valid = batch["valid"]
        return F.mse_loss(model(batch["image"])[:, 0][valid].log(), batch["depth"][valid].log())

    return replace(h, loss=loss)


@breaking("bilstm_tagger", "nonfinite-loss", "vacuous", where="cross_entropy with every label ignored: 0 / 0")
def mean_over_ignored_labels(h: Setup) -> Setup:
    return replace(h, data={**h.data, "tags": torch.full_like(h.data["tags"], -100)})


@breaking("heteroscedastic_regression", "nonfinite-loss", where="exp(-200 s) overflows")
def exponent_overflows(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        mean, log_variance = model(batch[0]).chunk(2, dim=1)
        error = (mean - batch[1]).square()
        return (error * (-1000 * log_variance).exp() + log_variance).mean() / 2, {"mse": error.mean()}

    return replace(h, loss=loss)


@breaking("siamese", "nonfinite-gradient", where="sqrt at 0: the distance of a sample from itself")
def root_of_zero(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        distance = (model(batch[0]) - model(batch[1])).square().sum(1).sqrt()
        return torch.where(batch[2], distance.square(), F.relu(1 - distance).square()).mean()

    left, right, same = h.data
    return replace(h, data=(left, torch.where(same[:, None], left, right), same), loss=loss)


@breaking("small_depth", "nonfinite-gradient", where="the branch of torch.where that is not taken: log of 0")
def where_around_a_logarithm(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        predicted = model(batch["image"])[:, 0]
        ratio = predicted.exp() * batch["valid"]
        error = torch.where(batch["valid"], ratio.log() - batch["depth"].clamp(min=1e-6).log(), 0.0)
        return error.square().sum() / batch["valid"].sum()

    return replace(h, loss=loss)


class UnsafeAngle(nn.Module):
    """acos of a cosine that is exactly 1 for a target met exactly."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net
        for parameter in net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.net(x)
        return raw / raw.norm(dim=1, keepdim=True).clamp(min=1e-6) + raw


@breaking("mlp_regression", "nonfinite-gradient", where="pow(0.5) of an output that starts at exactly zero")
def power_of_a_zero_output(h: Setup) -> Setup:
    model = UnsafeAngle(h.model)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        predicted = model(batch[0])
        return F.mse_loss(predicted, batch[1]) + 1e-3 * predicted.abs().pow(0.5).mean()

    return replace(h, model=model, loss=loss)


class MaskedAttention(AttentionPooling):
    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        tokens = self.enter(x)
        scores = (self.query.expand(len(x), -1, -1) @ tokens.transpose(1, 2)) / 7
        weights = scores.masked_fill(padding[:, None], -torch.inf).softmax(-1)
        return self.head((weights @ tokens)[:, 0])


@breaking(
    "attention_pooling", "nonfinite-output", "nonfinite-loss", where="attention softmax: all keys of set 0 are masked"
)
def every_key_masked(h: Setup) -> Setup:
    padding = h.data["padding"].clone()
    padding[0] = True
    return replace(h, model=MaskedAttention(), data={**h.data, "padding": padding})


class Standardises(nn.Module):
    """(x - mean) / std over the batch, without an eps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - x.mean(0)) / x.std(0))


@breaking(
    "mlp_classification", "nonfinite-output", "nonfinite-loss", where="0 / 0 in standardising: column 3 is constant"
)
def standard_deviation_of_zero(h: Setup) -> Setup:
    x = h.data["x"].clone()
    x[:, 3] = 1.0
    return replace(h, model=Standardises(h.model), data={**h.data, "x": x})


@breaking("bf16_parameters", "precision", "no-update", "lr-low", where="bfloat16 parameters: updates are rounded away")
def update_rounded_away(h: Setup) -> Setup:
    return replace(h, optimizer=torch.optim.SGD(h.model.parameters(), lr=1e-3))


@breaking(
    "tiny_vit",
    "precision",
    "nonfinite-output",
    "nonfinite-gradient",
    where="float16 parameters under Adam: eps becomes 0",
)
def adam_in_half_precision(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"].half()).float(), batch["y"])

    return replace(h, model=h.model.half(), loss=loss, optimizer=adam(2e-3))


class HalfSum(nn.Module):
    """Squares in float16: above 65,504 there is infinity."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        energy = (300 * x).half().square().sum(1, keepdim=True)
        return self.net(torch.cat([energy.float().log(), x[:, 1:]], dim=1))


@breaking(
    "mlp_regression", "precision", "nonfinite-output", "nonfinite-loss", where="a sum of squares overflows float16"
)
def half_precision_overflows(h: Setup) -> Setup:
    return replace(h, model=HalfSum(h.model))


@breaking("sgd_regression", "gradient-explosion", "lr-high", where="all weights start 8 times too large")
def weights_start_too_large(h: Setup) -> Setup:
    with torch.no_grad():
        for layer in h.model:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(8)
    return h


@breaking("own_step_sgd", "gradient-explosion", "lr-high", where="all weights from a normal of unit variance")
def unit_normal_weights(h: Setup) -> Setup:
    for layer in h.model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    return h


class Expanding(Recurrent):
    """A linear recurrence whose matrix doubles its state."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM, 1, 6)
        self.net = nn.Linear(54, 48)
        with torch.no_grad():
            self.net.weight[:, 6:].copy_(2.5 * torch.eye(48))

    def forward(self, series: Tensor) -> Tensor:
        state = series.new_zeros(len(series), 48)
        for x in series.unbind(1):
            state = self.net(torch.cat([x, state], dim=1))
        return self.head(state)


@breaking("lstm_forecast", "gradient-explosion", where="net.weight: the recurrence grows 2.5 times at every time step")
def recurrence_that_grows(h: Setup) -> Setup:
    return replace(h, model=Expanding())


@silent("mlp_classification", "precision", where="the logits are rounded to bfloat16, parameters too")
def everything_in_bfloat16(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return classify(model, {"x": batch["x"].bfloat16(), "y": batch["y"]})

    return replace(h, model=h.model.bfloat16(), loss=loss)
