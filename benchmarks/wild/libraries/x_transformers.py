"""x-transformers: one transformer with most of what has been published about attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from x_transformers import (
    AutoregressiveWrapper,
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    TransformerWrapper,
    ViTransformerWrapper,
    XTransformer,
)

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal, padding_mask, squared_error

VOCABULARY = 60
SIZE = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}
WRAPPERS = {"num_memory_tokens", "use_abs_pos_emb", "tie_embedding", "emb_dropout"}
TEXT = "ids attention norm residual embedding"


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A transformer."""
    return Program(
        f"x_transformers/{name}", "x_transformers", model, batch, loss, limit, traits=frozenset(traits.split()), **more
    )


def sentences(length: int = 13) -> Tensor:
    """Token ids; no two sequences begin alike."""
    ids = integers(1, VOCABULARY, 4, length)
    ids[:, 0] = torch.arange(4) + 1
    return ids


def decoder(**options: Any) -> Callable[[], nn.Module]:
    """A language model out of these layers."""
    wrapper = {key: options.pop(key) for key in WRAPPERS & set(options)}
    return lambda: AutoregressiveWrapper(
        TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=16, attn_layers=Decoder(**{**SIZE, **options}), **wrapper)
    )


def next_token(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the wrapper returns."""
    loss: Tensor = model(batch)
    return loss


def encoded(**options: Any) -> Callable[[], nn.Module]:
    """An encoder of token ids with a logit for each token."""
    return lambda: TransformerWrapper(
        num_tokens=VOCABULARY, max_seq_len=16, logits_dim=5, attn_layers=Encoder(**{**SIZE, **options})
    )


def tagged() -> dict[str, Tensor]:
    """Sequences of several lengths, their mask, and a class for each token."""
    return {
        "ids": sentences(12),
        "mask": padding_mask([12, 7, 9, 12], 12).bool(),
        "tags": integers(0, 5, 4, 12, seed=1),
    }


def tags_loss(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tokens that are there."""
    logits = model(batch["ids"], mask=batch["mask"])
    return F.cross_entropy(logits[batch["mask"]], batch["tags"][batch["mask"]])


def continuous() -> tuple[Tensor, Tensor]:
    """Series, and what follows each step."""
    series = torch.sin(torch.arange(17) * torch.tensor([0.3, 0.5, 0.9, 1.3])[:, None])[..., None]
    return series[:, :-1], series[:, 1:]


def translated() -> dict[str, Tensor]:
    """A padded source and its target."""
    mask = padding_mask([10, 6, 8, 10], 10).bool()
    return {"source": integers(1, VOCABULARY, 4, 10, seed=2), "mask": mask, "target": sentences(9)}


def translation(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the model returns."""
    loss: Tensor = model(batch["source"], batch["target"], mask=batch["mask"])
    return loss


def programs() -> Iterator[Program]:
    """Decoders, encoders, and others."""
    yield from decoders()
    yield from encoders()
    yield from others()


def decoders() -> Iterator[Program]:
    """Language models, each with another way to attend."""
    text = f"{TEXT} causal"
    fast: dict[str, Any] = {"lr": 3e-3}
    yield program("Decoder", decoder(), sentences, next_token, 0.03, text, **fast)
    yield program(
        "Decoder-dropout",
        decoder(attn_dropout=0.1, ff_dropout=0.1, emb_dropout=0.1),
        sentences,
        next_token,
        0.05,
        f"{text} dropout",
        given={"stochastic": True},
        **fast,
    )
    yield program(
        "Decoder-rotary",
        decoder(
            rotary_pos_emb=True, use_rmsnorm=True, ff_glu=True, ff_swish=True, use_abs_pos_emb=False, attn_kv_heads=1
        ),
        sentences,
        next_token,
        0.03,
        text,
        **fast,
    )
    variants: dict[str, dict[str, Any]] = {
        "alibi": {"alibi_pos_bias": True, "alibi_num_heads": 1},
        "qk_norm": {"attn_qk_norm": True, "sandwich_norm": True},
        "memory_tokens": {"num_memory_tokens": 4, "attn_num_mem_kv": 4, "attn_one_kv_head": True},
        "gated": {"gate_residual": True, "attn_gate_values": True, "shift_tokens": 1},
        "talking_heads": {"attn_pre_talking_heads": True},
    }
    for name, options in variants.items():
        yield program(f"Decoder-{name}", decoder(**options), sentences, next_token, 0.03, text, **fast)
    tied = decoder(tie_embedding=True, macaron=True)
    yield program("Decoder-tied", tied, sentences, next_token, 0.04, f"{text} tied", lr=1e-2)


def encoders() -> Iterator[Program]:
    """Bidirectional encoders with masks."""
    masked = f"{TEXT} attention_mask padding labels dict"
    variants: dict[str, dict[str, Any]] = {
        "Encoder": {},
        "Encoder-rel_pos_bias": {"rel_pos_bias": True, "use_scalenorm": True},
        "Encoder-hyper_connections": {"num_residual_streams": 2},
        "Encoder-sparse_topk": {"attn_sparse_topk": 4},
    }
    for name, options in variants.items():
        yield program(name, encoded(**options), tagged, tags_loss, 0.03, masked)


def others() -> Iterator[Program]:
    """Numbers instead of tokens, images, and two sequences."""
    yield program(
        "XTransformer",
        lambda: XTransformer(
            dim=32, enc_num_tokens=VOCABULARY, enc_depth=1, enc_heads=2, enc_max_seq_len=16, dec_num_tokens=VOCABULARY,
            dec_depth=1, dec_heads=2, dec_max_seq_len=16,
        ),
        translated,
        translation,
        0.03,
        f"{TEXT} causal attention_mask padding dict",
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "ContinuousTransformerWrapper",
        lambda: ContinuousTransformerWrapper(
            dim_in=1, dim_out=1, max_seq_len=16, attn_layers=Decoder(dim=32, depth=2, heads=2)
        ),
        continuous,
        squared_error,
        0.015,
        "attention norm residual causal regression",
    )
    yield program(
        "ViTransformerWrapper",
        lambda: ViTransformerWrapper(
            image_size=32, patch_size=8, num_classes=4, attn_layers=Encoder(dim=32, depth=2, heads=2)
        ),
        lambda: (normal(8, 3, 32, 32), classes(8, 4)),
        cross_entropy,
        0.02,
        "image attention norm residual labels",
    )
