"""What may be looked at and tuned on, and what is kept back: operators by kind, libraries one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from benchmarks.wild.operators import OPERATORS
from benchmarks.wild.operators.operator import Operator

Part = Literal["tuned", "held-out"]
PARTS: tuple[Part, ...] = ("tuned", "held-out")
OPERATORS_BY, LIBRARIES_BY = 15, 0  # the seeds; of the second 0 gives both parts half of the programs, of every trait
# held-out operators and libraries that somebody had to look into
LOOKED_AT = frozenset({
    "transformers", "peft", "diffusers", "noise_left_on",
    "segmentation_models_pytorch", "lightly", "snntorch", "stable_baselines3", "torchdiffeq",
    "spikingjelly", "axial_attention", "st_moe_pytorch", "entmax",
    "loss_divided", "inputs_not_normalised", "logits_cooled",
    "target_is_another_input", "batch_first_swapped", "gradient_reversed",
    "mask_inverted", "causal_mask_forgotten", "causal_mask_transposed", "mask_of_another_sample",
    "decay_huge", "rate_too_low", "epsilon_huge", "betas_swapped",
})  # fmt: skip
# operators that were written later: held out all of them, so that they move none of those before them
LATER = frozenset({
    "steps_only_at_first", "gradient_reversed", "betas_swapped", "weights_in_bfloat16", "dropout_on_output",
    "parameter_rewrapped", "outputs_reversed", "inputs_of_first_for_all", "mask_of_another_sample",
    "normalised_over_time", "logits_cooled",
})  # fmt: skip


def _rank(name: str, seed: int = OPERATORS_BY) -> int:
    return int(hashlib.sha256(f"{seed} {name}".encode()).hexdigest()[:8], 16)


def part_of_library(library: str) -> Part:
    """By its name alone, so that a library that is added later moves no other one."""
    return "held-out" if _rank(library, LIBRARIES_BY) % 2 and library not in LOOKED_AT else "tuned"


def parts_of_operators(operators: Iterable[Operator] = OPERATORS) -> dict[str, Part]:
    """Half of each kind by a seeded order; of an odd number the kind's name decides which half is the larger."""
    by_kind: dict[str, list[str]] = {}
    parts: dict[str, Part] = {}
    for each in operators:
        if each.id in LATER:
            parts[each.id] = "tuned" if each.id in LOOKED_AT else "held-out"
        else:
            by_kind.setdefault(each.kind, []).append(each.id)
    for kind, ids in by_kind.items():
        ordered = sorted(ids, key=_rank)
        half = (len(ordered) + _rank(kind) % 2) // 2
        for place, name in enumerate(ordered):
            parts[name] = "held-out" if place < half and name not in LOOKED_AT else "tuned"
    return parts
