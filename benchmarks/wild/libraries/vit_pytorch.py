"""vit-pytorch: variants of vision transformers, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from vit_pytorch import SimpleViT, ViT, cait, cct, cross_vit, deepvit, mobile_vit, na_vit, pit, vivit
from vit_pytorch.simple_vit_1d import SimpleViT as SimpleViT1D

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal

COUNT = 4
VIT = "image attention norm residual labels"
SIZE = {"image_size": 32, "patch_size": 8, "num_classes": COUNT, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}


def images(size: int = 32) -> tuple[Tensor, Tensor]:
    """Images in NCHW, and the class of each."""
    return normal(8, 3, size, size), classes(8, COUNT)


def criterion_call() -> dict[str, Any]:
    """A classifier is handed over with a criterion."""
    return {"loss": nn.CrossEntropyLoss()}


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any] = images,
    loss: Callable[[nn.Module, Any], Tensor] = cross_entropy,
    limit: float = 0.02,
    traits: str = VIT,
    **more: Any,
) -> Program:
    """A vision transformer."""
    if loss is cross_entropy:
        more.setdefault("own_call", criterion_call)
    return Program(
        f"vit_pytorch/{name}", "vit_pytorch", model, batch, loss, limit, traits=frozenset(traits.split()), **more
    )


def sizes() -> tuple[list[list[Tensor]], Tensor]:
    """Images of several sizes, packed into two rows, and the class of each."""
    first = [normal(3, 16, 16, seed=1), normal(3, 8, 24, seed=2)]
    second = [normal(3, 24, 16, seed=3), normal(3, 16, 8, seed=4), normal(3, 8, 8, seed=5)]
    return [first, second], classes(5, COUNT)


def clip() -> tuple[Tensor, Tensor]:
    """Short videos, and the class of each."""
    return normal(4, 3, 4, 16, 16), classes(4, COUNT)


def programs() -> Iterator[Program]:
    """Images, then sequences and videos."""
    yield program("ViT", lambda: ViT(**SIZE))
    yield program(
        "ViT-dropout",
        lambda: ViT(**SIZE, dropout=0.1, emb_dropout=0.1, pool="mean"),
        limit=0.04,
        traits=f"{VIT} dropout",
        given={"stochastic": True},
    )
    yield program("SimpleViT", lambda: SimpleViT(**SIZE))
    yield program("DeepViT", lambda: deepvit.DeepViT(**SIZE))
    yield program(
        "CaiT",
        lambda: cait.CaiT(
            image_size=32, patch_size=8, num_classes=COUNT, dim=32, depth=2, cls_depth=1, heads=2, mlp_dim=64,
            layer_dropout=0.05,
        ),
        limit=0.04,
        given={"stochastic": True},
        traits=f"{VIT} dropout",
    )  # fmt: skip
    yield program(
        "CCT",
        lambda: cct.CCT(
            img_size=32, embedding_dim=32, n_conv_layers=1, kernel_size=7, stride=2, padding=3, num_layers=2,
            num_heads=2, num_classes=COUNT, mlp_ratio=2.0, positional_embedding="learnable",
        ),
        limit=0.04,
        given={"stochastic": True},
        traits=f"{VIT} conv dropout",
    )  # fmt: skip
    yield program(
        "CrossViT",
        lambda: cross_vit.CrossViT(
            image_size=32, num_classes=COUNT, depth=1, sm_dim=16, sm_patch_size=8, sm_enc_depth=1, sm_enc_heads=2,
            sm_enc_mlp_dim=32, sm_enc_dim_head=8, lg_dim=32, lg_patch_size=16, lg_enc_depth=1, lg_enc_heads=2,
            lg_enc_mlp_dim=64, lg_enc_dim_head=16, cross_attn_depth=1, cross_attn_heads=2, cross_attn_dim_head=8,
        ),
        limit=0.04,
        given={"stochastic": True},
        traits=f"{VIT} dropout",
    )  # fmt: skip
    yield program(
        "PiT",
        lambda: pit.PiT(image_size=32, patch_size=8, dim=16, num_classes=COUNT, depth=(1, 1), heads=2, mlp_dim=32),
    )
    yield from of_other_shapes()


def of_other_shapes() -> Iterator[Program]:
    """Images of other sizes, a sequence and a video."""
    yield program(
        "MobileViT",
        lambda: mobile_vit.MobileViT(
            image_size=(64, 64), dims=[16, 16, 16], channels=[8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 32],
            num_classes=COUNT, depths=(1, 1, 1),
        ),
        lambda: images(64),
        traits=f"{VIT} conv batchnorm",
        steps=60,
        lr=3e-3,
        limit=0.06,
        given={"allow": ["zero-gradient:*to_qkv.weight*"]},  # one patch is left at the end: it has one key alone
    )  # fmt: skip
    yield program(
        "NaViT",
        lambda: na_vit.NaViT(image_size=32, patch_size=8, num_classes=COUNT, dim=32, depth=2, heads=2, mlp_dim=64),
        sizes,
        traits=f"{VIT} packed padding",
    )
    yield program(
        "SimpleViT1D",
        lambda: SimpleViT1D(
            seq_len=32, patch_size=4, num_classes=COUNT, dim=32, depth=2, heads=2, mlp_dim=64, channels=2
        ),
        lambda: (normal(8, 2, 32), classes(8, COUNT)),
        traits="attention norm residual labels",
    )
    yield program(
        "ViViT",
        lambda: vivit.ViViT(
            image_size=16, image_patch_size=8, frames=4, frame_patch_size=2, num_classes=COUNT, dim=32, spatial_depth=1,
            temporal_depth=1, heads=2, mlp_dim=64,
        ),
        clip,
        traits="attention norm residual labels video",
    )  # fmt: skip
