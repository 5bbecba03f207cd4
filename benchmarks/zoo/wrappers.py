# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Models in a wrapper or with an unusual inside: compiled, parametrised, lazy, frozen in part, quantised."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from benchmarks.zoo.case import Setup, cases, fixed, mlp
from benchmarks.zoo.dense import ResidualMLP, classify, labelled, regress, targets
from benchmarks.zoo.vision import adam, labelled_images

Batch = dict[str, Any]


def weight_norm() -> Setup:
    """Direction and length as parameters."""
    layers = [parametrizations.weight_norm(nn.Linear(a, b)) for a, b in ((20, 128), (128, 128), (128, 5))]
    return Setup(nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]), labelled(), classify)


def spectral_norm() -> Setup:
    """Largest singular value one, its vectors updated in every forward pass in training mode."""
    layers = [parametrizations.spectral_norm(nn.Linear(a, b)) for a, b in ((20, 128), (128, 128))]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Linear(128, 5))
    return Setup(model, labelled(), classify, optimizer=adam(3e-3))


def orthogonal_weights() -> Setup:
    """A weight on the orthogonal group by its Lie algebra."""
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), parametrizations.orthogonal(nn.Linear(32, 32)), nn.ReLU())
    model.append(nn.Linear(32, 5))
    return Setup(model, labelled(), classify, optimizer=adam(5e-3))


def lazy_layers() -> Setup:
    """Layers that learn their input size in the first forward pass, not yet made."""
    model = nn.Sequential(nn.LazyConv2d(16, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.MaxPool2d(4))
    model.extend([nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(5)])
    return Setup(model, labelled_images(), classify)


def lazy_layers_made() -> Setup:
    """Lazy layers after a dry run, before the optimizer, as the documentation has it."""
    model = nn.Sequential(nn.LazyLinear(128), nn.ReLU(), nn.LazyLinear(5))
    batch = labelled()
    with torch.no_grad():
        model(batch["x"])
    return Setup(model, batch, classify, optimizer=torch.optim.Adam(model.parameters(), lr=2e-3))


def compiled() -> Setup:
    """torch.compile, traced and run eagerly."""
    return Setup(torch.compile(mlp(20, 128, 128, 5), backend="eager"), labelled(), classify)


def data_parallel() -> Setup:
    """Every parameter is called module.*."""
    return Setup(nn.DataParallel(mlp(20, 128, 128, 5)), labelled(), classify)


def quantisation_aware() -> Setup:
    """Fake quantisation of weights and activations, observers in the forward pass."""
    quant = torch.ao.quantization
    model = nn.Sequential(quant.QuantStub(), *mlp(20, 128, 128, 5), quant.DeQuantStub())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated in favour of torchao
        model.qconfig = quant.get_default_qat_qconfig("fbgemm")
        prepared = quant.prepare_qat(model.train())
    return Setup(prepared, labelled(), classify, optimizer=adam(2e-3))


@dataclass
class Output:
    """What a model that knows its loss returns."""

    loss: Tensor | None
    logits: Tensor


class OwnLoss(nn.Module):
    """Takes the labels and returns its loss next to the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(20, 128, 128, 5)

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.net(inputs)
        return Output(None if labels is None else F.cross_entropy(logits, labels), logits)


def own_loss_in_the_output() -> Setup:
    """model(**batch).loss, no loss function."""
    batch = labelled()
    return Setup(OwnLoss(), {"inputs": batch["x"], "labels": batch["y"]})


@dataclass
class Samples:
    """A batch with names."""

    features: Tensor
    label: Tensor
    names: list[str]


def dataclass_batch() -> Setup:
    """A dataclass as the batch."""
    batch = labelled()
    data = Samples(batch["x"], batch["y"], [f"sample {index}" for index in range(16)])

    def loss(model: nn.Module, batch: Samples) -> Tensor:
        return F.cross_entropy(model(batch.features), batch.label)

    return Setup(mlp(20, 128, 128, 5), data, loss)


class Pair(NamedTuple):
    """Features and targets."""

    x: Tensor
    y: Tensor


def named_tuple_batch() -> Setup:
    """A named tuple as the batch of a loss function."""

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return F.mse_loss(model(batch.x), batch.y)

    return Setup(mlp(20, 128, 128, 3), Pair(**targets()), loss)


def dropout() -> Setup:
    """Dropout of 0.1 after each hidden layer."""
    layers = [nn.Linear(20, 192), nn.ReLU(), nn.Dropout(0.1), nn.Linear(192, 192), nn.ReLU(), nn.Dropout(0.1)]
    return Setup(nn.Sequential(*layers, nn.Linear(192, 5)), labelled(), classify)


def heavy_dropout() -> Setup:
    """Dropout of one half: the loss of a step is random."""
    layers = [nn.Linear(20, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(256, 5))
    return Setup(model, labelled(), classify, settings={"stochastic": True})


class LayerDrop(ResidualMLP):
    """Every residual block is left out in a fifth of the steps (Huang et al., 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            if not self.training or torch.rand(()) >= 0.2:
                x = x + block(x)
        return self.head(x)


def layer_drop() -> Setup:
    """In a step a whole block may get no gradient."""
    return Setup(LayerDrop(), labelled(), classify, settings={"stochastic": True})


class Checkpointed(nn.Module):
    """Recomputes its hidden layer in the backward pass, so that it is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden, self.head = nn.Linear(20, 128), mlp(128, 128, 128), nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.hidden, F.relu(self.enter(x)), use_reentrant=False)
        return self.head(F.relu(x))


def activation_checkpointing() -> Setup:
    """torch.utils.checkpoint, not reentrant."""
    return Setup(Checkpointed(), labelled(), classify)


class Spectral(nn.Module):
    """Complex weights on the frequencies of a signal, as in a Fourier neural operator."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv1d(1, width, 1), nn.Conv1d(width, 1, 1)
        self.weight = nn.Parameter(torch.randn(width, width, 17, dtype=torch.cfloat) / width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        mixed = torch.einsum("bik,iok->bok", torch.fft.rfft(x), self.weight)
        return self.leave(F.gelu(x + torch.fft.irfft(mixed, n=x.shape[-1])))


def complex_weights() -> Setup:
    """A complex parameter."""
    x, y = torch.randn(2, 4, 1, 32, generator=fixed())
    return Setup(Spectral(), (x, y), nn.MSELoss(), optimizer=adam(0.01))


class Round(torch.autograd.Function):
    """Rounds, and lets the gradient pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Binarised(nn.Module):
    """A bottleneck of rounded values."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = mlp(20, 96, 24), mlp(24, 96, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(Round.apply(4 * torch.tanh(self.enter(x))))


def straight_through_rounding() -> Setup:
    """A custom autograd function; small changes of the input vanish in the rounding."""
    return Setup(Binarised(), targets(), regress, optimizer=adam(2e-3))


class SharedBlock(nn.Module):
    """One block under two names, and used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.block, self.head = nn.Linear(20, 64), mlp(64, 64, 64), nn.Linear(64, 5)
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in (self.block, self.again, self.block):
            x = x + F.relu(block(x))
        return self.head(x)


def shared_module() -> Setup:
    """Parameters with more than one name."""
    return Setup(SharedBlock(), labelled(), classify)


CASES = cases(
    "wrappers", weight_norm, spectral_norm, orthogonal_weights, lazy_layers, lazy_layers_made, compiled,
    data_parallel, quantisation_aware, own_loss_in_the_output, dataclass_batch, named_tuple_batch, dropout,
    heavy_dropout, layer_drop, activation_checkpointing, complex_weights, straight_through_rounding, shared_module,
)  # fmt: skip
