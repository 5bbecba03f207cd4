"""Small models of transformers, built from configs, and Trainers of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
QUIET: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
Build = Callable[..., Any]


def tokens() -> Tensor:
    return torch.randint(2, 48, (3, 10), generator=torch.Generator().manual_seed(7))


def adam(lr: float) -> Build:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def bert() -> Any:
    return BertForMaskedLM(BertConfig(vocab_size=50, max_position_embeddings=32, **SMALL, **QUIET))


def gpt2() -> Any:
    quiet: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes: dict[str, Any] = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, **quiet, bos_token_id=0, eos_token_id=49))


def llama() -> Any:
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 49}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=2, **SMALL, **ends))


def t5() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 50, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    ids: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return T5ForConditionalGeneration(T5Config(**sizes, **ids, dropout_rate=0.0))


def vit() -> Any:
    sizes: dict[str, Any] = {"image_size": 16, "patch_size": 8, "num_labels": 3}
    return ViTForImageClassification(ViTConfig(**sizes, **SMALL, **QUIET))


class Adapted(nn.Module):
    """A frozen layer and a low-rank one beside it, which starts at nothing."""

    def __init__(self, layer: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.up(self.down(x))
        return out


def low_rank() -> Any:
    """A frozen decoder with adapters and a head that learns."""
    model = llama()
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    for layer in model.model.layers:
        for home, name in ((layer.self_attn, "q_proj"), (layer.self_attn, "v_proj"), (layer.mlp, "down_proj")):
            setattr(home, name, Adapted(getattr(home, name)))
    return model


def decoded() -> dict[str, Tensor]:
    return {"input_ids": tokens(), "labels": tokens()}


def padded(ignored: int = -100) -> dict[str, Tensor]:
    mask = torch.ones(3, 10, dtype=torch.long)
    mask[1, 7:], mask[2, 5:] = 0, 0
    ids = tokens() * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, ignored)}


def masked() -> dict[str, Tensor]:
    ids, labels = tokens(), torch.full((3, 10), -100)
    labels[:, [2, 6]] = ids[:, [2, 6]]
    ids[:, [2, 6]] = 49
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def answered() -> dict[str, Tensor]:
    ends = torch.ones(3, 1, dtype=torch.long)
    return {"input_ids": tokens(), "labels": torch.cat([tokens()[:, :5].flip(1), ends], dim=1)}


def pictures() -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(7)
    return {"pixel_values": torch.randn(6, 3, 16, 16, generator=source), "labels": torch.arange(6) % 3}


GENERATES: Mapping[str, Any] = {"generates": True}
MODELS: Mapping[str, tuple[Build, dict[str, Tensor], Mapping[str, Any]]] = {
    "bert": (bert, masked(), {"optimizer": adam(3e-3)}),
    "gpt2": (gpt2, decoded(), {"optimizer": adam(1e-2), **GENERATES}),
    "gpt2_padded": (gpt2, padded(), {"optimizer": adam(1e-2), **GENERATES}),
    "llama": (llama, decoded(), {"optimizer": adam(1e-2), **GENERATES}),
    "t5": (t5, answered(), {"optimizer": adam(1e-2), **GENERATES}),
    "vit": (vit, pictures(), {"optimizer": adam(3e-3)}),
    "low_rank": (low_rank, decoded(), {"optimizer": adam(2e-2), "objective": 0.05, **GENERATES}),
}


def trainer(folder: Any, model: Any = None, data: Any = None, kind: Any = Trainer, **arguments: Any) -> Any:
    """A Trainer of gpt2 on three sequences, or of something else."""
    ours: dict[str, Any] = {
        "learning_rate": 5e-3,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    return kind(
        model=gpt2() if model is None else model,
        args=TrainingArguments(output_dir=str(folder), **{**ours, **arguments}),
        train_dataset=rows(decoded() if data is None else data),
    )


def rows(batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


class Weighted(Trainer):
    """A loss of its own, and what it logs."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 1.0]))
        self.log({"accuracy": float((outputs.logits.argmax(-1) == labels).float().mean())})
        return (loss, outputs) if return_outputs else loss


class OwnStep(Trainer):
    """A step of its own around the library's."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return super().training_step(*args, **kwargs)


TRAINERS: Mapping[str, tuple[Build, Mapping[str, Any]]] = {
    "plain": (trainer, GENERATES),
    "warm_up": (lambda f: trainer(f, warmup_steps=20, weight_decay=0.01, gradient_accumulation_steps=4), GENERATES),
    "smoothed": (lambda f: trainer(f, label_smoothing_factor=0.1), {"objective": 0.75}),
    "weighted": (lambda f: trainer(f, vit(), pictures(), Weighted, learning_rate=3e-3), {"accuracy": {"above": 0.99}}),
    "bfloat16": (lambda f: trainer(f, vit(), pictures(), learning_rate=3e-3, bf16=True), {}),
    "t5": (lambda f: trainer(f, t5(), answered(), learning_rate=1e-2), GENERATES),
    "own_step": (lambda f: trainer(f, kind=OwnStep), {}),
}
