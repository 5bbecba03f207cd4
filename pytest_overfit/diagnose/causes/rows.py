"""Rows that no gradient reaches, of tables and of layers, beside others that learn."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import IdleRows, Moves
from pytest_overfit.diagnose.operation import LOSS, Attention, Squashed
from pytest_overfit.diagnose.queries import is_declared, learning
from pytest_overfit.judge.gradients import waiting_of


def held_rows(evidence: Evidence) -> Iterator[Cause]:
    """A row of a table that the loss wants changed, and that gets a gradient of exactly zero."""
    moves = evidence.fact(Moves)
    rows = [row for row in moves.rows if not is_declared(row.parameter, evidence)] if moves is not None else []
    for row in sorted(rows, key=lambda row: (not row.alone, -row.lookups)):
        where = f"{row.parameter}[{row.row}]"
        home = row.parameter.rpartition(".")[0] or "the table"
        why = f": padding_idx={row.row} holds it" if row.padding else ""
        yield Cause(
            "zero-gradient",
            where,
            f"the batch looks up row {row.row} of {row.parameter} {row.lookups} times, the loss has a gradient for "
            f"it, and it gets one of exactly zero and never moves{why}",
            f"build {home} without padding_idx, or number what it looks up from {row.row + 1}"
            if row.padding
            else f"look for a hook or a mask on the gradient of {row.parameter}",
            evidence={"row": row.row, "lookups": row.lookups},
            certain=row.alone,
            weight=0.93,
        )
        return


def idle_parts(evidence: Evidence) -> Iterator[Cause]:
    """Heads or chunks of what an attention is given that nothing reads.

    Of other layers parts may be left over on purpose: what the last of several blocks hands on, or what is masked.
    """
    moves, stopped = evidence.fact(Moves), evidence.record.stop in ("detached", "non_finite")
    if moves is None or stopped or not evidence.learned:
        return
    # Outputs that no loss reads, as under a mask, are in the map of what is supervised.
    left_out = {p.name for p in learning(evidence)} - {*waiting_of(evidence.record), *evidence.probed.last_layers}
    homes = _attentions(evidence)
    found = [each for each in moves.idle if each.parameter in left_out and homes.intersection(_around(each.parameter))]
    if not found:
        return
    worst: IdleRows = max(found, key=lambda each: each.idle / each.rows)
    first, last = worst.run
    beside = f"; so have {len(found) - 1} other layers" if len(found) > 1 else ""
    yield Cause(
        "zero-gradient",
        f"{worst.parameter}[{first}:{last + 1}]",
        f"{worst.idle} of {worst.rows} output features of {worst.parameter}, in whole parts of {worst.unit}, have a "
        "gradient of exactly zero in every step that was looked at, and the others learn: nothing that they make "
        f"changes the loss{beside}",
        f"look at how the output of {worst.parameter.rpartition('.')[0] or worst.parameter} is split into heads or "
        "chunks, that each is read, and that an attention has more than one key; where it is meant, "
        f'allow=["zero-gradient:{worst.parameter}*"]',
        evidence={"idle": worst.idle, "rows": worst.rows},
        certain=True,
        weight=0.9,
    )


def _attentions(evidence: Evidence) -> set[str]:
    """The modules that attend, and those that they are parts of; empty text: the model itself."""
    names = [p.name for p in evidence.record.parameters]
    regions = [op.region for op, _ in evidence.ops(Attention)]
    regions += [op.region for op, softmax in evidence.ops(Squashed) if op.region != LOSS and (softmax.ranks or 0) > 2]
    parts = {name.partition(".")[0] for name in names}
    inside = [region if region.partition(".")[0] in parts else "" for region in regions]
    return {home for region in inside for home in (region, region.rpartition(".")[0])}


def _around(parameter: str) -> tuple[str, str]:
    """The layer of a parameter, and the module around it."""
    layer = parameter.rpartition(".")[0]
    return layer, layer.rpartition(".")[0]


FAMILY = Family(group="graph", order=44, rules=(held_rows, idle_parts))
