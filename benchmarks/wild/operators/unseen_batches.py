"""Held-out mistakes in what a batch is to a model, the second set: its samples, their order, their numbers.

From trackers and forums: inputs that are standardised by the whole batch, ``pe[:x.size(0)]`` of a model whose batch
comes first, ``F.normalize(x, dim=0)``, ``np.random.shuffle(x)`` without the labels, a mix-up whose labels stay as they
were, a normalisation that only the training has, seconds since 1970 among the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.held_back import _mapped, beside
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, on_output, override
from benchmarks.wild.operators.trace import leaves

UNIT: tuple[Callable[..., Tensor], ...] = (F.normalize,)


def inputs_of_samples(s: Setup, at: Site) -> list[tuple[str, Tensor]]:
    """The inputs of floating point that have a row for each sample, two rows at least, and more than one axis."""
    if at.trace.more is None or "graph" in at.program.traits:
        return []
    found = float_inputs(s, at)
    return [(path, each) for path, each in found if each.dim() > 1 and len(each) == at.trace.rows > 1]


def _changed(s: Setup, shape: torch.Size, change: Callable[[Tensor], Tensor], *, in_training: bool = False) -> None:
    """A model that changes its input before it reads it."""

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        if model.training or not in_training:
            args, kwargs = _mapped((args, kwargs), shape, change)
        return inner(*args, **kwargs)

    override(s.model, forward)


@operator("axis", "batch-mixing")
def standardised_over_batch(s: Setup, at: Site) -> str | None:
    """The model standardises its input by the mean and deviation over the samples, not over each of them."""
    found = inputs_of_samples(s, at)
    if not found:
        return None
    path, given = found[0]
    _changed(s, given.shape, lambda x: (x - x.mean(0)) / (x.std(0, unbiased=False) + 1e-3))
    return f"batch{path}: (x - x.mean(0)) / x.std(0) in forward"


@operator("axis", "batch-mixing", "input-ignored", "leak")
def positions_along_batch(s: Setup, at: Site) -> str | None:
    """An encoding of positions is added along the samples, ``pe[:x.size(0)]``, as if time came first."""
    names = at.trace.of_samples() if at.trace.more is not None else set()
    places = at.trace.places(
        lambda call: call.graph and call.below > 0 and call.name in names and len(call.went or ()) == 3
    )
    if not places or at.trace.rows < 2 or places[0].went is None or places[0].went[0] != at.trace.rows:
        return None

    def encoded(out: Tensor) -> Tensor:
        place = torch.arange(len(out), dtype=out.dtype)[:, None]
        angle = place / 10_000 ** (torch.arange(out.shape[-1], dtype=out.dtype) / out.shape[-1])
        return (
            out + torch.where(torch.arange(out.shape[-1]) % 2 == 0, angle.sin(), (angle + math.pi / 2).sin())[:, None]
        )

    on_output(s.model.get_submodule(places[0].name), encoded)
    return f"{places[0].name}: + pe[:x.size(0)]"


@operator("axis", "batch-mixing", "target-mismatch")
def unit_length_over_batch(s: Setup, at: Site) -> str | None:
    """``F.normalize(x, dim=0)``: the length of a feature over all samples is made one, not that of a sample."""
    if not _normalises(at):
        return None
    inner = s.loss

    def over_batch(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return func(x, dim=0) if x.dim() == 2 else func(x, *args, **kwargs)  # type: ignore[no-any-return]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with Exchanged(UNIT, over_batch):
            return inner(model, batch)

    s.loss = loss
    return "the model: F.normalize(x, dim=0)"


def _normalises(at: Site) -> bool:
    """Whether features (sample, channel) are brought to unit length."""
    found: list[bool] = []

    def seen(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found.append(x.dim() == 2 and x.requires_grad and len(x) == at.trace.rows)
        return func(x, *args, **kwargs)  # type: ignore[no-any-return]

    with Exchanged(UNIT, seen):
        at.program.loss(at.program.model(), at.program.batch())
    return any(found)


@operator("order", "batch-changes", "target-mismatch", "stochastic")
def shuffled_in_place(s: Setup, at: Site) -> str | None:
    """The inputs are shuffled in place in every step, ``np.random.shuffle(x)``, and the targets stay where they are."""
    found, inner = inputs_of_samples(s, at), s.loss
    if not found or all(torch.equal(each, each[:1].expand_as(each)) for each in beside(s, at)):
        return None
    path, _ = found[0]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            given = dict(leaves(batch))[path]  # a run may hold a copy
            given.copy_(given[torch.randperm(len(given))])
        return inner(model, batch)

    s.loss = loss
    return f"batch{path}: shuffled in place in every step"


@operator("order", "batch-mixing", "batch-changes", "stochastic", "target-mismatch")
def mixed_without_targets(s: Setup, at: Site) -> str | None:
    """A mix-up mixes inputs with another sample's, and the targets are not mixed with them."""
    found = inputs_of_samples(s, at)
    if not found or all(torch.equal(each, each[:1].expand_as(each)) for each in beside(s, at)):
        return None
    path, given = found[0]
    _changed(s, given.shape, lambda x: torch.lerp(x, x[torch.randperm(len(x))], torch.rand(()).to(x)), in_training=True)
    return f"batch{path}: mixed with another sample's"


@operator("mode", "mode-gap", "input-scale")
def normalised_in_training_alone(s: Setup, at: Site) -> str | None:
    """The training's transform ends in a normalisation that the evaluation's has not."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() > 1]
    if not found:
        return None
    path, given = found[0]
    _changed(s, given.shape, lambda x: (x - 0.45) / 0.225, in_training=True)
    return f"batch{path}: (x - 0.45) / 0.225 in training"


@operator("dtype", "input-ignored", "no-gradient", "degenerate-batch", "label-conflict")
def inputs_truncated(s: Setup, at: Site) -> str | None:
    """The model makes its input whole numbers, ``x.int()``: most of them are zero, and nothing between counts."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() > 1 and float(each.abs().max()) < 10]
    if not found:
        return None
    path, given = found[0]
    _changed(s, given.shape, lambda x: x.int().to(x.dtype))
    return f"batch{path}: x.int() in forward"


@operator("scale", "input-scale", counts=BREAKING)
def timestamp_among_features(s: Setup, at: Site) -> str | None:
    """One of the features is seconds since 1970, and nobody normalises it."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() in (2, 3) and each.shape[-1] > 1]
    if not found:
        return None
    path, given = found[0]
    given[..., 0].mul_(86_400).add_(1.7e9)
    return f"batch{path}[..., 0]: seconds since 1970"
