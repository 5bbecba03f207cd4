# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in the loss: sign, activation, shape, mask, terms, scale, floor, correspondence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.case import breaking, silent
from benchmarks.zoo.case import Setup
from benchmarks.zoo.generative import vae_terms
from benchmarks.zoo.losses import TwoTowers

Batch = dict[str, Any]


@silent("mlp_classification", "loss-sign", where="the mean log likelihood, not its negative")
def objective_negated(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return -F.cross_entropy(model(batch["x"]), batch["y"])

    return replace(h, loss=loss)


@silent("two_tasks_with_metrics", "loss-sign", where="the term `value` is subtracted")
def term_subtracted(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        _, terms = h.loss(model, batch)
        return terms["label"] - terms["value"], terms

    return replace(h, loss=loss)


@silent("deep_sets", "loss-sign", "double-activation", where="nll_loss of logits: no log_softmax, no lower bound")
def nll_of_raw_logits(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.nll_loss(model(batch["x"]), batch["y"])

    return replace(h, loss=loss)


@silent("beta_vae_small", "loss-sign", where="the divergence is subtracted")
def divergence_subtracted(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return vae_terms(model, batch, -1.0)

    return replace(h, loss=loss)


@breaking("tiny_vit", "double-activation", where="softmax before cross_entropy")
def softmax_twice(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]).softmax(1), batch["y"])

    return replace(h, loss=loss)


@breaking("multi_label_bce", "double-activation", where="a Sigmoid layer before BCEWithLogitsLoss")
def sigmoid_twice(h: Setup) -> Setup:
    return replace(h, model=nn.Sequential(*h.model, nn.Sigmoid()))


@breaking("logistic_regression", "double-activation", where="sigmoid before binary_cross_entropy_with_logits")
def sigmoid_in_a_logit_loss(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch["x"]).squeeze(1).sigmoid(), batch["y"])

    return replace(h, loss=loss)


@breaking("recommender", "broadcast", where="the prediction (32, 1) against the rating (32,)")
def column_against_row(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch["user"], batch["item"])[:, None] - batch["rating"]).square().mean()

    return replace(h, loss=loss)


@breaking("small_depth", "broadcast", where="depth (2, 1, 16, 16) against (2, 16, 16)")
def depth_channel_kept(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        valid = batch["valid"]
        error = (model(batch["image"]) - batch["depth"].clamp(min=1e-3).log()).square() * valid
        return error.sum() / error[:, :, valid[0] | valid[1]].numel()

    return replace(h, loss=loss)


@breaking("mlp_regression", "broadcast", where="the target (16, 1, 3) against the prediction (16, 3)")
def target_with_an_axis_too_many(h: Setup) -> Setup:
    x, y = h.data
    return replace(h, data=(x, y[:, None]), loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean())


@silent("padded_regression", "vacuous", where="the mask is empty: `mask > 1` of booleans")
def mask_empty(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        mask = batch["mask"] > 1
        error = (model(batch["x"]).squeeze(-1) - batch["y"]).square()
        return (error * mask).sum() / mask.sum().clamp(min=1)

    return replace(h, loss=loss)


@silent("mlp_regression", "vacuous", "loss-ignores-output", where="the prediction is compared with itself")
def prediction_against_itself(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        predicted = model(batch[0])
        return F.mse_loss(predicted, predicted.detach())

    return replace(h, loss=loss)


@silent("triplet", "vacuous", where="a margin of -3: every triplet keeps it from the start")
def margin_negative(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        anchor, positive, negative = (F.normalize(model(batch[n]), dim=1) for n in ("anchor", "positive", "negative"))
        near, far = F.pairwise_distance(anchor, positive), F.pairwise_distance(anchor, negative)
        return F.relu(near - far - 3.0).mean()

    return replace(h, loss=loss)


@silent("bilstm_tagger", "vacuous", where="all tags are -100")
def all_tags_ignored(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        tags = torch.full_like(batch["tags"], -100)
        total = F.cross_entropy(model(batch["tokens"]).flatten(0, 1), tags.flatten(), reduction="sum")
        return total / (tags != -100).sum().clamp(min=1)

    return replace(h, loss=loss)


@silent("camera_pose", "term-missing", where="the term `translation` is not in the objective")
def translation_left_out(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms = h.loss(model, batch)
        return {**terms, "objective": terms["rotation"]}

    return replace(h, loss=loss)


@silent("two_view", "term-missing", where="the term `depth` is not in the objective")
def depth_left_out(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms = h.loss(model, batch)
        return {**terms, "objective": terms["camera"]}

    return replace(h, loss=loss)


@silent("detection", "term-missing", where="`box` and `class` of the last image only: = in place of +=")
def last_image_counts(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: list[Batch]) -> dict[str, Tensor]:
        grid = model(torch.stack([each["image"] for each in batch])).permute(0, 2, 3, 1)
        present = torch.zeros_like(grid[..., 0])
        for image, each in enumerate(batch):
            column, row = (each["boxes"][:, :2] * 4).long().clamp(0, 3).unbind(1)
            present[image, row, column] = 1
            cells = grid[image, row, column]
            box = F.smooth_l1_loss(cells[:, 1:5], each["boxes"])
            kind = F.cross_entropy(cells[:, 5:], each["labels"])
        objectness = F.binary_cross_entropy_with_logits(grid[..., 0], present)
        return {"objective": objectness + box + kind, "objectness": objectness, "box": box, "class": kind}

    return replace(h, loss=loss)


@silent("two_tasks_with_metrics", "term-weight", "term-stuck", where="`value` weighs 1e-8")
def value_weighs_nothing(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        _, terms = h.loss(model, batch)
        return terms["label"] + 1e-8 * terms["value"], {**terms, "weight": 1e-8}

    return replace(h, loss=loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))


@breaking("beta_vae_small", "term-weight", "constant-output", where="`kl` weighs 1000 and drowns the reconstruction")
def divergence_drowns_the_rest(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return vae_terms(model, batch, 1000.0)

    return replace(h, loss=loss)


@breaking("pinn", "term-stuck", "loss-ignores-output", where="`ends`: the ends are a constant of the batch")
def ends_not_of_the_model(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms = h.loss(model, batch)
        ends = batch["ends"].square().mean()
        return {"objective": terms["residual"] + ends, "residual": terms["residual"], "ends": ends}

    return replace(h, loss=loss)


@breaking("camera_pose", "term-stuck", "target-mismatch", where="`rotation`: one target for both views of a pair")
def rotation_of_the_inverse_too(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        quaternion, translation = model(*batch["views"])
        target = batch["camera"]["quaternion"]
        inverse = target * torch.tensor([1.0, -1.0, -1.0, -1.0])
        rotation = 1 - ((quaternion * target).sum(1).abs() + (quaternion * inverse).sum(1).abs()).mean() / 2
        shift = F.smooth_l1_loss(translation, batch["camera"]["translation"])
        return {"objective": rotation + shift, "rotation": rotation, "translation": shift}

    return replace(h, loss=loss)


@breaking("soft_labels_kl", "loss-ignores-output", "loss-detached", where="the divergence of the target from itself")
def target_against_target(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        smooth = 0.7 * batch["y"] + 0.3 / batch["y"].shape[1]
        penalty = sum((p.square().mean() for p in model.parameters()), torch.zeros(()))
        model(batch["x"])
        return F.kl_div(smooth.log(), batch["y"], reduction="batchmean") + 1e-6 * penalty

    return replace(h, loss=loss)


@breaking(
    "distillation", "loss-ignores-output", "loss-detached", "wrong-model", where="the teacher stands in for the student"
)
def teacher_against_itself(h: Setup) -> Setup:
    def loss(models: Mapping[str, nn.Module], batch: Batch) -> Tensor:
        goal = (4 * models["teacher"](batch["x"])).softmax(1)
        models["student"](batch["x"])
        return F.kl_div(models["teacher"](batch["x"]).log_softmax(1), goal, reduction="batchmean")

    return replace(h, loss=loss)


@breaking("mlp_classification", "loss-clamped", "zero-gradient", where="the loss is clamped to at most 0.5")
def loss_clamped(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"]).clamp(max=0.5)

    return replace(h, loss=loss)


@breaking("sgd_regression", "loss-clamped", "output-range", "target-scale", where="the prediction is clamped to 0..1")
def prediction_clamped(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch["x"]).clamp(0, 1), batch["y"])

    return replace(h, loss=loss)


@breaking("sgd_regression", "loss-scale", "lr-high", where="a sum over 16 x 3 values, not a mean, times 20")
def sum_in_place_of_mean(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return 20 * F.mse_loss(model(batch["x"]), batch["y"], reduction="sum")

    return replace(h, loss=loss)


@silent("sgd_momentum", "loss-scale", "lr-low", where="the mean is divided by the size of a data set, 50,000")
def divided_by_the_data_set(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"]) / 50_000

    return replace(h, loss=loss)


@breaking("mlp_classification", "loss-floor", where="label smoothing of 0.1 leaves 0.39")
def smoothed_labels(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"], label_smoothing=0.1)

    return replace(h, loss=loss)


@breaking("soft_labels_kl", "loss-floor", where="cross entropy of soft labels: their entropy stays")
def entropy_of_soft_labels(h: Setup) -> Setup:
    return replace(h, loss=lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]))


class Untempered(TwoTowers):
    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return F.normalize(self.image(image), dim=1) @ F.normalize(self.text(text), dim=1).T


@breaking(
    "contrastive_two_towers", "loss-floor", "unused", "output-range", where="no temperature: cosines alone leave 1.0"
)
def temperature_forgotten(h: Setup) -> Setup:
    return replace(h, model=Untempered())


@breaking("tcn", "loss-floor", where="1e-3 + sqrt: a Charbonnier eps of 0.1 in place of 1e-3")
def charbonnier_eps(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return ((model(batch[0]) - batch[1]).square() + 0.1**2).sqrt().mean()

    return replace(h, loss=loss)


@silent("mlp_classification", "target-mismatch", where="labels counted from 1, so class k is trained as k + 1")
def labels_off_by_one(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"]), (batch["y"] + 1) % 5)

    return replace(h, loss=loss)


@silent("keypoints", "target-mismatch", where="targets are (row, column), the prediction is (x, y)")
def axes_swapped(h: Setup) -> Setup:
    return replace(h, loss=lambda model, batch: F.mse_loss(model(batch["x"]), batch["y"].flip(-1)))


@silent("camera_pose", "target-mismatch", where="translations of the next sample: the targets are rolled by one")
def targets_of_the_next_sample(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        camera = {**batch["camera"], "translation": batch["camera"]["translation"].roll(1, 0)}
        return h.loss(model, {**batch, "camera": camera})

    return replace(h, loss=loss)


@silent("link_prediction", "target-mismatch", "loss-sign", where="labels of -1 and 1 in a loss for 0 and 1")
def labels_of_minus_one(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        left, right = model(batch["pairs"]).unbind(1)
        sign = 2 * batch["linked"].float() - 1
        return F.binary_cross_entropy_with_logits((left * right).sum(1), sign)

    return replace(h, loss=loss)
