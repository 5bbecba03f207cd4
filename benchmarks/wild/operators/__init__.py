"""The operators: mistakes that are put into programs by a program.

They come from studies of what goes wrong in training code, and from trackers: the mutation operators of DeepCrime and
DeepMutation, the silent errors that TrainCheck reproduces, the fault taxonomies behind them, DEForm's operators for
attention, and issues of public repositories such as labels that are shifted twice or a mask of zeros. Left out is what
no run on one batch can show: labels that belong to other inputs from the start, a fixed permutation of channels, a
nonlinearity that is missing.
"""

from __future__ import annotations

from benchmarks.wild.operators import (
    architecture,
    data,
    eighth_layers,
    eighth_steps,
    fifth_batches,
    fifth_layers,
    fifth_losses,
    fifth_steps,
    fourth,
    fourth_steps,
    graph,
    held_back,
    held_back_training,
    later,
    loop,
    losses,
    masks,
    optimizers,
    seventh_layers,
    seventh_losses,
    seventh_starts,
    seventh_steps,
    sixth_copies,
    sixth_layers,
    sixth_starts,
    sixth_steps,
    third_batches,
    third_layers,
    third_losses,
    third_steps,
    unseen_attention,
    unseen_batches,
    unseen_layers,
    unseen_losses,
    unseen_steps,
)
from benchmarks.wild.operators.operator import Operator

MODULES = (
    loop, optimizers, graph, losses, architecture, masks, data, later, held_back, held_back_training, unseen_steps,
    unseen_losses, unseen_layers, unseen_attention, unseen_batches, third_steps, third_losses, third_layers,
    third_batches, fourth_steps, fourth, fifth_losses, fifth_layers,
    fifth_batches, fifth_steps, sixth_copies, sixth_starts, sixth_layers, sixth_steps, seventh_losses, seventh_layers,
    seventh_starts, seventh_steps, eighth_layers, eighth_steps,
)  # fmt: skip
OPERATORS: tuple[Operator, ...] = tuple(
    each for module in MODULES for each in vars(module).values() if isinstance(each, Operator)
)
BY_ID: dict[str, Operator] = {each.id: each for each in OPERATORS}
