"""What is drawn of a document, as plain records: its curves, limits and marks, and what a legend switches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.page.downsample import kept_indices, plain
from pytest_overfit.report.record.document import Document
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit

Kind = Literal["training", "validation", "saved run", "twin"]
# Okabe and Ito (2008), told apart without red and green; each at 3:1 at least on the light and on the dark ground.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#3a9bd1", "#8a68bd", "#a66a5d", "#7f8c1a", "#7d8793")
MOST_GROUPS = len(COLORS)


@dataclass(frozen=True)
class Line:
    """A curve: ``steps`` from 1; None: one value for every step. ``strong`` are those that a limit is on."""

    name: str
    kind: Kind
    values: Sequence[float]
    color: str
    steps: Sequence[int] | None = None
    seed: int | None = None
    strong: bool = True


@dataclass(frozen=True)
class Bound:
    """A limit: a dashed line at ``value``."""

    name: str
    value: float
    text: str
    color: str


@dataclass(frozen=True)
class Mark:
    """The step from which a limit was met."""

    name: str
    step: int
    value: float
    text: str
    color: str
    seed: int | None = None


@dataclass(frozen=True)
class Switch:
    """An entry of the legend: the lines whose ``field`` has this value are shown or hidden by it.

    ``color`` is that of a name, ``look`` that of a kind of line. What is not ``on`` is hidden until a reader asks.
    """

    field: Literal["name", "kind", "seed"]
    value: str
    label: str
    color: str = ""
    look: str = ""
    on: bool = True


@dataclass(frozen=True)
class Chart:
    """One chart over the steps of a run; ``scale`` is that of its heights until a reader chooses the other one."""

    id: str
    title: str
    axis: str
    lines: tuple[Line, ...]
    bounds: tuple[Bound, ...] = ()
    marks: tuple[Mark, ...] = ()
    note: str = ""
    scale: Literal["log", "linear"] = "log"

    @property
    def switches(self) -> tuple[Switch, ...]:
        """Names in their colours, kinds and seeds, each where there is more than one of them."""
        names = dict.fromkeys((line.name, line.color) for line in self.lines)
        shown = {line.name for line in self.lines if line.strong or self.id != "losses"}
        kinds = dict.fromkeys([*(line.kind for line in self.lines), *(["limit"] if self.bounds else [])])
        seeds = dict.fromkeys(line.seed for line in self.lines if line.seed is not None)
        return (
            *(Switch("name", name, name, color, on=name in shown) for name, color in names if len(names) > 1),
            *(Switch("kind", kind, kind, look=kind.split()[0]) for kind in kinds if len(kinds) > 1),
            *(Switch("seed", str(seed), f"seed {seed}") for seed in seeds if len(seeds) > 1),
        )


def charts_of(document: Document) -> tuple[Chart, ...]:
    """The charts of a run: loss terms, learning rate, gradient norms; those without a number are left out."""
    if document.result is None:
        return ()
    made = (_losses(document), *_twins(document), _rates(document.records), _gradients(document.records))
    return tuple(
        chart for chart in made if any(map(math.isfinite, (value for line in chart.lines for value in line.values)))
    )


def chart_data(chart: Chart) -> dict[str, Any]:
    """A chart as the JSON that the page's script draws, thinned.

    Lines with a value for every step share ``steps``; a line with steps of its own has them beside its values.

    Example:
        >>> chart_data(Chart("rates", "Rate", "rate", (Line("lr", "training", (0.1,), "#000"),)))["steps"]
        [1]
    """
    dense = [line for line in chart.lines if line.steps is None]
    kept = kept_indices([line.values for line in dense], always=[mark.step - 1 for mark in chart.marks])
    return {
        "id": chart.id,
        "axis": chart.axis,
        "scale": chart.scale,
        "steps": [index + 1 for index in kept],
        "lines": [_line_data(line, kept) for line in chart.lines],
        "bounds": [asdict(bound) for bound in chart.bounds],
        "marks": [{**asdict(mark), "value": plain([mark.value])[0]} for mark in chart.marks],
    }


def _line_data(line: Line, kept: Sequence[int]) -> dict[str, Any]:
    said = {"name": line.name, "kind": line.kind, "color": line.color, "seed": line.seed, "strong": line.strong}
    if line.steps is None:
        return {**said, "values": plain(line.values[i] if i < len(line.values) else math.nan for i in kept)}
    own = kept_indices([line.values])
    return {**said, "steps": [line.steps[i] for i in own], "values": plain(line.values[i] for i in own)}


def _losses(document: Document) -> Chart:
    assert document.result is not None
    record = document.result.record
    colors = _colors([name for each in document.records for name in (*each.curves, *each.val_curves)])
    limited = {"objective", *document.limits}
    lines = [line for each in document.records for line in _curves(each, colors, limited, _seed(document, each))]
    if document.comparison is not None:
        for name, curve in document.comparison.curves.items():
            if name in colors:
                lines.append(Line(name, "saved run", curve.values, colors[name], curve.steps, strong=name in limited))
    bounds = tuple(
        Bound(name, value, f"{name} {limit.text()}", colors[name])
        for name, limit in document.limits.items()
        if name in colors
        for value in levels(limit, record.curves.get(name, ()))
    )
    marks = tuple(
        mark
        for run in document.result.runs or (document.result,)
        for mark in _marks(run.findings, run.record, colors, _seed(document, run.record))
    )
    names = {line.name for line in lines}
    axis = "loss" if len(names) > 1 else "".join(names)
    return Chart("losses", "Loss terms" if len(names) > 1 else "Loss", axis, tuple(lines), bounds, marks)


def _twins(document: Document) -> Iterator[Chart]:
    """The first losses of the run, and those of its twins over them."""
    assert document.result is not None
    record = document.result.record
    made = [twin for twin in record.twins if twin.curve]
    if not made:
        return
    curve = record.curves.get("objective", ())[: max(twin.first + len(twin.curve) - 1 for twin in made)]
    colors = _colors(["the run", *(twin.name for twin in made)])
    lines = [Line("the run", "training", curve, colors["the run"])]
    for twin in made:
        steps = range(twin.first, twin.first + len(twin.curve))
        lines.append(Line(twin.name, "twin", twin.curve, colors[twin.name], steps, strong=twin.outcome != "agreed"))
    yield Chart(
        "twins", "Twins", "loss", tuple(lines), note="The same run, executed otherwise: curves over each other."
    )


def _curves(record: RunRecord, colors: Mapping[str, str], limited: set[str], seed: int | None) -> Iterator[Line]:
    for name, values in record.curves.items():
        yield Line(name, "training", values, colors[name], None, seed, name in limited)
    for name, values in record.val_curves.items():
        yield Line(name, "validation", values, colors[name], record.val_steps, seed, name in limited)


def levels(limit: Limit, curve: Sequence[float]) -> Iterator[float]:
    """The numbers of a limit on the axis of its curve."""
    start = curve[: limit.window]
    scale = sum(start) / len(start) if limit.relative and start else 1.0
    if limit.relative and not (start and scale > 0):
        return
    yield from (value * scale for value in (limit.below, limit.above) if value is not None)


def _marks(
    findings: Sequence[Finding], record: RunRecord, colors: Mapping[str, str], seed: int | None
) -> Iterator[Mark]:
    for finding in findings:
        term = record.terms.get(finding.name)
        step = finding.steps_to_pass
        if term is not None and step is not None and 0 < step <= len(record.curves[term]):
            text = f"{term} within its limit since step {step}"
            yield Mark(term, step, record.curves[term][step - 1], text, colors[term], seed)


def _rates(records: Sequence[RunRecord]) -> Chart:
    """One curve: all seeds have the same schedule."""
    longest = max(records, key=lambda record: len(record.learning_rate))
    lines = [Line("learning rate", "training", longest.learning_rate, COLORS[0])]
    if len(set(longest.weight_decay)) > 1:
        lines.append(Line("weight decay", "training", longest.weight_decay, COLORS[1]))
    return Chart("rates", "Learning rate", "learning rate", tuple(lines), scale="linear")


def _gradients(records: Sequence[RunRecord]) -> Chart:
    """The largest groups of the worst run; a group without any gradient is none."""
    several = len(records) > 1
    largest = {
        name: max((value for value in norms if value == value), default=0.0)
        for record in records
        for name, norms in record.grad_norms.items()
    }
    names = sorted(largest, key=lambda name: -largest[name])[:MOST_GROUPS]
    colors = _colors([name for name in largest if name in names])
    lines = tuple(
        Line(name, "training", norms, colors[name], None, record.seed if several else None)
        for record in records
        for name, norms in record.grad_norms.items()
        if name in colors
    )
    left = len(largest) - len(names)
    note = f"The {MOST_GROUPS} largest of {len(largest)} module groups." if left > 0 else ""
    return Chart("gradients", "Gradient norms", "gradient norm", lines, note=note)


def _colors(names: Sequence[str]) -> dict[str, str]:
    ordered = list(dict.fromkeys(names))
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(ordered)}


def _seed(document: Document, record: RunRecord) -> int | None:
    return record.seed if len(document.records) > 1 else None
