"""The classifier."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import BertConfig, BertModel

TEAMS = ("billing", "delivery", "returns")


def encoder_config(*, dropout: float = 0.1, width: int = 32, layers: int = 2) -> BertConfig:
    """A small encoder. Without dropout for the overfit tests: a random forward pass has no floor of zero."""
    return BertConfig(
        vocab_size=100,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=len(TEAMS),
    )


class TicketClassifier(nn.Module):
    """Tokens and their mask, both (B, T), to logits (B, 3), from the mean of the encoder's last hidden states."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.encoder = BertModel(config)
        self.head = nn.Linear(config.hidden_size, len(TEAMS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return self.head((states * mask).sum(dim=1) / mask.sum(dim=1))
