# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in the graph: cuts, zero gradients, frozen, unregistered and unused parts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.case import breaking, parameter_count, silent
from benchmarks.gallery.families import Pretrained, TinyGPT
from benchmarks.zoo.case import Setup, mlp
from benchmarks.zoo.dense import Tabular
from benchmarks.zoo.finetuning import LoRALinear
from benchmarks.zoo.generative import VAE, VQVAE
from benchmarks.zoo.graph_and_sets import MessagePassing
from benchmarks.zoo.losses import TwoTasks
from benchmarks.zoo.sequence import BiLSTMTagger, TemporalConvNet
from benchmarks.zoo.vision import PoseHead

Batch = dict[str, Any]


class DetachedTrunk(PoseHead):
    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(torch.cat([first, second], dim=1)).detach()
        return F.normalize(self.rotation(features), dim=1), self.translation(features)


@breaking("camera_pose", "no-gradient", where="trunk.*: the features are detached")
def trunk_detached(h: Setup) -> Setup:
    return replace(h, model=DetachedTrunk())


class DataOfOneHead(TwoTasks):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {"label": self.label(features), "value": self.value(features).data}


@breaking("two_tasks_with_metrics", "no-gradient", "term-stuck", where="value.*: the output is taken as .data")
def head_output_as_data(h: Setup) -> Setup:
    return replace(h, model=DataOfOneHead())


class EmbedsWithoutGrad(BiLSTMTagger):
    def forward(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            states, _ = self.net(self.embed(tokens))
        return self.head(states)


@breaking("bilstm_tagger", "no-gradient", where="embed.* and net.* run under no_grad")
def encoder_under_no_grad(h: Setup) -> Setup:
    return replace(h, model=EmbedsWithoutGrad())


class ThroughNumpy(MessagePassing):
    def forward(self, atoms: Tensor, edges: Tensor, lengths: Tensor, graph: Tensor) -> Tensor:
        x = torch.from_numpy(self.enter(atoms).detach().numpy()).clone()
        source, target = edges
        for _ in range(2):
            sent = self.message(torch.cat([x[source], x[target], lengths], dim=1))
            x = self.update(torch.zeros_like(x).index_add(0, target, sent), x)
        return self.head(x.new_zeros(int(graph.max()) + 1, x.shape[1]).index_add(0, graph, x)).squeeze(1)


@silent("molecule_message_passing", "no-gradient", where="enter.*: its output goes through numpy")
def features_through_numpy(h: Setup) -> Setup:
    return replace(h, model=ThroughNumpy())


class Rounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = mlp(20, 96, 24), mlp(24, 96, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave((4 * torch.tanh(self.enter(x))).round())


@silent("straight_through_rounding", "zero-gradient", where="enter.*: round() has a gradient of zero")
def rounding_without_straight_through(h: Setup) -> Setup:
    return replace(h, model=Rounded())


class HardCodes(VQVAE):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent = F.normalize(self.encoder(x).unflatten(1, (4, 8)), dim=-1)
        codes = F.normalize(self.codebook.weight, dim=-1)
        code = codes[(latent @ codes.T).argmax(-1)]
        return self.decoder(code.detach().flatten(1)), *(F.mse_loss(code, latent).detach() for _ in range(2))


@breaking("vq_vae", "no-gradient", where="encoder.* and codebook.*: the code is detached, without straight-through")
def codes_without_straight_through(h: Setup) -> Setup:
    return replace(h, model=HardCodes())


@breaking("lora", "zero-gradient", "symmetry", where="lora_a and lora_b of all layers: both start at zero")
def lora_zero_twice(h: Setup) -> Setup:
    layers = [module for module in h.model if isinstance(module, LoRALinear)]
    for layer in layers:
        nn.init.zeros_(layer.lora_a)
    return h


@breaking("mlp_classification", "zero-gradient", "symmetry", where="all weights start at zero")
def all_weights_zero(h: Setup) -> Setup:
    for parameter in h.model.parameters():
        nn.init.zeros_(parameter)
    return h


@breaking(
    "mlp_regression", "zero-gradient", "saturation", where="sixteen sigmoid layers: the gradient of the first vanishes"
)
def sixteen_sigmoids(h: Setup) -> Setup:
    return replace(h, model=mlp(20, *[64] * 16, 3, activation=nn.Sigmoid))


@breaking("own_step", "loss-detached", "no-gradient", where="the loss is wrapped anew: torch.tensor(loss.item())")
def loss_wrapped_anew(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = torch.tensor(F.cross_entropy(model(batch["x"]), batch["y"]).item(), requires_grad=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@breaking("mlp_classification", "loss-detached", "no-gradient", where="the share of wrong argmax labels as the loss")
def error_rate_as_loss(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        wrong = (model(batch["x"]).argmax(1) != batch["y"]).float().mean()
        return wrong.requires_grad_()

    return replace(h, loss=loss)


@breaking("deep_sets", "loss-detached", "no-gradient", where="the logits are detached in the loss")
def logits_detached_in_the_loss(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]).detach(), batch["y"])

    return replace(h, loss=loss)


@breaking("layer_scale", "frozen", where="all but the norms of the blocks are frozen")
def all_frozen_but_the_norms(h: Setup) -> Setup:
    for name, parameter in h.model.named_parameters():
        parameter.requires_grad_(name.startswith("blocks") and ".0." in name)
    return h


@breaking("frozen_backbone", "frozen", where="head.* is frozen together with the backbone, but for its last bias")
def head_frozen_too(h: Setup) -> Setup:
    h.model.requires_grad_(False)
    h.model.head[-1].bias.requires_grad_(True)
    return replace(h, optimizer=torch.optim.AdamW(h.model.parameters(), lr=2e-3))


@silent("tiny_gpt", "frozen", where="blocks.0.qkv.weight: a pattern for buffers, `blocks.*k`, matches it")
def freeze_pattern_too_wide(h: Setup) -> Setup:
    for name, parameter in h.model.named_parameters():
        parameter.requires_grad_(re.search("blocks.*k", name) is None)
    return h


class LayersInAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(20, 128), nn.Linear(128, 5)
        self.layers = [nn.Linear(128, 128)]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.enter(x))
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)


@silent("focal_loss", "unregistered", where="layers[0] in a plain list")
def layers_in_a_list(h: Setup) -> Setup:
    return replace(h, model=LayersInAList())


class HeadsInADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(mlp(20, 96, 96), nn.ReLU())
        self.heads = {"label": nn.Linear(96, 5), "value": nn.Linear(96, 2)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {name: head(features) for name, head in self.heads.items()}


@silent("two_tasks_with_metrics", "unregistered", where="heads in a plain dict")
def heads_in_a_dict(h: Setup) -> Setup:
    return replace(h, model=HeadsInADict())


class PlainPositions(TinyGPT):
    def __init__(self) -> None:
        super().__init__()
        del self.positions
        self.table = torch.randn(16, 48, requires_grad=True)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.table[: tokens.shape[1]]


@silent("tiny_gpt", "unregistered", where="table, the positions, is a tensor and no parameter")
def positions_as_plain_tensor(h: Setup) -> Setup:
    return replace(h, model=PlainPositions())


class ForgottenLayer(TemporalConvNet):
    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Conv1d(32, 32, 3, padding=1)


@silent("tcn", "unused", where="smooth.* is never called", shows=parameter_count)
def layer_never_called(h: Setup) -> Setup:
    return replace(h, model=ForgottenLayer())


class OneHeadTwice(PoseHead):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(64, 1)
        self.second = nn.Linear(64, 3)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(torch.cat([first, second], dim=1))
        return F.normalize(self.rotation(features), dim=1), self.translation(features) + 0 * self.second.weight.sum()


@silent(
    "camera_pose",
    "unused",
    "zero-gradient",
    where="scale.* is never called, second.* counts 0 times",
    shows=parameter_count,
)
def heads_of_an_earlier_version(h: Setup) -> Setup:
    return replace(h, model=OneHeadTwice())


class NumericOnly(Tabular):
    def forward(self, numeric: Tensor, city: Tensor, weekday: Tensor) -> Tensor:
        blank = numeric.new_zeros(len(numeric), 12)
        return self.net(torch.cat([self.norm(numeric), blank], dim=1)).squeeze(1)


@silent("tabular_nested_batch", "unused", "input-ignored", where="city.* and weekday.*, the embeddings of two columns")
def categories_left_out(h: Setup) -> Setup:
    return replace(h, model=NumericOnly())


class Shadowed(Pretrained):
    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        with torch.no_grad():
            features = self.backbone[0](x).relu()
        return self.head(features)


@breaking("pretrained_head_swap", "no-gradient", where="backbone.*: evaluated again under no_grad")
def backbone_evaluated_again(h: Setup) -> Setup:
    model = Shadowed()
    model.head = nn.Linear(96, 5)
    return replace(h, model=model, optimizer=torch.optim.Adam(model.parameters(), lr=2e-3))


class DetachedLatent(VAE):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).detach().chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(latent), mean, log_variance


@breaking("beta_vae_small", "no-gradient", where="encoder.*: the posterior is detached")
def posterior_detached(h: Setup) -> Setup:
    return replace(h, model=DetachedLatent())
