"""What a session shows: a live progress line, and one table per run at the end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.text import criteria_table, progress_line, run_headline
from pytest_overfit.run.record import RunRecord

if TYPE_CHECKING:
    from pytest_overfit.config.schema import OverfitConfig

REFRESH_SECONDS = 0.2


@dataclass(frozen=True)
class RunNote:
    """What the summary says of a run besides its findings; plain text, so that it travels from an xdist worker."""

    headline: str
    notes: tuple[str, ...]
    board: str

    @classmethod
    def of(cls, record: RunRecord, folder: Path, note: str | None) -> RunNote:
        """``folder`` holds the runs of one name; ``note`` is set where it is not the folder that was asked for."""
        notes = (*record.notes, *((note,) if note else ()))
        return cls(run_headline(record), notes, f"tensorboard --logdir {shlex.quote(str(folder))}")


RUN = pytest.StashKey[RunNote]()


class ProgressLine:
    """An observer that rewrites one line of a terminal."""

    def __init__(self, config: pytest.Config, name: str, planned: int) -> None:
        self.reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self.capture: Any = config.pluginmanager.getplugin("capturemanager")
        self.name, self.planned = name, planned
        self.started = self.shown = time.monotonic()
        self.width = 0

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        now = time.monotonic()
        step = first + len(rows)
        if now - self.shown < REFRESH_SECONDS or not rows:
            return
        self.shown = now
        self._write(progress_line(self.name, step, self.planned, rows[-1], step / max(1e-9, now - self.started)))

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        """Validation does not show on the line."""

    def close(self) -> None:
        """Wipes the line."""
        if self.width:
            self._write("")

    def _write(self, text: str) -> None:
        writer = self.reporter._tw
        text = text[: max(20, writer.fullwidth - 1)]
        padded, self.width = text.ljust(self.width), len(text)
        with self.capture.global_and_fixture_disabled():
            writer.write("\r" + padded + ("" if text else "\r"), flush=True)


def progress_for(config: pytest.Config, run: OverfitConfig) -> list[ProgressLine]:
    """A progress line where somebody watches: a terminal, no xdist worker, not quiet."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    watched = reporter is not None and reporter.isatty and not hasattr(config, "workerinput")
    if not watched or config.getoption("verbose") < 0 or config.pluginmanager.getplugin("capturemanager") is None:
        return []
    return [ProgressLine(config, run.exp_name, run.planned_steps)]


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Puts the findings of an item onto its report, as plain values that xdist can send."""
    from pytest_overfit.checks import FINDING
    from pytest_overfit.collect import ConfigItem

    if report.when != "call" or FINDING not in item.stash or not isinstance(item, ConfigItem):
        return
    assert item.parent is not None
    run = item.parent.stash.get(RUN, None)
    report.overfit = {  # type: ignore[attr-defined]
        "title": item.nodeid.rpartition("::")[0],
        "finding": asdict(item.stash[FINDING]),
        "run": asdict(run) if run else None,
    }


def write_summary(reporter: pytest.TerminalReporter) -> None:
    """One table per config file: every criterion, the run behind them, and how to look at its curves."""
    for title, rows in _by_title(reporter).items():
        runs = [row["run"] for row in rows if row["run"]]
        findings = [Finding(**row["finding"]) for row in rows]
        reporter.section(f"overfit {title}", sep="-")
        for line in criteria_table(findings):
            reporter.write_line(line, **({"red": True} if line.startswith("FAILED") else {}))
        for line in _run_lines(runs[-1]) if runs else ():
            reporter.write_line(line)


def _run_lines(run: Mapping[str, Any]) -> Iterator[str]:
    yield str(run["headline"])
    for note in run["notes"]:
        yield f"note: {note}"
    yield str(run["board"])


def _by_title(reporter: pytest.TerminalReporter) -> dict[str, list[Mapping[str, Any]]]:
    order = (
        "config",
        "pair",
        "loader",
        "supervised",
        "constant_batch",
        "finite",
        "gradients",
        "objective",
        "camera",
        "depth",
    )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for reports in reporter.stats.values():
        for report in reports:
            row = getattr(report, "overfit", None)
            if row is not None:
                found.setdefault(row["title"], []).append(row)
    last = ("monotonic", "train_val", "prediction")

    def place(row: Mapping[str, Any]) -> int:
        name = row["finding"]["name"]
        return order.index(name) if name in order else len(order) + 1 + (last.index(name) if name in last else -1)

    return {title: sorted(rows, key=place) for title, rows in sorted(found.items())}
