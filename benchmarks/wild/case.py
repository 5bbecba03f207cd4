"""What a program of the wild is: everything a training run is made of, as factories.

So an operator can exchange one part, and leave the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam with torch's defaults."""
    return torch.optim.Adam(parameters, lr)


@dataclass(frozen=True)
class Program:
    """One model class of a public library, and how a user would train it on one batch.

    Attributes:
        name: ``library/class[-variant]``, such as ``transformers/BertForSequenceClassification``.
        library: the file of ``benchmarks/wild/libraries`` that it stands in.
        model: builds the model; the caller seeds torch before.
        batch: the one batch, the same at every call.
        loss: the whole forward pass and loss of the user, model and batch in, a scalar out.
        limit: what a plain loop reaches within ``steps`` (mean of the last 5 losses), with room.
        optimizer: a function of parameters and learning rate.
        given: what an honest user of this class would declare to ``run_overfit``.
        traits: what operators ask for (``ids``, ``attention_mask``, ``image``, ``graph``, ``batchnorm``, ...).
        own_call: the keyword arguments of ``run_overfit`` where a user would not call it with model, batch and loss.
    """

    name: str
    library: str
    model: Callable[[], nn.Module]
    batch: Callable[[], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    limit: float
    steps: int = 200
    lr: float = 1e-3
    optimizer: Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer] = adam
    given: Mapping[str, Any] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()
    own_call: Callable[[], dict[str, Any]] | None = None
