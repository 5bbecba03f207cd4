# mypy: disable-error-code="no-any-return, no-untyped-call"
"""The healthy families: cases of the zoo under a budget of their own, and a few more that bugs need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.scene import scene_batch
from benchmarks.zoo.case import Setup, fixed, mlp, smooth_images
from benchmarks.zoo.dense import classify, labelled, regress, targets
from benchmarks.zoo.registry import CASES
from benchmarks.zoo.vision import adam, labelled_images
from pytest_overfit.two_view.reference.pose import encode_pose

Batch = dict[str, Any]
Optimizer = torch.optim.Optimizer

# Steps: three to five times what the slowest of a few seeds needs in a bare loop.
ZOO_BUDGETS: Mapping[str, int] = {
    "mlp_classification": 250, "mlp_regression": 200, "mlp_functional_criterion": 300, "mlp_batch_norm": 400,
    "logistic_regression": 350,
    "multi_label_bce": 300, "tabular_nested_batch": 200, "recommender": 190, "autoencoder": 300,
    "zero_initialised_residuals": 150, "cnn": 150, "camera_pose": 150, "detection": 200, "coordinate_network": 300,
    "lstm_forecast": 200, "bilstm_tagger": 250, "tcn": 350, "beta_vae_small": 200, "vq_vae": 400,
    "diffusion_fixed_noise": 200, "mixture_density": 200, "heteroscedastic_regression": 200, "conditional_gan": 200,
    "pixel_cnn": 200, "graph_convolution": 300, "graph_attention": 200, "molecule_message_passing": 150,
    "deep_sets": 200, "point_net": 250, "attention_pooling": 200, "hopfield_retrieval": 250,
    "experts_soft_gating": 250, "link_prediction": 200, "contrastive_two_towers": 120, "triplet": 100, "siamese": 200,
    "two_tasks_with_metrics": 350, "per_sample_weights": 200, "missing_targets": 200, "padded_regression": 250,
    "soft_labels_kl": 250, "distillation": 300, "focal_loss": 200, "pinn": 300, "gradient_clipping": 200,
    "gradient_accumulation": 300, "ema_teacher": 300, "warm_up_from_zero": 250, "cosine_schedule": 200,
    "bf16_parameters": 350, "sgd_momentum": 200, "regularised": 200, "parameter_groups": 350, "dropout": 250,
    "straight_through_rounding": 200, "lora": 150, "frozen_backbone": 400, "unused_pooler": 250, "layer_scale": 250,
    "auxiliary_head": 350, "gpt_tied_weights": 400, "frozen_batch_norm": 400, "backbone_left_out_of_the_optimizer": 400,
}  # fmt: skip


def train_step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
    """The textbook step of a classifier."""
    optimizer.zero_grad()
    loss = classify(model, batch)
    loss.backward()
    optimizer.step()
    return loss.detach()


def own_step() -> Setup:
    """A classifier under the user's own step and Adam."""
    model = mlp(20, 96, 96, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return Setup(model, labelled(), step=train_step, optimizer=optimizer)


def own_step_sgd() -> Setup:
    """The same under SGD with momentum, which feels the scale of a gradient."""
    model = mlp(20, 96, 96, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Setup(model, labelled(), step=train_step, optimizer=optimizer)


def sgd_regression() -> Setup:
    """A regressor under SGD with momentum."""
    return Setup(mlp(20, 96, 96, 3), targets(), regress, optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9))


class Pretrained(nn.Module):
    """A backbone of some other task, and its head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(mlp(20, 96, 96), nn.ReLU())
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def pretrained_head_swap() -> Setup:
    """The head is swapped for one of 5 classes, then the optimizer is built."""
    model = Pretrained()
    model.head = nn.Linear(96, 5)
    return Setup(model, labelled(), classify, optimizer=torch.optim.Adam(model.parameters(), lr=2e-3))


class CausalBlock(nn.Module):
    """Pre-norm self-attention over earlier positions, and an MLP."""

    causal = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out, self.net = nn.Linear(width, width), mlp(width, 2 * width, width, activation=nn.GELU)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)

    def forward(self, x: Tensor) -> Tensor:
        heads = [part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=2)]
        x = x + self.out(self.attend(*heads).transpose(1, 2).flatten(2))
        return x + self.net(self.norm2(x))


class TinyGPT(nn.Module):
    """One block over tokens and learned positions."""

    block: type[CausalBlock] = CausalBlock

    def __init__(self, vocabulary: int = 30, width: int = 48, length: int = 16) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([self.block(width)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def next_token(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy of every token but the first, given those before."""
    tokens = batch["tokens"]
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def tiny_gpt() -> Setup:
    """Four sentences that begin differently."""
    tokens = torch.randint(4, 30, (4, 13), generator=fixed())
    tokens[:, 0] = torch.arange(4)
    return Setup(TinyGPT(), {"tokens": tokens}, next_token, optimizer=adam(4e-3))


class TinyViT(nn.Module):
    """Patches, positions, one block over all of them, the mean of the tokens."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches, self.positions = nn.Conv2d(3, width, 4, 4), nn.Parameter(0.3 * torch.randn(1, 16, width))
        self.block = CausalBlock(width)
        self.block.causal = False
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def embed(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.embed(x) + self.positions)).mean(1))


def tiny_vit() -> Setup:
    """Labels of small images."""
    return Setup(TinyViT(), labelled_images(), classify, optimizer=adam(2e-3))


class DepthNet(nn.Module):
    """Convolutions at half resolution and a pixel shuffle: (N, 3, 16, 16) to (N, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.GELU(), nn.Conv2d(32, 48, 3, padding=1), nn.GELU())
        self.position = nn.Parameter(0.3 * torch.randn(1, 48, 8, 8))
        self.head = nn.Sequential(nn.Conv2d(48, 48, 1), nn.GELU(), nn.Conv2d(48, 4, 1), nn.PixelShuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.encoder(image) + self.position)


def masked_depth_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Squared error of the log depth where there is depth."""
    valid = batch["valid"]
    return F.mse_loss(model(batch["image"])[:, 0][valid], batch["depth"][valid].log())


def small_depth() -> Setup:
    """Log depth under a mask; missing pixels are zero."""
    source = fixed()
    images, field = smooth_images(2, 3, 16, source), smooth_images(2, 1, 16, source)[:, 0]
    valid = torch.rand(field.shape, generator=source) > 0.2
    batch = {"image": images, "depth": 2 * (0.5 * field).exp() * valid, "valid": valid}
    return Setup(DepthNet(), batch, masked_depth_loss, optimizer=adam(4e-3))


def keypoints() -> Setup:
    """Six points (x, y) of an image in units of its half size."""
    source = fixed()
    batch = {"x": smooth_images(6, 3, 16, source), "y": 2 * torch.rand(6, 6, 2, generator=source) - 1}
    layers = [nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Flatten(), *mlp(256, 96, 12), nn.Unflatten(1, (6, 2))]
    return Setup(nn.Sequential(*layers), batch, regress, optimizer=adam(2e-3))


class TwoView(nn.Module):
    """Patch tokens of two views, mixed across both, to poses (B, S, 9), depth (B, S, H, W, 1) and confidence."""

    def __init__(self, width: int = 64, patch: int = 6, size: int = 24) -> None:
        super().__init__()
        self.patch, self.grid = patch, size // patch
        self.embed = nn.Linear(3 * patch**2, width)
        self.position = nn.Parameter(0.3 * torch.randn(2, self.grid**2, width))
        self.mix = mlp(2 * width, 128, width, activation=nn.GELU)
        self.pose_head = mlp(self.grid**2 * width, 64, 9, activation=nn.GELU)
        self.depth_head = mlp(2 * width, 192, 2 * patch**2, activation=nn.GELU)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, S, N, D) of every patch, beside the mean of the other view."""
        b, s = images.shape[:2]
        patches = F.unfold(images.flatten(0, 1) - 0.5, self.patch, stride=self.patch).transpose(1, 2)
        x = F.gelu(self.embed(patches).view(b, s, -1, self.embed.out_features) + self.position)
        other = x.flip(1).mean(2, keepdim=True).expand_as(x)
        return torch.cat([x, self.mix(torch.cat([x, other], dim=-1))], dim=-1)

    def unpatch(self, raw: Tensor) -> Tensor:
        """(B, S, N, p p) to (B, S, H, W)."""
        b, s = raw.shape[:2]
        side = self.grid * self.patch
        return F.fold(raw.flatten(0, 1).transpose(1, 2), (side, side), self.patch, stride=self.patch).view(
            b, s, side, side
        )

    def confidence(self, raw: Tensor) -> Tensor:
        """Between 1 and 8."""
        return 1 + 7 * torch.sigmoid(0.5 * raw - 1)

    def forward(self, images: Tensor) -> dict[str, Any]:
        tokens = self.tokens(images)
        start = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1])
        pose = start + 0.3 * self.pose_head(tokens[..., : tokens.shape[-1] // 2].flatten(2))
        log_depth, raw = (self.unpatch(part) for part in self.depth_head(tokens).chunk(2, dim=-1))
        return {
            "pose_enc": pose,
            "depth": (2 * torch.tanh(log_depth / 4)).exp()[..., None],
            "depth_conf": self.confidence(raw),
        }


def two_view_terms(predicted: Batch, batch: Batch) -> dict[str, Tensor]:
    """Mean errors of the pose encoding and of the depth under the mask."""
    size = batch["images"].shape[-2:]
    camera = F.smooth_l1_loss(predicted["pose_enc"], encode_pose(batch["extrinsics"], batch["intrinsics"], size))
    mask = batch["point_masks"]
    depth = F.mse_loss(predicted["depth"][..., 0][mask], batch["depths"][mask])
    return {"objective": camera + depth, "camera": camera, "depth": depth}


def two_view() -> Setup:
    """Cameras and depth of a rendered pair, normalised by the mean distance to the first camera."""

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return two_view_terms(model(batch["images"]), batch)

    return Setup(TwoView(), scene_batch(), loss, optimizer=adam(2e-3))


def confidence_terms(
    predicted: Batch, batch: Batch, weighted: Tensor, error: Tensor, confidence: Tensor
) -> dict[str, Tensor]:
    """The camera term and a weighted depth term, beside what the latter is made of."""
    camera = two_view_terms(predicted, batch)["camera"]
    shown = {"depth": error.detach().mean(), "confidence": confidence.detach().mean()}
    return {"objective": camera + weighted, "camera": camera, "weighted": weighted, **shown}


def two_view_confidence() -> Setup:
    """Cameras, and the depth error of DUSt3R, |d| c - 0.05 log c with c of 1 to 8; a limit is stated."""

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        predicted, mask = model(batch["images"]), batch["point_masks"]
        error = (predicted["depth"][..., 0] - batch["depths"]).abs()[mask]
        confidence = predicted["depth_conf"][mask]
        weighted = (error * confidence - 0.05 * confidence.log()).mean()
        return confidence_terms(predicted, batch, weighted, error, confidence)

    return Setup(TwoView(), scene_batch(), loss, optimizer=adam(2e-3), settings={"objective": -0.03})


OWN: tuple[tuple[Callable[[], Setup], int], ...] = (
    (own_step, 250), (own_step_sgd, 250), (sgd_regression, 250), (pretrained_head_swap, 200), (tiny_gpt, 250),
    (tiny_vit, 200), (small_depth, 300), (keypoints, 200), (two_view, 300), (two_view_confidence, 400),
)  # fmt: skip


def _within(build: Callable[[int], Setup], steps: int) -> Callable[[int], Setup]:
    def built(seed: int) -> Setup:
        setup = build(seed)
        return replace(setup, settings={**setup.settings, "max_steps": steps})

    return built


def _seeded(builder: Callable[[], Setup]) -> Callable[[int], Setup]:
    def build(seed: int) -> Setup:
        torch.manual_seed(seed)
        return builder()

    return build


FAMILIES: Mapping[str, Callable[[int], Setup]] = {
    **{case.name: _within(case.build, ZOO_BUDGETS[case.name]) for case in CASES if case.name in ZOO_BUDGETS},
    **{builder.__name__: _within(_seeded(builder), steps) for builder, steps in OWN},
}
