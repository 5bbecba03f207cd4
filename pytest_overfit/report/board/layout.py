"""What a TensorBoard file shows besides curves: limits as lines, charts that hold both, the verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pytest_overfit.run.names import resolve_term

if TYPE_CHECKING:
    from pytest_overfit.diagnose.cause import Cause
    from pytest_overfit.judge.finding import Finding
    from pytest_overfit.run.record import RunRecord
    from pytest_overfit.settings.criteria import Limit

Layout = dict[str, dict[str, list[object]]]
NO_CAUSE = "none"
WATCH = "watch"  # what is no loss: TensorBoard sorts its tags, and opens with the first ones


class Verdict(Protocol):
    """What is read of a result."""

    @property
    def record(self) -> RunRecord: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    @property
    def causes(self) -> tuple[Cause, ...]: ...
    @property
    def passed(self) -> bool: ...
    @property
    def margin(self) -> float | None: ...
    def summary(self) -> str:
        """Everything as lines of text."""


class LimitLines:
    """The limits of a run as numbers on the axis of their curves.

    Example:
        >>> lines = LimitLines({"camera": Limit(0.001), "accuracy": Limit(above=0.9, below=1.1)})
        >>> lines.values()
        {'limits/camera': 0.001, 'limits/accuracy/below': 1.1, 'limits/accuracy/above': 0.9}

    A limit that is a share of a term's start is known once that has been seen (``see``).
    """

    def __init__(self, limits: Mapping[str, Limit]) -> None:
        self.limits = limits
        self.starts: dict[str, list[float]] = {name: [] for name, limit in limits.items() if limit.relative}

    def see(self, row: Mapping[str, float]) -> None:
        """Takes in one of the first steps."""
        for name, seen in self.starts.items():
            term = resolve_term(name, row)
            if term is not None and len(seen) < self.limits[name].window:
                seen.append(row[term])

    def values(self) -> dict[str, float]:
        """Tag -> value of every limit that is known; of a limit with two bounds there are two."""
        found: dict[str, float] = {}
        for name, limit in self.limits.items():
            unit = self._unit(name)
            bounds = {"below": limit.below, "above": limit.above}
            given = {side: bound * unit for side, bound in bounds.items() if bound is not None and unit is not None}
            for side, value in given.items():
                found[f"limits/{name}/{side}" if len(given) > 1 else f"limits/{name}"] = value
        return found

    def _unit(self, name: str) -> float | None:
        """What a bound is multiplied by: 1, or the term's mean at the start."""
        limit = self.limits[name]
        if not limit.relative:
            return 1.0
        seen = self.starts[name]
        start = sum(seen) / len(seen) if len(seen) == limit.window else 0.0
        return start if start > 0 else None


def chart_layout(limits: Mapping[str, Limit], terms: Sequence[str]) -> Layout:
    """The custom charts: every limited term with its limit, training beside validation; then rates, norms, confidence.

    Example:
        >>> chart_layout({"depth": Limit(0.01)}, ["objective", "loss_reg_depth"])["limits"]["depth"]
        ['Multiline', ['^train/loss_depth$', '^val/loss_depth$', '^watch/limits/depth(/.*)?$']]

    TensorBoard reads a tag of a chart as a regular expression.
    """
    charts: dict[str, list[object]] = {}
    for name in limits:
        term = resolve_term(name, terms)
        if term is not None:
            shown = {"objective": "loss_objective", "depth": "loss_depth"}.get(name, term)
            curves = [f"^{split}/{re.escape(shown)}$" for split in ("train", "val")]
            charts[name] = ["Multiline", [*curves, f"^{WATCH}/limits/{re.escape(name)}(/.*)?$"]]
    training: dict[str, list[object]] = {
        "learning rate": ["Multiline", [f"^{WATCH}/lr$"]],
        "weight decay": ["Multiline", [f"^{WATCH}/weight_decay$"]],
        "gradient norms": ["Multiline", [f"^{WATCH}/grad_norm/.*"]],
        "update norms": ["Multiline", [f"^{WATCH}/update_norm/.*"]],
        "confidence": ["Margin", [f"{WATCH}/confidence/{name}" for name in ("mean", "min", "max")]],
    }
    return {**({"limits": charts} if charts else {}), "training": training}


def hyperparameters(verdict: Verdict, limits: Mapping[str, Limit]) -> dict[str, str | float]:
    """How the run ended and what it was given, in the order of the columns of TensorBoard's HPARAMS page.

    Example:
        >>> hyperparameters(result, {"camera": Limit(0.001)})["verdict"]
        'missed camera, depth'
    """
    record = verdict.record
    missed = [finding.name for finding in verdict.findings if finding.missed]
    first: dict[str, str | float] = {
        "verdict": f"missed {', '.join(missed)}" if missed else ("passed" if verdict.passed else "not judged")
    }
    for name, curve in (("lr", record.learning_rate), ("weight_decay", record.weight_decay)):
        if curve:
            first[name] = max(curve)  # a schedule begins with a warm-up, whose first rate says little
    given: dict[str, str | float] = {
        **first,
        "cause": verdict.causes[0].id if verdict.causes else NO_CAUSE,
        "stop": record.stop,
        "seed": record.seed,
        "max_steps": record.planned_steps,
        "device": record.device,
        "precision": record.environment.get("precision", "float32"),
    }
    return {**given, **{f"limit {name}": limit.text() for name, limit in limits.items()}}


def verdict_metrics(verdict: Verdict) -> dict[str, float]:
    """``verdict/passed`` (1 or 0), ``verdict/steps`` and, where there is one, ``verdict/margin``.

    Example:
        >>> verdict_metrics(result)
        {'verdict/passed': 1.0, 'verdict/steps': 412.0, 'verdict/margin': 1.8}
    """
    metrics = {"verdict/passed": float(verdict.passed), "verdict/steps": float(verdict.record.steps)}
    drawable = verdict.margin is not None and math.isfinite(verdict.margin)
    return {**metrics, "verdict/margin": float(verdict.margin or 0.0)} if drawable else metrics


def code_block(text: str) -> str:
    """Text as a Markdown code block, in which nothing is markup.

    Example:
        >>> code_block("ok <b>\\n```")
        '    ok <b>\\n    ```'

    Indented and not fenced: no text can close it.
    """
    printable = (line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
                 for line in text.expandtabs().splitlines())  # fmt: skip
    return "\n".join(f"    {line}" for line in printable)
