"""Saved runs, and what a new run differs in: steps to pass, final losses and gradient norms, as ratios per seed."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.judge.finding import number
from pytest_overfit.report.folders import shown_path
from pytest_overfit.report.record.document import Change, Comparison, Curve, Document
from pytest_overfit.report.record.folder import write_text
from pytest_overfit.report.record.golden import CURVE, first_losses, golden_change
from pytest_overfit.report.record.json_tree import read_tree, wide_integer
from pytest_overfit.result import OverfitResult

VERSION = 1
POINTS = 200  # of a saved curve: enough to lay it over a new one
TOLERANCE = 1.25  # a ratio within it is no change
STEPS = "steps"
GRADIENT = "grad_norm"


@dataclass(frozen=True)
class SavedSeed:
    """The numbers of one run; ``steps_to_pass`` is None where it did not pass. Gradient norms are medians."""

    seed: int
    steps_to_pass: int | None
    final: Mapping[str, float]
    grad_norms: Mapping[str, float]


@dataclass(frozen=True)
class SavedRun:
    """The runs of one test, or of one config file; ``golden``: platform and seed -> the first losses, in full."""

    title: str
    call: int
    seeds: tuple[SavedSeed, ...]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    golden: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """All runs of one session under a name, as they are in ``NAME.json``."""

    name: str
    saved: str
    runs: tuple[SavedRun, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def of(self, title: str, call: int) -> SavedRun | None:
        """The runs of one test."""
        return next((run for run in self.runs if (run.title, run.call) == (title, call)), None)


def checked_name(text: str) -> str:
    """The name of saved runs: a file name on every platform.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", text):
        raise ConfigError(
            f"found {text!r}",
            where="the name of saved runs",
            allowed="letters, digits, dots, dashes and underscores, at most 80",
        )
    return text


def parse_allowed(texts: Sequence[str]) -> dict[str, float]:
    """``steps:1.5x`` as the ratio that a quantity may grow by.

    Example:
        >>> parse_allowed(["steps:1.5x", "loss_camera:2"])
        {'steps': 1.5, 'loss_camera': 2.0}

    Raises:
        ConfigError: a text has another form.
    """
    allowed = {}
    for text in texts:
        quantity, _, ratio = text.rpartition(":")
        try:
            value = float(ratio.removesuffix("x"))
        except ValueError:
            value = math.nan
        if not quantity or not (value > 0 and math.isfinite(value)):
            raise ConfigError(
                f"found {text!r}",
                where="--overfit-compare-fail",
                allowed="QUANTITY:RATIO, such as steps:1.5x, objective:2x or grad_norm:3x",
            )
        allowed[quantity] = value
    return allowed


def summarise(result: OverfitResult) -> tuple[SavedSeed, ...]:
    """The numbers of every run of a result."""
    return tuple(_seed_of(run) for run in result.runs or (result,))


def saved_of(name: str, documents: Sequence[Document], *, when: str, before: Saved | None = None) -> Saved:
    """What is to be saved of these documents; runs of other tests that the name already has are kept."""
    new = [
        SavedRun(
            *(document.title, document.call, summarise(document.result), _thinned(document.result)),
            golden={
                **(old.golden if before and (old := before.of(document.title, document.call)) else {}),
                **first_losses(document.result),
            },
            settings=document.setting_values,
        )
        for document in documents
        if document.result is not None and document.state == "finished" and document.result.findings
    ]
    places = {(run.title, run.call) for run in new}
    kept = [run for run in (before.runs if before else ()) if (run.title, run.call) not in places]
    environment = next((document.environment for document in documents), {})
    runs = sorted([*kept, *new], key=lambda run: (run.title, run.call))
    return Saved(name, when, tuple(runs), environment)


def compare(
    saved: Saved,
    title: str,
    call: int,
    result: OverfitResult,
    allowed: Mapping[str, float] | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Comparison:
    """A result against the saved runs of the same test.

    Args:
        allowed: quantity -> how many times as large it may be.
        environment: what this run ran on.
        settings: those of this run; what was saved without them has none to compare.

    Raises:
        OverfitError: a quantity of ``allowed`` is none of this run's.
    """
    then = saved.of(title, call)
    if then is None:
        guess = nearest(title, [run.title for run in saved.runs])
        like = f"; the nearest is {guess}" if guess else ""
        return Comparison(saved.name, saved.saved, note=f"{saved.name} has no run of this test{like}")
    before, after = _quantities(then.seeds), _quantities(summarise(result))
    changes = [_change(name, before[name], after[name]) for name in after if name in before]
    if CURVE in (allowed or {}):
        changes.append(golden_change(then.golden, result, (allowed or {})[CURVE]))
    for name, most in (allowed or {}).items():
        _refuse(name, {change.quantity: change for change in changes})
        changes = [replace(change, allowed=most) if change.quantity == name else change for change in changes]
    now, old = environment or {}, saved.environment
    otherwise = {name: (old[name], now[name]) for name in now if name in old and old[name] != now[name]}
    was, given = (then.settings, settings) if then.settings and settings else ({}, {})
    changed = {name: (was.get(name, ""), given.get(name, "")) for name in dict.fromkeys([*given, *was])}
    changed = {name: (old, new) for name, (old, new) in changed.items() if old != new}
    return Comparison(saved.name, saved.saved, tuple(changes), then.curves, otherwise=otherwise, settings=changed)


def _refuse(name: str, changes: Mapping[str, Change]) -> None:
    """What has no ratio cannot be limited by one."""
    found, hint = "", None
    if name not in changes:
        guess = nearest(name, [*changes])
        found, hint = f"no quantity {name!r} in this run", f"did you mean {guess!r}?" if guess else None
    elif math.isnan(changes[name].ratio):
        found = f"{name} was {number(changes[name].then)}: a ratio to it means nothing"
    if found:
        usable = [quantity for quantity, change in changes.items() if not math.isnan(change.ratio)]
        raise OverfitError(found, where="--overfit-compare-fail", allowed=", ".join(usable), hint=hint)


def path_of(storage: Path, name: str) -> Path:
    """The file of a name."""
    return storage / f"{checked_name(name)}.json"


def read_saved(path: Path) -> Saved:
    """Saved runs out of their file.

    Raises:
        OverfitError: it is not there, or no such file.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises on names that are too long
        folder = path.parent if os.path.isdir(path.parent) else None  # noqa: PTH112
        names = sorted(file.stem for file in folder.glob("*.json")) if folder else []
        raise OverfitError(
            f"nothing was saved as {path.stem!r}",
            where=shown_path(path.parent),
            allowed=f"one of {', '.join(names)}" if names else "a name that --overfit-save NAME wrote",
        )
    allowed = "what --overfit-save NAME wrote"
    try:
        found = _FILE.validate_python(read_tree(path, allowed=allowed))
    except ValidationError as error:
        raise OverfitError(error.errors()[0]["msg"], where=str(path), allowed=allowed) from None
    if found.version != VERSION:
        raise OverfitError(f"version {found.version}", where=str(path), allowed=f"version {VERSION}: save it again")
    if (wide := wide_integer(found)) is not None:
        raise OverfitError(f"{wide}: a whole number beyond 64 bits", where=path, allowed=allowed)
    for run in found.runs:
        if problem := _problem_of(run):
            raise OverfitError(f"{run.title}: {problem}", where=path, allowed=allowed)
    return found


def _problem_of(run: SavedRun) -> str:
    """What no run can have been saved with, and a comparison would take for a number."""
    seeds = [seed.seed for seed in run.seeds]
    steps = [seed.steps_to_pass for seed in run.seeds if seed.steps_to_pass is not None]
    numbers = {
        **{f"seed {seed.seed}, {name}": value for seed in run.seeds for name, value in seed.final.items()},
        **{
            f"seed {seed.seed}, {GRADIENT}/{name}": value
            for seed in run.seeds
            for name, value in seed.grad_norms.items()
        },
        **{
            f"the curve of {name}": value for name, curve in run.curves.items() for value in curve.values if _odd(value)
        },
    }
    odd = [f"{name} is {value}" for name, value in numbers.items() if _odd(value)]
    uneven = [name for name, curve in run.curves.items() if len(curve.steps) != len(curve.values)]
    if not seeds or len({*seeds}) < len(seeds):
        return "no seed" if not seeds else "one seed twice"
    if min(steps, default=1) < 1:
        return f"{min(steps)} steps to pass"
    return odd[0] if odd else f"a curve of {uneven[0]} with more steps than values, or fewer" if uneven else ""


def _odd(value: float) -> bool:
    return not math.isfinite(value)


def write_saved(path: Path, saved: Saved) -> Path:
    """Writes saved runs as a whole; meant to be committed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, _FILE.dump_json(saved, indent=1).decode() + "\n")


_FILE = TypeAdapter(Saved)


def _seed_of(result: OverfitResult) -> SavedSeed:
    record = result.record
    steps = [finding.steps_to_pass for finding in result.findings if finding.steps_to_pass is not None]
    return SavedSeed(
        seed=record.seed,
        steps_to_pass=max(steps) if result.passed and steps else None,
        final={name: curve[-1] for name, curve in record.curves.items() if curve and math.isfinite(curve[-1])},
        grad_norms={
            name: statistics.median(curve)
            for name, curve in record.grad_norms.items()
            if curve and all(map(math.isfinite, curve))
        },
    )


def _thinned(result: OverfitResult | None) -> dict[str, Curve]:
    if result is None:
        return {}
    found = {}
    for name, curve in result.record.curves.items():
        count = len(curve)
        places = sorted({round(i * (count - 1) / max(1, POINTS - 1)) for i in range(min(POINTS, count))})
        kept = [i for i in places if math.isfinite(curve[i])]
        found[name] = Curve(tuple(i + 1 for i in kept), tuple(float(f"{curve[i]:.6g}") for i in kept))
    return found


def _quantities(seeds: Sequence[SavedSeed]) -> dict[str, dict[int, float]]:
    """Quantity -> seed -> value."""
    found: dict[str, dict[int, float]] = {
        STEPS: {s.seed: math.inf if s.steps_to_pass is None else float(s.steps_to_pass) for s in seeds}
    }
    for seed in seeds:
        for name, value in seed.final.items():
            found.setdefault(name, {})[seed.seed] = value
        if seed.grad_norms:
            total = math.hypot(*seed.grad_norms.values())
            found.setdefault(GRADIENT, {})[seed.seed] = total
        for name, value in seed.grad_norms.items():
            found.setdefault(f"{GRADIENT}/{name}", {})[seed.seed] = value
    return found


def _change(quantity: str, before: Mapping[int, float], after: Mapping[int, float]) -> Change:
    both = sorted(before.keys() & after.keys())
    then, now = statistics.median(before.values()), statistics.median(after.values())
    ratios = [_ratio(before[seed], after[seed]) for seed in both] or [_ratio(then, now)]
    low, high = min(ratios), max(ratios)
    moved = low > TOLERANCE or high < 1 / TOLERANCE
    return Change(quantity, then, now, statistics.median(ratios), (low, high), len(both), moved)


def _ratio(then: float, now: float) -> float:
    """Now over then; of a number that is not above zero there is no ratio: 1 where it stayed, else infinite."""
    if then == now:
        return 1.0
    if not (then > 0 and now > 0):
        return math.nan if math.isnan(then) or math.isnan(now) or then <= 0 else 0.0
    return now / then
