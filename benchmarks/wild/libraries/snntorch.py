"""snntorch: networks that spike, by surrogate gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import snntorch as snn
import snntorch.functional as SF
import torch
from snntorch import surrogate
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal

STEPS = 10


class Spiking(nn.Module):
    """Two layers of neurons over ten steps."""

    def __init__(self, hidden: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.hidden = nn.Linear(8, 48), nn.Linear(48, 3), hidden
        self.output = snn.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and potentials of shape (steps, batch, 3)."""
        state = self.hidden.reset_mem()
        states, last = state if isinstance(state, tuple) else (state,), self.output.reset_mem()
        spikes, potentials = [], []
        for _ in range(STEPS):
            spike, *states = self.hidden(self.first(x), *states)
            out, last = self.output(self.second(spike), last)
            spikes.append(out)
            potentials.append(last)
        return torch.stack(spikes), torch.stack(potentials)


def leaky() -> nn.Module:
    """Neurons whose potential leaks, how fast is learned."""
    return Spiking(snn.Leaky(beta=0.9, learn_beta=True, spike_grad=surrogate.fast_sigmoid()))


def synaptic() -> nn.Module:
    """Neurons with a current beside the potential."""
    return Spiking(snn.Synaptic(alpha=0.8, beta=0.9, spike_grad=surrogate.fast_sigmoid()))


def rates(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the spikes at every step."""
    loss: Tensor = SF.ce_rate_loss()(model(batch[0])[0], batch[1])
    return loss.mean()  # of one element


def counts(model: nn.Module, batch: Any) -> Tensor:
    """How many of the steps the right neuron spikes."""
    loss: Tensor = SF.mse_count_loss(correct_rate=0.8, incorrect_rate=0.1)(model(batch[0])[0], batch[1])
    return loss


def potentials(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the highest potential."""
    loss: Tensor = SF.ce_max_membrane_loss()(model(batch[0])[1], batch[1])
    return loss


def programs() -> Iterator[Program]:
    """By what is read of the last neurons."""
    traits = frozenset(["labels", "tuple", "recurrent", "spiking"])
    batch = lambda: (normal(6, 8), classes(6, 3))  # noqa: E731
    yield Program("snntorch/Leaky", "snntorch", leaky, batch, rates, 0.6, lr=1e-2, traits=traits)
    yield Program("snntorch/Leaky-potential", "snntorch", leaky, batch, potentials, 0.05, lr=1e-2, traits=traits)
    yield Program("snntorch/Synaptic", "snntorch", synaptic, batch, counts, 0.1, lr=1e-2, traits=traits)
