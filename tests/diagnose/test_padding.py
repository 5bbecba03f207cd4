"""What is padding by the batch's own masks, and attention that reads nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.padding import padding_of

LENGTHS = torch.tensor([4, 6, 3, 5])
PADDING = torch.arange(7)[None] >= LENGTHS[:, None]
TOKENS = torch.where(PADDING, 0, torch.arange(1, 29).view(4, 7))


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("True at padding", {"tokens": TOKENS, "mask": PADDING}),
        ("True at content", {"tokens": TOKENS, "mask": ~PADDING}),
        ("zeros and ones", {"tokens": TOKENS, "mask": (~PADDING).long()}),
        ("lengths", {"tokens": TOKENS, "lengths": LENGTHS}),
        ("features", {"x": torch.where(PADDING[..., None], 0.0, torch.ones(4, 7, 2)), "mask": PADDING}),
    ],
)
def test_padding_is_known_by_a_mask_and_what_it_marks(name: str, batch: dict[str, Tensor]) -> None:
    """Whichever of its values is meant."""
    found = padding_of(batch)
    assert found is not None
    assert torch.equal(found, PADDING)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("no mask", {"tokens": TOKENS}),
        ("a mask of anything", {"tokens": TOKENS, "mask": torch.arange(28).view(4, 7) % 3 == 0}),
        ("places with content", {"tokens": torch.arange(1, 29).view(4, 7), "mask": PADDING}),
        ("a value that content has too", {"tokens": TOKENS.clamp(max=1) * 0, "mask": PADDING}),
        ("a row without content", {"tokens": TOKENS * 0, "mask": torch.ones(4, 7, dtype=torch.bool)}),
    ],
)
def test_what_may_be_content_is_no_padding(name: str, batch: dict[str, Tensor]) -> None:
    """Nothing is known then."""
    assert padding_of(batch) is None


class Reader(nn.Module):
    """Self-attention with a mask, in one of three ways."""

    def __init__(self, way: str, inverted: bool) -> None:
        super().__init__()
        self.way, self.inverted = way, inverted
        self.embed, self.places = nn.Embedding(40, 32), nn.Parameter(0.2 * torch.randn(7, 32))
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True) if way == "module" else nn.Identity()
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        x = self.embed(tokens) + self.places
        left_out = ~padding if self.inverted else padding
        if self.way == "module":
            y = self.attention(x, x, x, key_padding_mask=left_out)[0]
        elif self.way == "function":
            y = F.scaled_dot_product_attention(x, x, x, attn_mask=~left_out[:, None])
        else:
            scores = (x @ x.mT / math.sqrt(32)).masked_fill(left_out[:, None], -1e9)
            y = scores.softmax(-1) @ x
        keep = (~padding)[..., None].float()
        return self.head(((x + y) * keep).sum(1) / keep.sum(1))  # type: ignore[no-any-return]


def learn(way: str, inverted: bool) -> OverfitResult:
    torch.manual_seed(0)
    batch = {"tokens": TOKENS, "padding": PADDING, "labels": torch.tensor([0, 1, 2, 0])}
    return run_overfit(
        Reader(way, inverted),
        batch,
        lambda model, batch: F.cross_entropy(model(batch["tokens"], batch["padding"]), batch["labels"]),
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
        max_steps=200,
    )


@pytest.mark.parametrize("way", ["module", "function", "by hand"])
def test_an_inverted_mask_is_found(way: str) -> None:
    """The limit is met without it; the mask the right way is not accused."""
    result = learn(way, inverted=True)
    assert result.finding("objective").passed
    assert [cause.id for cause in result.causes] == ["input-ignored"]
    assert learn(way, inverted=False).causes == ()
