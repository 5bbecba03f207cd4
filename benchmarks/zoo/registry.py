"""Every case of the zoo, family by family."""

from __future__ import annotations

from benchmarks.zoo import (
    awkward,
    dense,
    dense_vision,
    finetuning,
    generative,
    graph_and_sets,
    losses,
    optimizers,
    sequence,
    training,
    transformers,
    vision,
    wrappers,
)
from benchmarks.zoo.case import Case

CASES: tuple[Case, ...] = (
    *dense.CASES,
    *vision.CASES,
    *dense_vision.CASES,
    *sequence.CASES,
    *transformers.CASES,
    *generative.CASES,
    *graph_and_sets.CASES,
    *losses.CASES,
    *training.CASES,
    *optimizers.CASES,
    *wrappers.CASES,
    *finetuning.CASES,
    *awkward.CASES,
)
