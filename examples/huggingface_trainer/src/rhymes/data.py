"""Lines as tokens, one per character, and batches of them."""

from __future__ import annotations

import torch
from torch import Tensor

PADDING, END = 0, 1
ALPHABET = "abcdefghijklmnopqrstuvwxyz ,"
TEXT = ("humpty dumpty", "jack and jill", "little bo peep")


def lines() -> list[dict[str, Tensor]]:
    """The tokens of each line, with an end."""
    return [{"input_ids": torch.tensor([2 + ALPHABET.index(c) for c in line] + [END])} for line in TEXT]


def collate(examples: list[dict[str, Tensor]], *, ignored: int = -100) -> dict[str, Tensor]:
    """Tokens (B, T) padded at the end, their mask, and labels; padding has the label ``ignored``."""
    tokens = [example["input_ids"] for example in examples]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=PADDING)
    mask = (torch.arange(padded.shape[1]) < torch.tensor([len(t) for t in tokens])[:, None]).long()
    return {"input_ids": padded, "attention_mask": mask, "labels": padded.masked_fill(mask == 0, ignored)}
