# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in what a model reads: inputs ignored, samples mixed, randomness, modes, leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.case import breaking, silent
from benchmarks.gallery.families import CausalBlock, TinyGPT, TinyViT, TwoView
from benchmarks.zoo.case import Setup, mlp
from benchmarks.zoo.generative import Denoiser, PixelCNN
from benchmarks.zoo.graph_and_sets import GCN, AttentionPooling
from benchmarks.zoo.sequence import Recurrent
from benchmarks.zoo.vision import PoseHead

Batch = dict[str, Any]


def evaluation_loss(setup: Setup) -> float:
    """The loss in evaluation mode."""
    setup.model.eval()
    with torch.no_grad():
        return float(setup.loss(setup.model, setup.data))


class ZeroInput(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.zeros_like(x))


@breaking("mlp_classification", "input-ignored", "constant-output", where="x: forward runs on zeros")
def forward_on_zeros(h: Setup) -> Setup:
    return replace(h, model=ZeroInput(h.model))


class FirstViewTwice(PoseHead):
    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(first, first)


@silent("camera_pose", "input-ignored", where="views[1] is never read: the first is used twice")
def second_view_ignored(h: Setup) -> Setup:
    return replace(h, model=FirstViewTwice())


class NoEdges(GCN):
    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        return super().forward(features, torch.eye(len(features)))


@silent("graph_convolution", "input-ignored", where="adjacency is not used")
def edges_ignored(h: Setup) -> Setup:
    return replace(h, model=NoEdges())


class NoTime(Denoiser):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x, torch.zeros_like(time))


@silent("diffusion_fixed_noise", "input-ignored", where="time is not used")
def time_ignored(h: Setup) -> Setup:
    return replace(h, model=NoTime())


class NoPadding(AttentionPooling):
    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return super().forward(x, torch.zeros_like(padding))


@silent("attention_pooling", "input-ignored", where="padding is not used: padded points count")
def padding_ignored(h: Setup) -> Setup:
    return replace(h, model=NoPadding())


@breaking("mlp_classification", "batch-mixing", "loss-floor", where="log_softmax over dim 0, the batch")
def softmax_over_the_batch(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.nll_loss(F.log_softmax(model(batch["x"]), dim=0), batch["y"])

    return replace(h, loss=loss)


class ViewedPatches(TinyViT):
    def embed(self, x: Tensor) -> Tensor:
        return self.patches(x).permute(1, 2, 3, 0).reshape(len(x), 16, -1)


@silent("tiny_vit", "batch-mixing", where="patches: reshaped with the batch axis in the wrong place")
def reshaped_across_samples(h: Setup) -> Setup:
    return replace(h, model=ViewedPatches())


class SequenceFirst(Recurrent):
    def __init__(self) -> None:
        super().__init__(nn.LSTM, 1, 6)
        assert isinstance(self.net, nn.LSTM)
        self.net.batch_first = False


@silent("lstm_forecast", "batch-mixing", where="net: batch_first is missing, so it runs along the batch")
def batch_first_missing(h: Setup) -> Setup:
    return replace(h, model=SequenceFirst())


class AlwaysDrops(nn.Module):
    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = net[:-1], net[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.body(x), 0.6))


@breaking("mlp_regression", "stochastic", "mode-gap", where="F.dropout(0.6) in forward, in evaluation too")
def functional_dropout(h: Setup) -> Setup:
    return replace(h, model=AlwaysDrops(h.model))


class LayerInForward(nn.Module):
    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = net[:-1], net[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.Linear(128, 128)(self.body(x)))


@breaking("mlp_classification", "stochastic", "unregistered", where="a Linear that is built anew in every forward")
def layer_built_in_forward(h: Setup) -> Setup:
    return replace(h, model=LayerInForward(h.model))


@breaking("dropout", "stochastic", where="2 and 5: Dropout(0.97) where 0.5 was meant")
def dropout_of_0_97(h: Setup) -> Setup:
    for layer in h.model:
        if isinstance(layer, nn.Dropout):
            layer.p = 0.97
    return h


class NoisyFeatures(TinyViT):
    def embed(self, x: Tensor) -> Tensor:
        features = super().embed(x)
        return features + 3 * torch.randn_like(features)


@breaking("tiny_vit", "stochastic", where="noise of three on the tokens, in evaluation too")
def noise_on_the_tokens(h: Setup) -> Setup:
    return replace(h, model=NoisyFeatures())


@silent(
    "mlp_batch_norm",
    "mode-gap",
    where="1 and 4: the running statistics hardly move, momentum 1e-5",
    shows=evaluation_loss,
)
def batch_norm_momentum(h: Setup) -> Setup:
    for layer in h.model:
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 1e-5
    return h


class ScalesInTraining(nn.Module):
    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = net[:-1], net[-1]

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(features * 4 if self.training else features)


@silent("mlp_classification", "mode-gap", where="features are scaled by 4 in training only", shows=evaluation_loss)
def scaled_in_training_only(h: Setup) -> Setup:
    return replace(h, model=ScalesInTraining(h.model))


class SeesAhead(CausalBlock):
    causal = False


class Unmasked(TinyGPT):
    block = SeesAhead


@silent("tiny_gpt", "leak", where="blocks.0: no causal mask, so every token sees the next")
def causal_mask_missing(h: Setup) -> Setup:
    return replace(h, model=Unmasked())


class SeesTheCentre(PixelCNN):
    def __init__(self) -> None:
        super().__init__()
        self.before.copy_(self._mask(5, centre=True)[None, None] if self.before.ndim == 4 else self._mask(5, True))


@silent("pixel_cnn", "leak", where="first: its mask lets the pixel itself through")
def mask_lets_the_centre_through(h: Setup) -> Setup:
    return replace(h, model=SeesTheCentre())


class TargetAmongTheFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(23, 128, 128, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat([x, y], dim=1))


@silent("mlp_regression", "leak", where="the target is joined to the features")
def target_among_the_features(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(*batch), batch[1])

    return replace(h, model=TargetAmongTheFeatures(), loss=loss)


@silent("tiny_gpt", "target-mismatch", "leak", where="targets are the input tokens: the shift by one is missing")
def shift_missing(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        tokens = batch["tokens"][:, :-1]
        return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    return replace(h, loss=loss)


class NoPositions(TinyGPT):
    def embed(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens)


@silent("tiny_gpt", "unused", "input-ignored", where="positions.weight is not added")
def positions_not_added(h: Setup) -> Setup:
    return replace(h, model=NoPositions())


class OneViewOnly(TwoView):
    def tokens(self, images: Tensor) -> Tensor:
        return super().tokens(images[:, :1].expand_as(images))


@silent("two_view", "input-ignored", where="images[:, 1]: the second frame is overwritten by the first")
def second_frame_overwritten(h: Setup) -> Setup:
    return replace(h, model=OneViewOnly())
