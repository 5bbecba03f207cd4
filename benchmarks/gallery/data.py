# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in the data: what changes, scales, constants, NaN, conflicts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gallery.case import breaking, silent
from benchmarks.zoo.case import Setup

Batch = dict[str, Any]


@breaking("mlp_regression", "batch-changes", "stochastic", where="new noise on x in every step")
def noise_on_the_input(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0] + torch.randn_like(batch[0])
        return (model(x) - batch[1]).square().mean()

    return replace(h, loss=loss)


@breaking(
    "mlp_classification", "batch-changes", "target-mismatch", where="`y` is shuffled anew in every step, `x` is not"
)
def labels_shuffled_in_every_step(h: Setup) -> Setup:
    x, y = h.data["x"], h.data["y"]
    return replace(h, data=lambda: {"x": x, "y": y[torch.randperm(len(y))]})


@breaking("mlp_regression", "batch-changes", where="a new batch at every draw: both elements")
def new_batch_in_every_step(h: Setup) -> Setup:
    return replace(h, data=lambda: (torch.randn(16, 20), torch.randn(16, 3)))


@silent("keypoints", "batch-changes", "target-mismatch", where="x is shifted at random by up to a pixel, y is not")
def random_shift_of_the_image(h: Setup) -> Setup:
    def draw() -> Batch:
        down, right = (int(n) for n in torch.randint(-1, 2, (2,)))
        return {"x": h.data["x"].roll((down, right), (2, 3)), "y": h.data["y"]}

    return replace(h, data=draw)


class FlipsInTrain(nn.Module):
    """Augments in forward: flips half of the images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        flip = torch.rand(len(x), 1, 1, 1) < 0.5
        return self.net(torch.where(flip, x.flip(3), x))


@silent("cnn", "batch-changes", "stochastic", where="the model flips images at random")
def augmentation_in_the_model(h: Setup) -> Setup:
    return replace(h, model=FlipsInTrain(h.model))


class Shrinks(nn.Module):
    """Normalises the tensor of the batch in place."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.05).mul_(0.9)
        return self.net(x)


@breaking("focal_loss", "batch-changes", where="forward works on `x` in place: it shrinks to nothing")
def batch_changed_in_place(h: Setup) -> Setup:
    return replace(h, model=Shrinks(h.model))


@breaking("sgd_regression", "target-scale", "lr-high", where="y in millimetres, 1000 times too large")
def targets_in_millimetres(h: Setup) -> Setup:
    return replace(h, data={**h.data, "y": 1000 * h.data["y"]})


@breaking("autoencoder", "target-scale", "input-scale", where="the batch in 0..255 in place of standardised values")
def bytes_as_targets(h: Setup) -> Setup:
    return replace(h, data=(64 * h.data + 127).clamp(0, 255))


@breaking("graph_attention", "target-scale", where="value: raw energies around -4000")
def raw_energies(h: Setup) -> Setup:
    return replace(h, data={**h.data, "value": 30 * h.data["value"] - 4000})


@breaking("mlp_classification", "input-scale", where="x times 1000 plus 50,000")
def inputs_of_fifty_thousand(h: Setup) -> Setup:
    return replace(h, data={**h.data, "x": 1000 * h.data["x"] + 5e4})


@breaking("cnn", "input-scale", where="x divided by 255 a second and a third time")
def divided_by_255_again(h: Setup) -> Setup:
    return replace(h, data={**h.data, "x": h.data["x"] / 255**2})


@breaking("mlp_regression", "input-scale", where="column 0 of the input is a time stamp of about 1.7e9")
def time_stamp_as_feature(h: Setup) -> Setup:
    x, y = h.data
    stamp = 1.7e9 + 1e6 * x[:, :1]
    return replace(h, data=(torch.cat([stamp, x[:, 1:]], dim=1), y))


@breaking("cnn", "degenerate-batch", "input-scale", "label-conflict", where="x is zero: bytes // 255")
def integer_division_of_bytes(h: Setup) -> Setup:
    images = (64 * h.data["x"] + 127).clamp(0, 254).to(torch.uint8)
    return replace(h, data={**h.data, "x": (images // 255).float()})


@breaking(
    "coordinate_network", "degenerate-batch", "label-conflict", where="all positions are the same: linspace(-1, -1)"
)
def positions_all_equal(h: Setup) -> Setup:
    return replace(h, data={**h.data, "position": torch.full_like(h.data["position"], -1.0)})


@silent("mlp_regression", "degenerate-batch", "vacuous", where="the target is zero everywhere")
def targets_all_zero(h: Setup) -> Setup:
    x, y = h.data
    return replace(h, data=(x, torch.zeros_like(y)))


@silent("point_net", "degenerate-batch", where="the same set and label eight times: an index that stays 0")
def one_sample_eight_times(h: Setup) -> Setup:
    return replace(h, data={name: value[:1].expand_as(value).clone() for name, value in h.data.items()})


@breaking(
    "tabular_nested_batch", "nonfinite-data", "nonfinite-output", "nonfinite-loss", where="inputs.numeric[3, 2] is NaN"
)
def nan_in_the_input(h: Setup) -> Setup:
    h.data["inputs"]["numeric"][3, 2] = math.nan
    return h


@breaking("graph_attention", "nonfinite-data", "nonfinite-loss", where="value[4] is infinite")
def infinite_target(h: Setup) -> Setup:
    h.data["value"][4] = math.inf
    return h


@breaking("per_sample_weights", "nonfinite-data", "nonfinite-loss", where="weight[5] is NaN")
def nan_weight(h: Setup) -> Setup:
    h.data["weight"][5] = math.nan
    return h


@breaking("deep_sets", "label-conflict", "degenerate-batch", where="sets 4..7 repeat sets 0..3 under other labels")
def same_sets_other_labels(h: Setup) -> Setup:
    x, y = h.data["x"].clone(), h.data["y"].clone()
    x[4:], y[4:] = x[:4], (y[:4] + 1) % 4
    return replace(h, data={"x": x, "y": y})


@breaking("tiny_gpt", "label-conflict", where="all sentences begin with the same token and go on differently")
def one_beginning_many_ends(h: Setup) -> Setup:
    tokens = h.data["tokens"].clone()
    tokens[:, 0] = 0
    return replace(h, data={"tokens": tokens})


@breaking("mlp_regression", "label-conflict", where="rows 8..15 of the input repeat rows 0..7 with other targets")
def rows_repeated(h: Setup) -> Setup:
    x, y = h.data
    return replace(h, data=(torch.cat([x[:8], x[:8]]), y))


@silent("two_view", "batch-changes", where="images: brightness is drawn at random at every draw")
def brightness_drawn(h: Setup) -> Setup:
    def draw() -> Batch:
        return {**h.data, "images": h.data["images"] * (1 + 0.05 * torch.randn(()))}

    return replace(h, data=draw)


@silent("bilstm_tagger", "unsupervised", where="the tags of sentences 1 and 3 are all -100: their header was not found")
def sentences_without_tags(h: Setup) -> Setup:
    h.data["tags"][1::2][:2] = -100
    return h


@silent("mlp_classification", "unsupervised", where="`y` is -100 for samples 2 and 5: their class was not in the list")
def samples_of_an_unknown_class(h: Setup) -> Setup:
    h.data["y"][[2, 5]] = -100
    return h
