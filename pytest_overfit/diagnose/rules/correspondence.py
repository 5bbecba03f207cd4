"""Predictions and targets that do not belong together: another order, another place, another range."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.rules.seen import noted
from pytest_overfit.judge.finding import number


def mismatched(evidence: Evidence) -> Iterator[Cause]:
    """What is compared is the batch's target in another order.

    Beside the target as it is, that is a mixture of samples; and predictions may come in the same other order.
    """
    ops = (*noted(evidence), *evidence.probed.ops)
    plain = {op.notes["origin"] for op in ops if op.notes.get("origin") and not op.notes.get("turned")}
    seen = dict.fromkeys(
        (op.where, op.notes["origin"], op.notes["turned"])
        for op in ops
        if op.notes.get("turned")
        and op.notes["origin"] not in plain
        and not ("sample" in op.notes["turned"] and evidence.probed.paired)
    )
    for where, key, turned in seen:
        yield Cause(
            "target-mismatch",
            where,
            f"the loss compares with {key} {turned}",
            f"compare with {key} as the batch has it",
            "shown",
            {},
            certain=True,
            weight=0.95,
        )
        return


def mispaired(evidence: Evidence) -> Iterator[Cause]:
    """A prediction is held against the answer of another sample."""
    name = evidence.probed.mispaired
    if name:
        yield Cause(
            "target-mismatch",
            f"output {name}",
            f"half of the samples got other inputs, and other rows of {name} moved than those that answer to the "
            "targets of these samples: predictions and targets are in another order",
            "bring both into one order: sort the targets as the inputs are sorted, or undo the sorting of the outputs",
            "shown",
            {},
            certain=True,
            weight=0.95,
        )


def scrambled(evidence: Evidence) -> Iterator[Cause]:
    """Classes and places of an output are mixed up by a reshape."""
    for op in (*noted(evidence), *evidence.probed.ops):
        if op.notes.get("scrambled"):
            yield Cause(
                "target-mismatch",
                op.where,
                f"an output {op.notes['scrambled']} without its axes having been exchanged: its classes do not "
                "belong to its places",
                "permute first: logits.permute(0, 2, 3, 1).reshape(-1, classes)",
                "shown",
                {},
                certain=True,
                weight=0.95,
            )
            return


def impossible_targets(evidence: Evidence) -> Iterator[Cause]:
    """Targets of a loss that takes probabilities, outside of 0..1."""
    for op in noted(evidence):
        low, high = op.numbers.get("target_low", 0.0), op.numbers.get("target_high", 0.0)
        if op.name.startswith("binary_cross_entropy") and (low < 0 or high > 1):
            yield Cause(
                "target-mismatch",
                op.where,
                f"{op.name} takes targets from 0 to 1, and gets {number(low)} to {number(high)}: it has no lower "
                "bound then",
                "map the labels to 0 and 1",
                "shown",
                {"low": low, "high": high},
                certain=True,
                weight=0.96,
            )
            return


RULES = (mismatched, mispaired, scrambled, impossible_targets)
