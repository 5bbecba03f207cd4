# mypy: disable-error-code="no-any-return"
"""Sequences: recurrent nets, transformers, language models, CTC."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.zoo.case import Setup, cases, fixed
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]
PAD, VOCABULARY = 0, 40


def sentences(count: int = 4, length: int = 12) -> Batch:
    """Random tokens (count, length) with lengths; 0 pads."""
    source = fixed()
    tokens = torch.randint(2, VOCABULARY, (count, length), generator=source)
    lengths = torch.randint(length // 2, length + 1, (count,), generator=source).sort(descending=True).values
    lengths[0] = length
    tokens[:, 0] = torch.arange(2, 2 + count)  # no two sentences begin alike: what follows can be known
    tokens[torch.arange(length) >= lengths[:, None]] = PAD
    return {"tokens": tokens, "lengths": lengths, "label": torch.randint(0, 4, (count,), generator=source)}


class Recurrent(nn.Module):
    """A recurrent net over a real-valued series, and a prediction from its last state."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], layers: int, out: int) -> None:
        super().__init__()
        self.net: nn.Module = kind(6, 48, layers, batch_first=True)
        self.head = nn.Linear(48, out)

    def forward(self, series: Tensor) -> Tensor:
        states, _ = self.net(series)
        return self.head(states[:, -1])


def lstm_forecast() -> Setup:
    """The next values of a smooth series."""
    source = fixed()
    time = torch.arange(21.0)[None, :, None]
    phase, speed = torch.rand(2, 6, 1, 6, generator=source) * 2
    series = torch.sin(3 * phase + speed * time / 2)
    return Setup(Recurrent(nn.LSTM, 1, 6), (series[:, :-1], series[:, -1]), nn.MSELoss(), optimizer=adam(3e-3))


def gru_classifier() -> Setup:
    """Two layers, class labels."""
    source = fixed()
    batch = (torch.randn(8, 16, 6, generator=source), torch.randint(0, 4, (8,), generator=source))
    return Setup(Recurrent(nn.GRU, 2, 4), batch, nn.CrossEntropyLoss(), optimizer=adam(3e-3))


class BiLSTMTagger(nn.Module):
    """One tag per token, both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 24, padding_idx=PAD)
        self.net = nn.LSTM(24, 32, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.net(self.embed(tokens))[0])


def bilstm_tagger() -> Setup:
    """Padding carries the label -100."""
    batch = sentences()
    tags = torch.randint(0, 7, batch["tokens"].shape, generator=fixed(1)).masked_fill(batch["tokens"] == PAD, -100)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["tags"].flatten())

    return Setup(BiLSTMTagger(), {"tokens": batch["tokens"], "tags": tags}, loss, optimizer=adam(5e-3))


class PackedLanguageModel(nn.Module):
    """A recurrent language model over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.net = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, VOCABULARY)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.net(packed)[0].data)


def packed_rnn_language_model() -> Setup:
    """Padding never reaches the network."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        lengths = batch["lengths"] - 1
        goal = pack_padded_sequence(batch["tokens"][:, 1:], lengths, batch_first=True, enforce_sorted=False)
        return F.cross_entropy(model(batch["tokens"][:, :-1], lengths), goal.data)

    batch = sentences()
    batch.pop("label")
    return Setup(PackedLanguageModel(), batch, loss, optimizer=adam(5e-3))


class Seq2Seq(nn.Module):
    """A GRU encoder and a GRU decoder with additive attention (Bahdanau et al., 2015), teacher forcing."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, width), nn.Embedding(VOCABULARY, width)
        self.encoder, self.decoder = nn.GRU(width, width, batch_first=True), nn.GRUCell(2 * width, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.head = nn.Linear(2 * width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, last = self.encoder(self.source(source))
        state, keys, logits = last[0], self.key(memory), []
        padding = (source == PAD)[..., None]
        for token in self.target(target).unbind(1):
            scores = self.score(torch.tanh(self.query(state)[:, None] + keys)).masked_fill(padding, -math.inf)
            context = (scores.softmax(1) * memory).sum(1)
            state = self.decoder(torch.cat([token, context], dim=1), state)
            logits.append(self.head(torch.cat([state, context], dim=1)))
        return torch.stack(logits, dim=1)


def seq2seq_attention() -> Setup:
    """Reverses sentences; the first target token begins the sentence."""
    source = sentences(3, 8)["tokens"]
    target = torch.cat([torch.ones(3, 1, dtype=torch.long), source.flip(1)], dim=1)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["source"], batch["target"][:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch["target"][:, 1:].flatten(), ignore_index=PAD)

    return Setup(Seq2Seq(), {"source": source, "target": target}, loss, optimizer=adam(5e-3))


class TemporalConvNet(nn.Module):
    """Dilated causal convolutions with residuals."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv1d(4, width, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.ConstantPad1d((2 * 2**k, 0), 0.0), nn.Conv1d(width, width, 3, dilation=2**k), nn.ReLU())
            for k in range(3)
        )
        self.head = nn.Conv1d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def tcn() -> Setup:
    """Predicts every next value of a random walk from those before."""
    walk = torch.randn(3, 4, 25, generator=fixed()).cumsum(-1) / 5
    return Setup(TemporalConvNet(), (walk[..., :-1], walk[..., 1:]), nn.MSELoss(), optimizer=adam(3e-3))


class Recogniser(nn.Module):
    """Strided convolutions and a bidirectional GRU, log probabilities (T, N, C) out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(12, 32, 3, 2, 1)
        self.net = nn.GRU(32, 32, bidirectional=True)
        self.head = nn.Linear(64, 11)

    def forward(self, spectrum: Tensor) -> Tensor:
        states, _ = self.net(F.relu(self.conv(spectrum)).permute(2, 0, 1))
        return self.head(states).log_softmax(-1)


def ctc_speech() -> Setup:
    """Labels without alignment, lengths as integers."""
    source = fixed()
    batch = {
        "spectrum": torch.randn(3, 12, 40, generator=source),
        "text": torch.randint(1, 11, (3, 6), generator=source),
        "frames": torch.tensor([20, 18, 16]),
        "letters": torch.tensor([6, 5, 4]),
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.ctc_loss(model(batch["spectrum"]), batch["text"], batch["frames"], batch["letters"])

    return Setup(Recogniser(), batch, loss, optimizer=adam(5e-3))


CASES = cases(
    "sequence", lstm_forecast, gru_classifier, bilstm_tagger, packed_rnn_language_model, seq2seq_attention, tcn,
    ctc_speech,
)  # fmt: skip
