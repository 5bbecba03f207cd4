"""The numbers that one looks at first when a run fails: the batch, the loss terms, the gradients.

Pure text of what a result holds already; nothing is computed from the model or the batch here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pytest_overfit.diagnose.evidence import Evidence, Tensor
from pytest_overfit.diagnose.padded import Packed
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.monotonic import MONOTONIC, judge_monotonic
from pytest_overfit.run.record import ParameterRecord, RunRecord
from pytest_overfit.run.supervision_record import LabelsTaught
from pytest_overfit.text.terminal_width import columns, padded
from pytest_overfit.text.translations import translated, words

MOST_TENSORS, MOST_TERMS, MOST_GRADIENTS = 10, 10, 6
MOST_OUTPUTS, MOST_LABELS = 2, 6
MOST_PARTS = 12  # terms whose sums are tried
SAME_SUM = 1e-3
LEAST_WIDTH = 60


class Ran(Protocol):
    """A result: what happened, and what was seen on the way."""

    @property
    def record(self) -> RunRecord: ...

    @property
    def evidence(self) -> Evidence | None: ...


def debug_lines(result: Ran, *, width: int = 100, lang: str = "en") -> list[str]:
    """Batch keys, valid depth, the loss terms and the gradients of a run, aligned, none wider than ``width``.

    Example:
        >>> print("\\n".join(debug_lines(result)))                                   # doctest: +SKIP
        batch     shape  dtype    min     max    mean
          0       8x4    float32  -1.283  1.284  0.05211  input
          1       8x1    float32  -1.97   2.01   0.1372   target
        counts as a whole: output
        losses       first   best    at step  last
          objective  0.9032  0.8611  60       0.8611
        trend: 1 falling, largest climb 0%
        gradients: largest norm of each of 4 parameters
          2.bias    1.201
          2.weight  0.8833
          0.weight  0.1068
          0.bias    0.09914

    Minimum, maximum and mean of a very large tensor are those of evenly spread elements. ``best`` is the lowest value
    of a term (the highest of one that has to rise), ``share`` what a term gives to the objective at the last step, as
    part of all that is added up; it is shown where the terms and their weights do add up to the objective.
    """
    record, evidence = result.record, result.evidence
    tensors, packed = ((), None) if evidence is None else (evidence.probed.tensors, evidence.probed.packed)
    lines = [
        *_batch_lines(tensors, packed, lang),
        *_depth_lines(record),
        *_taught_lines(record),
        *_loss_lines(record, evidence, lang),
        *_gradient_lines(record.parameters, max(LEAST_WIDTH, width)),
        *_slope_lines(evidence),
    ]
    said = (translated(line, lang) for line in lines)
    return [line if columns(line) <= width else _cut(line, width) for line in said]


def _cut(line: str, width: int) -> str:
    """Whole words, and dots that stand apart: behind a number they would look like more of its digits."""
    cut = line
    while columns(cut) > width - 4:
        cut = cut[:-1]
    whole = cut if line[len(cut)] == " " else cut[: cut.rfind(" ")] if " " in cut.strip() else cut
    return f"{whole.rstrip()} ..."


def _batch_lines(tensors: Sequence[Tensor], packed: Packed | None, lang: str) -> Iterator[str]:
    if not tensors:
        return
    head = ("batch", "shape", "dtype", "min", "max", "mean")
    rows = [(*(words(lang)[f"numbers_{name}"] for name in head), "")]
    for tensor in tensors[:MOST_TENSORS]:
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        numbers = (number(tensor.low), number(tensor.high), number(tensor.mean))
        rows.append((f"  {tensor.key}", shape, tensor.dtype, *numbers, _told(tensor, packed, lang)))
    yield from _aligned(rows)
    if len(tensors) > MOST_TENSORS:
        yield f"  and {shorten(tensor.key for tensor in tensors[MOST_TENSORS:])}"


def _told(tensor: Tensor, packed: Packed | None, lang: str) -> str:
    if not tensor.finite:
        return translated(f"NOT FINITE at {list(tensor.bad_at or ())}", lang)
    name, kind = tensor.key.rpartition(".")[2], "input" if tensor.is_input else "target" if tensor.is_target else ""
    parts = [words(lang)[f"numbers_{kind}"]] if kind else []
    if packed is not None and packed.told == name:
        parts.append(translated(f"{packed.documents} documents in a row", lang))
    elif "mask" in name and tensor.low >= 0 and tensor.high <= 1:
        parts.append(translated(f"a mask of {tensor.mean:.0%}", lang))
    return ", ".join(parts)


def _depth_lines(record: RunRecord) -> Iterator[str]:
    frames = record.supervision.frames if record.supervision else ()
    if frames:
        shares = (f"frame {f.frame} {100 * f.valid / max(1, f.total):.1f} % of {f.total} pixels" for f in frames)
        yield f"valid depth: {', '.join(shares)}"


def _taught_lines(record: RunRecord) -> Iterator[str]:
    """The supervision map of the objective: the outputs that count as a whole, and how much of the others does."""
    taught = [each for each in record.supervision.taught if each.term == "objective"] if record.supervision else []
    whole, partly = [each.output for each in taught if each.whole], [each for each in taught if not each.whole]
    if whole:
        yield f"counts as a whole: {shorten(whole)}"
    for each in [each for each in partly if each.labels is not None][:MOST_OUTPUTS]:
        yield f"counts in part: {each.text()}; {_labels_told(each.labels)}"
    rest = [f"{each.output} {each.counted} of {each.places}" for each in partly if each.labels is None]
    if rest:
        yield f"counts in part: {shorten(rest)}"


def _labels_told(labels: LabelsTaught | None) -> str:
    if labels is None:
        return ""
    counted = ", ".join(f"{label} {count}" for label, count in itertools.islice(labels.counted.items(), MOST_LABELS))
    more = f", ... ({labels.values} labels)" if labels.values > MOST_LABELS else ""
    left_out = ", ".join(f"{label} ({count})" for label, count in labels.left_out.items())
    return f"{labels.key}: {counted}{more}" + (f"; not {left_out}" if left_out else "")


def _loss_lines(record: RunRecord, evidence: Evidence | None, lang: str) -> Iterator[str]:
    curves = {name: curve for name, curve in record.curves.items() if curve}
    if not curves:
        yield "losses: no step was made"
        return
    shares, rising = shares_of_objective(curves, evidence), _rising(evidence)
    head = ("losses", "first", "best", "step", "last", "share")
    rows = [tuple(words(lang)[f"numbers_{name}"] if name != "share" or shares else "" for name in head)]
    for name, curve in itertools.islice(curves.items(), MOST_TERMS):
        best, step = _best(curve, rising=name in rising)
        share = f"{100 * shares[name]:.1f} %" if name in shares else ""
        rows.append((f"  {name}", number(curve[0]), number(best), str(step), number(curve[-1]), share))
    yield from _aligned(rows)
    if len(curves) > MOST_TERMS:
        yield f"  and {shorten(list(curves)[MOST_TERMS:])}"
    limits = {name: limit for name, limit in (evidence.limits if evidence else {}).items() if limit.below is not None}
    judged = evidence is not None and any(finding.name == MONOTONIC.name for finding in evidence.findings)
    if any(map(record.terms.get, limits)) and record.steps > 1 and not judged:
        yield f"trend: {judge_monotonic(record, MONOTONIC.setting, limits).observed}"


def shares_of_objective(curves: Mapping[str, Sequence[float]], evidence: Evidence | None) -> dict[str, float]:
    """What every weighted term gives to the objective at the last step, as a part of all that is added up.

    A term may be a sum of others; empty where no choice of terms adds up to the objective at the first and the last
    step.

    Example:
        >>> curves = {"objective": (5.0, 0.5), "loss_camera": (0.8, 0.08), "loss_depth": (1.0, 0.1)}
        >>> shares_of_objective(curves, evidence)                 # camera has a weight of 5   # doctest: +SKIP
        {'loss_camera': 0.8, 'loss_depth': 0.2}
    """
    objective = curves.get("objective", ())
    known = evidence.probed.terms if evidence else ()
    weights = {term.name: term.weight for term in known if term.weight is not None and term.name in curves}
    if not objective or not weights or len(weights) > MOST_PARTS:
        return {}
    parts = {name: tuple(weight * curves[name][at] for at in (0, -1)) for name, weight in weights.items()}
    for count in range(len(parts), 0, -1):
        for names in itertools.combinations(parts, count):
            if all(_adds_up([parts[name][at] for name in names], objective[at]) for at in (0, -1)):
                size = math.fsum(abs(parts[name][-1]) for name in names)
                return {name: abs(part[-1]) / size for name, part in parts.items()} if size > 0 else {}
    return {}


def _adds_up(parts: Sequence[float], total: float) -> bool:
    size = math.fsum(map(abs, parts))
    return math.isfinite(size) and abs(math.fsum(parts) - total) <= SAME_SUM * max(size, abs(total))


def _rising(evidence: Evidence | None) -> set[str | None]:
    """The terms that have to get above their limit."""
    if evidence is None:
        return set()
    return {evidence.record.terms.get(name) for name, limit in evidence.limits.items() if limit.below is None}


def _best(curve: Sequence[float], *, rising: bool) -> tuple[float, int]:
    """The best value and its step, from 1; a NaN is never the best while there is a number."""
    worst = -math.inf if rising else math.inf
    values = [worst if math.isnan(value) else value for value in curve]
    index = (
        max(range(len(values)), key=values.__getitem__) if rising else min(range(len(values)), key=values.__getitem__)
    )
    return curve[index], index + 1


def _gradient_lines(parameters: Sequence[ParameterRecord], width: int) -> Iterator[str]:
    if not parameters:
        return
    seen = [p for p in parameters if p.max_grad is not None]
    ordered = sorted(seen, key=lambda p: -math.inf if math.isnan(p.max_grad or 0.0) else -(p.max_grad or 0.0))
    largest, rest = ordered[:MOST_GRADIENTS], ordered[MOST_GRADIENTS:]
    smallest = rest[-MOST_GRADIENTS:][::-1]
    if ordered:
        ends = "" if not smallest else f": {len(largest)} largest, {len(smallest)} smallest"
        yield f"gradients: largest norm of each of {len(ordered)} parameters{ends}"
        room = (width - 2 * len("  -1.234e-05  ")) // (2 if smallest else 1)
        left, right = _columns(largest, room), _columns(smallest, room)
        for ours, theirs in itertools.zip_longest(left, right, fillvalue=""):
            yield f"  {ours:{max(map(len, left))}}  {theirs}".rstrip()
        if len(rest) > len(smallest):
            yield f"  and {len(rest) - len(smallest)} between"
    without = [p for p in parameters if p.max_grad is None]
    if none := [_with_reason(p) for p in without if p.in_optimizer or not p.trainable]:
        yield f"no gradient at all ({len(none)} of {len(parameters)}): {shorten(none)}"
    if left := [p.name for p in without if p.trainable and not p.in_optimizer]:
        yield f"in no optimizer ({len(left)} of {len(parameters)}): {shorten(left)}"


def _slope_lines(evidence: Evidence | None) -> Iterator[str]:
    """What reaches the optimizers of a step of the user's, beside the slope of what it reports."""
    found = None if evidence is None else evidence.probed.agreement
    for slope in found.slopes if found else ():
        told = f"{number(slope.gradient)}, slope of the objective along it: {number(slope.measured)}"
        yield f"gradient that reaches {slope.where}: {told}"


def _columns(parameters: Sequence[ParameterRecord], room: int) -> list[str]:
    """Names and norms; of a name that is too long the end is kept, which tells it from its neighbours."""
    names = [p.name if len(p.name) <= room else f"...{p.name[-(room - 3) :]}" for p in parameters]
    norms = [number(p.max_grad or 0.0) for p in parameters]
    return _aligned(list(zip(names, norms, strict=True)))


def _with_reason(parameter: ParameterRecord) -> str:
    if parameter.frozen_by:
        return f"{parameter.name} (frozen by {parameter.frozen_by})"
    return parameter.name if parameter.trainable else f"{parameter.name} (not trainable)"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows whose columns begin at the same place."""
    if not rows:
        return []
    widths = [max(columns(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(padded(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
