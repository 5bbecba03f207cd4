"""What is padding by the batch's own masks, and attention that reads nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

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
        ("no sample", {"tokens": TOKENS[:0], "lengths": LENGTHS[:0]}),
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


class Tagger(nn.Module):
    """Tags every token; its mask is laid over the queries, over the rows of other samples, or over the keys."""

    def __init__(self, way: str, length: int = 7) -> None:
        super().__init__()
        self.way, self.embed = way, nn.Embedding(40, 32, padding_idx=0)
        self.places, self.head = nn.Parameter(0.2 * torch.randn(length, 32)), nn.Linear(32, 4)
        if way in ("repeated", "interleaved"):
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        x, padding = self.embed(tokens) + self.places[: tokens.shape[1]], tokens == 0
        if self.way in ("repeated", "interleaved"):
            mask = padding[:, None].expand(-1, tokens.shape[1], -1)
            mask = mask.repeat(4, 1, 1) if self.way == "repeated" else mask.repeat_interleave(4, 0)
            return self.head(x + self.attention(x, x, x, attn_mask=mask)[0])  # type: ignore[no-any-return]
        if self.way == "no mask":
            return self.head(x + F.scaled_dot_product_attention(x, x, x))  # type: ignore[no-any-return]
        bias = torch.zeros(padding.shape).masked_fill(padding, -1e4)
        bias = bias[..., None] if self.way == "queries" else bias[:, None]
        return self.head(x + F.scaled_dot_product_attention(x, x, x, attn_mask=bias))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("way", "found"),
    [
        ("queries", ["input-ignored"]),
        ("repeated", ["input-ignored", "batch-mixing"]),  # it is the mask of another sample
        ("interleaved", []),
        ("keys", []),
        ("no mask", []),
    ],
)
def test_what_stands_under_a_mask_must_not_move_what_is_real(way: str, found: list[str]) -> None:
    """Where no mask was meant, nothing is said of it."""
    torch.manual_seed(0)
    tags = torch.where(PADDING, -100, torch.randint(0, 4, (4, 7)))
    result = run_overfit(
        Tagger(way),
        {"tokens": TOKENS, "tags": tags},
        lambda model, batch: F.cross_entropy(model(batch["tokens"]).mT, batch["tags"]),
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
        max_steps=200,
    )
    assert [cause.id for cause in result.causes] == found
    if found:
        assert "read the padding" in result.causes[0].observed


class Remembering(nn.Module):
    """A decoder whose queries read a memory of states before them, then each other."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.memory = way, nn.Parameter(0.3 * torch.randn(1, 5, 32))
        self.embed, self.places, self.head = nn.Embedding(40, 32), nn.Embedding(8, 32), nn.Linear(32, 40)
        self.key = nn.Linear(32, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.places.weight[: tokens.shape[1]]
        keys = self.key(torch.cat([self.memory.expand(len(x), -1, -1), x], 1))
        if self.way == "kernel":
            return self.head(x + F.scaled_dot_product_attention(x, keys, keys, is_causal=True))  # type: ignore[no-any-return]
        future = torch.ones(x.shape[1], keys.shape[1], dtype=torch.bool).triu(6 if self.way == "aligned" else 1)
        scores = (x @ keys.mT / math.sqrt(32)).masked_fill(future, float("-inf"))
        return self.head(x + scores.softmax(-1) @ keys)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("way", "found"), [("kernel", True), ("top left", True), ("aligned", False)])
def test_a_causal_mask_over_more_keys_than_queries(way: str, found: bool) -> None:
    """It has to end where the keys do."""
    torch.manual_seed(0)
    tokens = torch.randint(1, 40, (3, 8))
    result = run_overfit(
        Remembering(way),
        tokens,
        lambda model, batch: F.cross_entropy(model(batch[:, :-1]).mT, batch[:, 1:]),
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
        max_steps=300,
    )
    assert bool(result.causes) == found
    if found:
        assert result.causes[0].id == "input-ignored"
        assert "the last 5 of 12 keys are read by no query" in result.causes[0].observed


class Packing(nn.Module):
    """A decoder over rows of several documents, whose mask heeds where they end or does not."""

    def __init__(self, heeds: bool) -> None:
        super().__init__()
        self.heeds, self.embed, self.places = heeds, nn.Embedding(40, 32), nn.Embedding(9, 32)
        self.read, self.head = nn.Linear(32, 32), nn.Linear(32, 40)

    def forward(self, tokens: Tensor, position_ids: Tensor | None = None, doc_ids: Tensor | None = None) -> Tensor:
        x, length = self.embed(tokens), tokens.shape[1]
        x = x + self.places(torch.arange(length)[None] if position_ids is None else position_ids)
        doc_ids = (position_ids == 0).cumsum(1) if doc_ids is None and position_ids is not None else doc_ids
        assert doc_ids is not None
        mask = torch.ones(length, length, dtype=torch.bool).tril()[None]
        if self.heeds:
            mask = mask & (doc_ids[:, :, None] == doc_ids[:, None])
        else:
            x = x + 0.1 * doc_ids[..., None]
        read = self.read(x)
        return self.head(x + F.scaled_dot_product_attention(read, read, x, attn_mask=mask))  # type: ignore[no-any-return]


POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 0, 1, 2, 3, 4, 5]])


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize(
    "told",
    [{"position_ids": POSITIONS}, {"doc_ids": (POSITIONS == 0).cumsum(1)}, {"position_ids": POSITIONS[:1, 4:]}],
    ids=["positions", "ids", "one document a row"],
)
def test_documents_of_a_row_must_not_move_each_other(told: dict[str, Tensor], heeds: bool) -> None:
    """Where one row is one document there is nothing to be kept apart."""
    torch.manual_seed(0)
    rows, length = next(iter(told.values())).shape
    tokens = torch.randperm(40)[: rows * length].view(rows, length)
    labels = tokens.roll(-1, 1).masked_fill(F.pad(POSITIONS == 0, (0, 1), value=True)[:rows, -length:], -100)
    result = run_overfit(
        Packing(heeds),
        {"tokens": tokens, "labels": labels, **told},
        lambda model, b: F.cross_entropy(model(b["tokens"], **{k: b[k] for k in told}).mT, b["labels"]),
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
        max_steps=300,
    )
    found = ["batch-mixing"] if rows > 1 and not heeds else []
    assert [cause.id for cause in result.causes] == found
    if found:
        assert "moves the outputs of those behind it" in result.causes[0].observed


class Layer(nn.Module):
    """Attention by hand, whose heads are exchanged with the places, or viewed over them."""

    def __init__(self, viewed: bool = False) -> None:
        super().__init__()
        self.viewed, self.read, self.write = viewed, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows, places = mask.shape
        q, k, v = (
            t.reshape(rows, 2, places, 8) if self.viewed else t.reshape(rows, places, 2, 8).transpose(1, 2)
            for t in self.read(x).chunk(3, -1)
        )
        weights = (q @ k.mT / 8**0.5).masked_fill(~mask[:, None, None, :], -1e9).softmax(-1)
        made = weights @ v
        made = made.reshape(rows, places, 16) if self.viewed else made.transpose(1, 2).reshape(rows, places, 16)
        return x + self.write(made).tanh()  # type: ignore[no-any-return]


class Layers(nn.Module):
    """Two layers over tokens; ``side`` is what becomes of the mask on its way to them."""

    def __init__(self, side: Callable[[Tensor], Tensor], viewed: bool = False) -> None:
        super().__init__()
        self.side, self.viewed, self.embed = side, viewed, nn.Embedding(30, 16)
        self.places = nn.Parameter(torch.randn(7, 16))
        self.layers, self.head = nn.ModuleList([Layer(), Layer(viewed)]), nn.Linear(16, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens) + self.places[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, self.side(mask))
        return self.head((x * mask[..., None]).sum(1) if self.viewed else x[:, 0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("side", "viewed", "where"),
    [
        (lambda mask: mask.flip(1), False, "mask"),
        (lambda mask: ~mask, False, "mask"),
        (lambda mask: mask, True, "module layers.1"),
        (lambda mask: mask, False, None),
    ],
)
def test_a_mask_is_told_by_what_mends_it(side: Callable[[Tensor], Tensor], viewed: bool, where: str | None) -> None:
    """Of the other side, inverted; and the one layer of two in which padding gets through."""
    torch.manual_seed(0)
    result = run_overfit(
        lambda: Layers(side, viewed),
        {"tokens": TOKENS, "mask": ~PADDING, "kind": torch.arange(len(TOKENS)) % 3},
        lambda model, batch: F.cross_entropy(model(batch["tokens"], batch["mask"]), batch["kind"]),
        objective=0.1,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
    )
    assert [(cause.id, cause.where) for cause in result.causes][:1] == ([("input-ignored", where)] if where else [])
    assert result.passed == (where is None)
