"""A small two-view transformer with the interface of VGGT: from images to cameras, depth and confidence.

Shape legend: B samples, S frames, H W height and width in pixels, p patch size in pixels, h = H / p, w = W / p,
N = 1 + h w tokens of a frame (the camera token first), D channels of a token, n stages of the camera head.
Units: cameras and depth are those of a normalised batch (`data.normalize_batch`), where depth is about 1.

It learns one sample fast, on a CPU too: most of its work is in matrix products over patch tokens. Nothing in it is tied
to a resolution, a number of frames or a sample, and without dropout and batch statistics training equals evaluation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.errors import ConfigError, OverfitError

IMAGE_MEAN, IMAGE_STD = 0.45, 0.23  # of natural images in 0..1; one number for the three channels

# Adam moves every weight by about the learning rate, whatever the loss, and so a wide output layer swings its output
# by the learning rate times its width. A fixed factor makes one learning rate fit the trunk and both heads (the output
# multiplier of Yang et al., "Tensor Programs V", NeurIPS 2021).
POSE_GAIN, DEPTH_GAIN = 0.05, 0.15

# Position angles, radians per patch, from the finest to the coarsest. With the usual 1 as the finest, neighbouring
# patches look alike: after 300 steps the depth error was twice as large.
MAX_ANGLE, MIN_ANGLE = 3.0, 0.05
POSITION_SCALE = 2.0

MAX_CONFIDENCE = 8.0
MAX_LOG_DEPTH = 8.0


class TwoViewTransformer(nn.Module):
    """Alternating frame-wise and global attention over image patches, a camera head and a dense depth head.

    Example:
        >>> model = TwoViewTransformer()
        >>> predictions = model(images=torch.rand(1, 2, 3, 98, 112))
        >>> predictions["pose_enc"].shape, predictions["depth"].shape
        (torch.Size([1, 2, 9]), torch.Size([1, 2, 98, 112, 1]))

    Args:
        patch_size: pixels, even.
        embed_dim: D, a multiple of 4 and of `num_heads`.
        depth: pairs of one frame-wise and one global block.
        num_heads: of every attention.
        mlp_ratio: hidden channels of a block's MLP, per D.
        head_dim: hidden channels of the depth head.
        skip_dim: channels of the half-resolution skip connection of the depth head.
        pose_stages: n, refinements of the camera head.

    A call `model(images=images)` takes (B, S, 3, H, W) in 0..1, with H and W multiples of `patch_size`, and returns
        `pose_enc_list`: n stages of (B, S, 9), absT_quaR_FoV as in `encode_pose`, of every frame relative to the first;
        `pose_enc`: the last of them;
        `depth`: (B, S, H, W, 1), positive;
        `depth_conf`: (B, S, H, W), above 1.

    Raises `ConfigError` for arguments that do not fit together, `OverfitError` for images of a wrong shape.

    Source: VGGT (Wang et al., CVPR 2025): alternating attention, a camera token with a value of its own for the first
    frame, an iterative camera head.
    """

    def __init__(
        self,
        patch_size: int = 14,
        embed_dim: int = 128,
        depth: int = 2,
        num_heads: int = 2,
        mlp_ratio: float = 2.0,
        head_dim: int = 384,
        skip_dim: int = 8,
        pose_stages: int = 4,
    ) -> None:
        super().__init__()
        if patch_size < 2 or patch_size % 2:
            raise ConfigError(f"patch_size {patch_size}", where="model", allowed="an even number of pixels")
        if embed_dim % 4 or embed_dim % num_heads:
            allowed = f"a multiple of 4 and of num_heads ({num_heads})"
            raise ConfigError(f"embed_dim {embed_dim}", where="model", allowed=allowed)
        if depth < 1 or pose_stages < 1:
            raise ConfigError(f"depth {depth}, pose_stages {pose_stages}", where="model", allowed="at least 1 each")
        self.patch_size = patch_size
        self.aggregator = Aggregator(patch_size, embed_dim, depth, num_heads, mlp_ratio)
        self.camera_head = CameraHead(embed_dim, pose_stages)
        self.depth_head = DepthHead(patch_size, embed_dim * depth, head_dim, skip_dim)

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        p = self.patch_size
        if images.dim() != 5 or images.shape[2] != 3 or images.shape[3] % p or images.shape[4] % p:
            allowed = f"(B, S, 3, H, W), H and W multiples of {p}"
            raise OverfitError(f"shape {tuple(images.shape)}", where="images", allowed=allowed)
        images = (images - IMAGE_MEAN) / IMAGE_STD
        tokens = self.aggregator(images)
        stages = self.camera_head(tokens.camera)
        depth, conf = self.depth_head(tokens.patches, images)
        return {"pose_enc_list": stages, "pose_enc": stages[-1], "depth": depth, "depth_conf": conf}


class Tokens(NamedTuple):
    """What the heads read: `camera` (B, S, 2 D) of the last pair of blocks, `patches` (B, S, h, w, depth D) of all."""

    camera: Tensor
    patches: Tensor


class Aggregator(nn.Module):
    """Images (B, S, 3, H, W), normalised, to `Tokens`.

    Source: VGGT, section 3.2 (alternating attention).
    """

    def __init__(self, patch_size: int, dim: int, depth: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch_embed = nn.Linear(3 * patch_size**2, dim)
        # Two values: the first frame, whose axes the cameras are told in, and all others.
        self.camera_token = nn.Parameter(0.5 * torch.randn(2, dim))
        self.frame_token = nn.Parameter(0.5 * torch.randn(2, dim))
        self.frame_blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.global_blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))

    def forward(self, images: Tensor) -> Tokens:
        p = self.patch_size
        b, s, _, height, width = images.shape
        h, w = height // p, width // p
        patches = images.reshape(b, s, 3, h, p, w, p).permute(0, 1, 3, 5, 2, 4, 6).reshape(b, s, h * w, 3 * p * p)
        x = self.patch_embed(patches) + POSITION_SCALE * positions(h, w, self.camera_token)
        camera = per_frame(self.camera_token, s).expand(b, s, 1, -1)
        x = torch.cat([camera, x + per_frame(self.frame_token, s)], dim=2)
        shape = x.shape  # (B, S, N, D)
        after_frame, outputs = x, []
        for frame_block, global_block in zip(self.frame_blocks, self.global_blocks, strict=True):
            after_frame = frame_block(x.flatten(0, 1)).view(shape)
            x = global_block(after_frame.flatten(1, 2)).view(shape)
            outputs.append(x[:, :, 1:])
        return Tokens(
            camera=torch.cat([after_frame[:, :, 0], x[:, :, 0]], dim=-1),
            patches=torch.cat(outputs, dim=-1).reshape(b, s, h, w, -1),
        )


class Block(nn.Module):
    """Self-attention and an MLP over (batch, tokens, D), each added to its input.

    Example:
        >>> Block(128, heads=2, mlp_ratio=2.0)(torch.rand(2, 57, 128)).shape
        torch.Size([2, 57, 128])

    Source: the pre-norm block of ViT (Dosovitskiy et al., 2021).
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads, hidden = heads, int(dim * mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        # No bias: softmax ignores a constant added to every key, so a bias there would never get a gradient.
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = small(nn.Linear(dim, dim))
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), small(nn.Linear(hidden, dim)))

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, dim))
        return torch.add(x, self.mlp(self.norm2(x)))


class CameraHead(nn.Module):
    """Camera tokens (B, S, 2 D) to n refined pose encodings (B, S, 9).

    Example:
        >>> [stage.shape for stage in CameraHead(128, stages=2)(torch.rand(1, 2, 256))]
        [torch.Size([1, 2, 9]), torch.Size([1, 2, 9])]

    Every stage refines the token, knowing the pose of the stage before it, and reads a new pose off it. The start is
    the identity and a field of view of 48 degrees; a sigmoid keeps it in range, where the original's ReLU can die.

    Source: the camera head of VGGT, with an MLP where VGGT has attention, and poses read off anew where VGGT adds
    differences (which stalled above the limit with some seeds).
    """

    def __init__(self, dim: int, stages: int) -> None:
        super().__init__()
        self.stages = stages
        self.project = nn.Sequential(nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim))
        self.embed_pose = nn.Linear(9, dim)
        grow, shrink = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.refine = nn.Sequential(nn.LayerNorm(dim), grow, nn.GELU(), small(shrink))
        self.to_pose = nn.Sequential(nn.LayerNorm(dim), small(nn.Linear(dim, 9)))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        x = self.project(tokens)
        stages = [self._pose(x.new_zeros(*x.shape[:-1], 9))]
        for _ in range(self.stages):
            x = x + self.refine(x + self.embed_pose(stages[-1].detach()))
            stages.append(self._pose(POSE_GAIN * self.to_pose(x)))
        return stages[1:]

    def _pose(self, raw: Tensor) -> Tensor:
        """Nine free numbers to a pose encoding; zeros give the start."""
        raw = raw.float()
        return torch.cat([raw[..., :6], 1 + raw[..., 6:7], math.pi * torch.sigmoid(raw[..., 7:] - 1)], dim=-1)


class DepthHead(nn.Module):
    """Patch tokens (B, S, h, w, C) and images to depth (B, S, H, W, 1) and confidence (B, S, H, W).

    A token says all pixels of its patch at once; a convolutional path at half resolution adds what the image says
    about edges. The start is a depth of about 1 and a confidence of about 2.

    Source: the linear head of DUSt3R (Wang et al., CVPR 2024) and the reassembly and fusion of DPT (Ranftl et al.,
    ICCV 2021): tokens of several depths, one convolutional refinement. exp depth and 1 + exp confidence as in VGGT.
    """

    def __init__(self, patch_size: int, in_dim: int, hidden: int, skip_dim: int) -> None:
        super().__init__()
        half = patch_size // 2
        self.fuse = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, hidden), nn.GELU())
        self.to_pixels = nn.Sequential(small(nn.Linear(hidden, 2 * patch_size**2)), Unpatch(patch_size))
        self.to_half = nn.Sequential(nn.Linear(hidden, skip_dim * half**2), Unpatch(half))
        self.stem = nn.Conv2d(3, skip_dim, kernel_size=4, stride=2, padding=1)
        self.refine = nn.Conv2d(skip_dim, skip_dim, kernel_size=3, padding=1)
        self.from_half = nn.Sequential(nn.Conv2d(skip_dim, 8, kernel_size=3, padding=1), nn.PixelShuffle(2))

    def forward(self, patches: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        b, s = patches.shape[:2]
        x = self.fuse(patches.flatten(0, 1))
        half = F.gelu(self.to_half(x) + self.stem(images.flatten(0, 1)))
        half = half + F.gelu(self.refine(half))
        raw = DEPTH_GAIN * (self.to_pixels(x) + self.from_half(half))
        log_depth, conf = raw.float().reshape(b, s, 2, *images.shape[-2:]).unbind(2)
        return bounded_exp(log_depth)[..., None], confidence(conf)


class Unpatch(nn.Module):
    """Tokens (batch, h, w, C p p) to maps (batch, C, h p, w p): every token is a p x p patch."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x.permute(0, 3, 1, 2), self.p)


def per_frame(token: Tensor, s: int) -> Tensor:
    """The `token` (2, D) of the first frame and that of all others, laid out as (S, 1, D)."""
    return torch.cat([token[:1], token[1:].expand(s - 1, -1)])[:, None]


def positions(h: int, w: int, like: Tensor) -> Tensor:
    """Sines and cosines (h w, D) of row and column, with the channels, type and device of `like` (..., D).

    Example:
        >>> positions(7, 8, torch.empty(128)).shape
        torch.Size([56, 128])

    Source: Vaswani et al. 2017, section 3.5, in two dimensions.
    """
    n = like.shape[-1] // 4
    steps = torch.linspace(0, 1, n, device=like.device)
    angle = MAX_ANGLE * (MIN_ANGLE / MAX_ANGLE) ** steps
    rows = torch.arange(h, device=like.device)[:, None, None] * angle
    columns = torch.arange(w, device=like.device)[None, :, None] * angle
    parts = [part.expand(h, w, n) for part in (rows.sin(), rows.cos(), columns.sin(), columns.cos())]
    return torch.cat(parts, dim=-1).flatten(0, 1).to(like.dtype)


def bounded_exp(x: Tensor) -> Tensor:
    """exp(x) near 0, smoothly kept within exp(-8) and exp(8): always positive and finite."""
    return (MAX_LOG_DEPTH * torch.tanh(x / MAX_LOG_DEPTH)).exp()


def confidence(x: Tensor) -> Tensor:
    """1 + exp(x) near 0, smoothly bent to at most 8.

    The loss multiplies the depth error, and so its gradient, by the confidence: without a bound the easy pixels shake
    all others ever harder. A bound of 50 took a quarter more steps.
    """
    return 1 + (MAX_CONFIDENCE - 1) * torch.sigmoid(x - math.log(MAX_CONFIDENCE - 2))


def small(layer: nn.Linear) -> nn.Linear:
    """The layer, started near zero (and not at zero: every parameter below it gets a gradient at once)."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
