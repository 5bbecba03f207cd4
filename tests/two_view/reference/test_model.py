"""The reference model: any resolution and number of frames, real cross-view attention, no part that can die."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.two_view.reference.two_view_transformer import TwoViewTransformer

Predictions = dict[str, Tensor | list[Tensor]]


def tiny(seed: int = 0, **changes: int) -> TwoViewTransformer:
    """A model of a few thousand parameters."""
    torch.manual_seed(seed)
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 1, "head_dim": 16, "skip_dim": 4} | changes
    return TwoViewTransformer(**sizes)


def images(b: int = 1, s: int = 2, h: int = 8, w: int = 12, seed: int = 0) -> Tensor:
    """Noise (B, S, 3, H, W) in 0..1."""
    return torch.rand(b, s, 3, h, w, generator=torch.Generator().manual_seed(seed))


def tensors(predictions: Predictions) -> dict[str, Tensor]:
    """Every output as one tensor, the stages stacked."""
    return {k: torch.stack(v) if isinstance(v, list) else v for k, v in predictions.items()}


def dense(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Pose (B, S, 9), depth (B, S, H, W, 1) and confidence (B, S, H, W)."""
    named = tensors(predictions)
    return named["pose_enc"], named["depth"], named["depth_conf"]


@pytest.mark.parametrize(("b", "s", "h", "w"), [(1, 2, 8, 12), (2, 1, 4, 4), (1, 3, 12, 4), (2, 2, 16, 8)])
def test_any_size_and_number_of_frames(b: int, s: int, h: int, w: int) -> None:
    """One model takes every batch, frame count and resolution in whole patches."""
    outputs = tensors(tiny(pose_stages=3)(images=images(b, s, h, w)))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "pose_enc_list": (3, b, s, 9),
        "pose_enc": (b, s, 9),
        "depth": (b, s, h, w, 1),
        "depth_conf": (b, s, h, w),
    }


def test_defaults_take_the_guides_patches() -> None:
    """The default model takes patches of 14 pixels and has the three parts that configs name."""
    torch.manual_seed(0)
    model = TwoViewTransformer()
    assert [name for name, _ in model.named_children()] == ["aggregator", "camera_head", "depth_head"]
    assert dense(model(images=images(h=28, w=42)))[1].shape == (1, 2, 28, 42, 1)


def test_last_stage_is_the_pose() -> None:
    """`pose_enc` is the last of `pose_enc_list`."""
    outputs = tensors(tiny()(images=images()))
    assert torch.equal(outputs["pose_enc_list"][-1], outputs["pose_enc"])


def test_frames_see_each_other() -> None:
    """Shuffling the pixels of the second image changes camera, depth and confidence of the first."""
    model, batch = tiny(), images()
    other = batch.clone()
    other[:, 1] = batch[:, 1].flip(-1)
    for before, after in zip(dense(model(images=batch)), dense(model(images=other)), strict=True):
        assert (before[:, 0] - after[:, 0]).abs().max() > 1e-6


def test_samples_do_not_see_each_other() -> None:
    """A sample comes out the same alone and in a batch."""
    model, batch = tiny(), images(b=3)
    for together, alone in zip(dense(model(images=batch)), dense(model(images=batch[1:2])), strict=True):
        torch.testing.assert_close(together[1:2], alone)


def test_first_frame_is_distinguished() -> None:
    """Two equal images get different cameras: the first frame carries the axes."""
    pose, _, _ = dense(tiny()(images=images(s=1).expand(1, 2, 3, 8, 12)))
    assert (pose[:, 0] - pose[:, 1]).abs().max() > 1e-6


def test_later_frames_are_interchangeable() -> None:
    """Swapping frames 1 and 2 swaps their outputs and leaves those of frame 0 alone."""
    model, batch = tiny(), images(s=3)
    order = [0, 2, 1]
    for plain, swapped in zip(dense(model(images=batch)), dense(model(images=batch[:, order])), strict=True):
        torch.testing.assert_close(plain[:, order], swapped)


@pytest.mark.parametrize("stages", [1, 4])
def test_every_parameter_gets_a_gradient(stages: int) -> None:
    """From the first step on no parameter tensor is unused or cut off."""
    model = tiny(pose_stages=stages, depth=2)
    outputs = tensors(model(images=images()))
    loss = (outputs["pose_enc_list"] - 0.3).abs().sum() + (outputs["depth"] - 0.7).square().sum()
    (loss + outputs["depth_conf"].log().sum()).backward()  # type: ignore[no-untyped-call]
    norms = {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in model.named_parameters()}
    assert {name: norm for name, norm in norms.items() if not 1e-6 < norm < 1e6} == {}


def test_no_seed_starts_dead() -> None:
    """Over 200 seeds every output starts near its neutral value, far from where an exp or sigmoid is flat."""
    batch = images(h=4, w=4)
    for seed in range(200):
        pose, depth, conf = dense(tiny(seed, pose_stages=1)(images=batch))
        neutral = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 0.845, 0.845])
        assert (pose - neutral).abs().max() < 0.2
        assert 0.5 < depth.min() <= depth.max() < 2
        assert 1.5 < conf.min() <= conf.max() < 2.6


def test_extreme_weights_stay_finite_and_in_range() -> None:
    """With outputs driven a million times too far depth stays positive, confidence at least 1, and all is finite."""
    model = tiny()
    with torch.no_grad():
        for p in model.depth_head.to_pixels.parameters():
            p.mul_(1e6)
        for p in model.camera_head.to_pose.parameters():
            p.mul_(1e6)
    pose, depth, conf = dense(model(images=images()))
    assert pose.isfinite().all()
    assert depth.isfinite().all()
    assert depth.min() > 0
    assert ((conf >= 1) & (conf <= 8)).all()
    assert ((pose[..., 7:] >= 0) & (pose[..., 7:] <= torch.pi + 1e-6)).all()


def test_training_and_evaluation_agree() -> None:
    """There is no dropout and no batch statistic."""
    model, batch = tiny(), images()
    training = tensors(model.train()(images=batch))
    evaluation = tensors(model.eval()(images=batch))
    for name, value in training.items():
        assert torch.equal(value, evaluation[name]), name


def test_seed_decides() -> None:
    """Equal seeds give equal outputs, other seeds do not."""
    batch = images()
    first, again, other = (dense(tiny(seed)(images=batch))[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(1, 2, 3, 8, 10), (1, 2, 4, 8, 8), (2, 3, 8, 8)])
def test_wrong_images_are_refused(shape: tuple[int, ...]) -> None:
    """The message names the shape and what would have been accepted."""
    with pytest.raises(OverfitError) as caught:
        tiny()(images=torch.zeros(shape))
    assert str(caught.value) == f"images: shape {shape}\n  allowed: (B, S, 3, H, W), H and W multiples of 4"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"patch_size": 7}, "model: patch_size 7\n  allowed: an even number of pixels"),
        ({"embed_dim": 18}, "model: embed_dim 18\n  allowed: a multiple of 4 and of num_heads (2)"),
        ({"num_heads": 3}, "model: embed_dim 16\n  allowed: a multiple of 4 and of num_heads (3)"),
        ({"depth": 0}, "model: depth 0, pose_stages 4\n  allowed: at least 1 each"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, int], found: str) -> None:
    """Sizes that do not fit together are a configuration error."""
    with pytest.raises(ConfigError) as caught:
        tiny(**changes)
    assert str(caught.value) == found
