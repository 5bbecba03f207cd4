"""Can the decoder memorise one sentence?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tinygpt.model
import torch
from tinygpt import GPT, decode, encode
from torch import Tensor

Overfit = Callable[..., Any]


@pytest.mark.overfit(objective=0.02, seeds=[0, 1], max_steps=400)
def test_memorises_one_sentence(overfit: Overfit) -> None:
    """Two seeds, and a new decoder for each."""
    overfit()


@pytest.mark.overfit(objective=0.02, max_steps=400, keep_trained=True)
def test_says_the_sentence_again(overfit: Overfit, sentence: str) -> None:
    """From its first five characters: a limit that somebody who is no expert can read."""
    torch.manual_seed(0)
    model = GPT()
    overfit(model)
    assert decode(model.eval().generate(encode(sentence[:5]), len(sentence) - 5)) == sentence


def test_an_off_by_one_mask_is_found(overfit: Overfit, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the diagonal hidden the first token sees nothing, and its softmax is 0/0."""

    def hidden(length: int, device: torch.device) -> Tensor:
        return torch.ones(length, length, dtype=torch.bool, device=device).triu(diagonal=0)

    monkeypatch.setattr(tinygpt.model, "hidden", hidden)
    with pytest.raises(AssertionError, match=r"finite: .*not finite at step 1"):
        overfit()
