# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in units, ranges and capacity of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gallery.case import breaking, silent
from benchmarks.gallery.families import CausalBlock, DepthNet, TinyGPT, TinyViT
from benchmarks.zoo.case import Setup, mlp
from benchmarks.zoo.dense import ResidualMLP
from benchmarks.zoo.generative import VQVAE
from benchmarks.zoo.vision import PoseHead

Batch = dict[str, Any]


@breaking(
    "mlp_regression", "dead-units", "constant-output", where="0.bias starts at -50: no unit of the first ReLU fires"
)
def stem_bias_of_minus_fifty(h: Setup) -> Setup:
    nn.init.constant_(h.model[0].bias, -50.0)
    return h


@breaking("cnn", "dead-units", "constant-output", where="3 (the second convolution): negative weights before a ReLU")
def second_convolution_dead(h: Setup) -> Setup:
    with torch.no_grad():
        h.model[3].weight.copy_(-h.model[3].weight.abs())
        h.model[3].bias.fill_(-0.5)
    return h


class ReluDepth(DepthNet):
    """A positive depth by ReLU, whose input starts below zero."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Conv2d(48, 4, 1)
        assert last.bias is not None
        nn.init.constant_(last.bias, -3.0)
        self.head = nn.Sequential(nn.Conv2d(48, 48, 1), nn.GELU(), last, nn.ReLU(), nn.PixelShuffle(2))


@breaking("small_depth", "dead-units", "output-range", where="head.3, the last ReLU, never fires")
def depth_by_a_dead_relu(h: Setup) -> Setup:
    return replace(h, model=ReluDepth())


@breaking("sgd_regression", "symmetry", where="all weights start at 0.1")
def constant_weights(h: Setup) -> Setup:
    for layer in h.model:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)
    return h


@silent("experts_soft_gating", "symmetry", where="experts.*: copies of one, and the gate starts even")
def experts_start_as_copies(h: Setup) -> Setup:
    first = h.model.experts[0].state_dict()
    for expert in h.model.experts:
        expert.load_state_dict(first)
    nn.init.zeros_(h.model.gate.weight)
    return h


@breaking("recommender", "zero-gradient", "symmetry", where="users.weight and items.weight both start at zero")
def factors_both_zero(h: Setup) -> Setup:
    for table in (h.model.users, h.model.items):
        nn.init.zeros_(table.weight)
    return h


class Saturated(PoseHead):
    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        rotation, translation = super().forward(first, second)
        return rotation, 3 * torch.tanh(100 * translation)


@breaking("camera_pose", "saturation", "term-stuck", where="tanh(100 t) of the translation")
def translation_saturated(h: Setup) -> Setup:
    return replace(h, model=Saturated())


@breaking(
    "lstm_forecast", "saturation", "zero-gradient", "constant-output", where="the output gate starts closed, at -50"
)
def output_gate_closed(h: Setup) -> Setup:
    with torch.no_grad():
        h.model.net.bias_ih_l0[144:].fill_(-50.0)
    h.model.head.bias.requires_grad_(False)
    return h


@breaking("mlp_functional_criterion", "saturation", "input-scale", where="0: the inputs of tanh are around 100")
def tanh_far_out(h: Setup) -> Setup:
    with torch.no_grad():
        for layer in (h.model[0], h.model[2]):
            layer.weight.mul_(300)
    return h


@breaking("mlp_regression", "capacity", where="a hidden layer of one unit")
def hidden_width_of_one(h: Setup) -> Setup:
    return replace(h, model=mlp(20, 1, 128, 3))


@breaking("autoencoder", "capacity", where="a bottleneck of one number, and no hidden layers")
def bottleneck_of_one(h: Setup) -> Setup:
    return replace(h, model=mlp(24, 1, 24))


class OneCode(VQVAE):
    def __init__(self) -> None:
        super().__init__()
        self.codebook = nn.Embedding(1, 8)


@breaking(
    "vq_vae", "capacity", "constant-output", where="codebook of one vector: all samples look alike to the decoder"
)
def codebook_of_one(h: Setup) -> Setup:
    return replace(h, model=OneCode())


@breaking("coordinate_network", "output-range", where="a Sigmoid at the end, targets of zero mean and unit variance")
def sigmoid_at_the_end(h: Setup) -> Setup:
    return replace(h, model=nn.Sequential(*h.model, nn.Sigmoid()))


@breaking("graph_attention", "output-range", "dead-units", where="a ReLU at the end, half of the targets are negative")
def relu_at_the_end(h: Setup) -> Setup:
    h.model.head = nn.Sequential(h.model.head, nn.ReLU())
    return h


@breaking("point_net", "output-range", "dead-units", where="a ReLU on the logits")
def relu_on_the_logits(h: Setup) -> Setup:
    h.model.head = nn.Sequential(h.model.head, nn.Tanh())
    return h


@breaking("lstm_forecast", "output-range", where="tanh / 2 at the end, targets up to 1")
def half_tanh_at_the_end(h: Setup) -> Setup:
    h.model.head = nn.Sequential(h.model.head, nn.Tanh(), nn.AvgPool1d(1), Scaled(0.5))
    return h


class Scaled(nn.Module):
    """Times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@breaking("mlp_classification", "output-scale", where="the logits times 1e-6")
def logits_scaled_to_nothing(h: Setup) -> Setup:
    return replace(h, model=nn.Sequential(*h.model, Scaled(1e-6)))


@breaking("diffusion_fixed_noise", "output-scale", where="the output times 1e-5")
def noise_scaled_to_nothing(h: Setup) -> Setup:
    h.model.net = nn.Sequential(*h.model.net, Scaled(1e-5))
    return h


@silent("layer_scale", "output-scale", "zero-gradient", where="blocks.0.*: its output is scaled by 1e-9 for good")
def branch_scaled_to_nothing(h: Setup) -> Setup:
    h.model.blocks[0].append(Scaled(1e-9))
    return h


@breaking(
    "mlp_classification", "constant-output", "batch-mixing", where="the mean over the batch, keepdim, then expanded"
)
def mean_over_the_batch(h: Setup) -> Setup:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0, keepdim=True).expand_as(x)

    return replace(h, model=nn.Sequential(*h.model[:2], Mean(), *h.model[2:]))


@breaking("logistic_regression", "constant-output", "zero-gradient", where="softmax over one logit is 1")
def softmax_of_one_logit(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        probability = model(batch["x"]).softmax(1).squeeze(1)
        return nn.functional.binary_cross_entropy(probability.clamp(0.01, 0.99), batch["y"])

    return replace(h, loss=loss)


@breaking("mlp_regression", "constant-output", "capacity", where="4: LayerNorm over one feature gives its bias")
def layer_norm_of_one_feature(h: Setup) -> Setup:
    bottleneck = [nn.Linear(128, 1), nn.LayerNorm(1), nn.Linear(1, 3)]
    return replace(h, model=nn.Sequential(*h.model[:4], *bottleneck))


class PooledDepth(DepthNet):
    def forward(self, image: Tensor) -> Tensor:
        features = self.encoder(image).mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)
        return self.head(features)


@breaking(
    "small_depth",
    "constant-output",
    "unused",
    "capacity",
    where="the features are pooled: all pixels get the same depth",
)
def depth_from_a_pooled_vector(h: Setup) -> Setup:
    return replace(h, model=PooledDepth())


class UnscaledBlock(CausalBlock):
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(0 * query, key, value, is_causal=True)


class Unscaled(TinyGPT):
    block = UnscaledBlock


@silent("tiny_gpt", "zero-gradient", "output-scale", where="attention logits times 0: queries and keys get no gradient")
def attention_scale_of_zero(h: Setup) -> Setup:
    return replace(h, model=Unscaled())


class SaturatedAttention(TinyViT):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.block.qkv.weight[:96].mul_(100)


@silent("tiny_vit", "saturation", where="block.qkv: the attention is one-hot, queries and keys 100 times too large")
def attention_one_hot(h: Setup) -> Setup:
    return replace(h, model=SaturatedAttention())


class ZeroGates(ResidualMLP):
    """Both ends of every branch start at zero."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            for parameter in block.parameters():
                nn.init.zeros_(parameter)


@breaking(
    "zero_initialised_residuals", "zero-gradient", "symmetry", where="blocks.*: all their parameters start at zero"
)
def branches_zero_throughout(h: Setup) -> Setup:
    return replace(h, model=ZeroGates())
