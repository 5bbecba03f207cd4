"""An observer that keeps the record of a run on disk while it goes: a run that is killed leaves what it had."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_overfit.report.record.document import Comparison, Document, State
from pytest_overfit.report.record.folder import begin_document, folder_of, write_document
from pytest_overfit.report.record.run_ids import now
from pytest_overfit.report.writing import Writing
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.columns import columns_of, curves_of
from pytest_overfit.run.observer import Observer, Pictures
from pytest_overfit.run.record import Hang, RunRecord

WRITE_SECONDS = 5.0  # between two writes of a run that goes on


class Recorder(Observer):
    """Writes ``record.json`` at the start of a run, every few seconds, and at its end.

    Args:
        report: folder of the report.
        document: what is known before the run.
        planned: steps of the whole budget.
        since: when the session began, in nanoseconds: what other sessions have written since then stays.
        writing: keeps what could not be written; the next time is another attempt.
        hide: takes out of an error's text what nobody is to see.
    """

    wants_pictures = True

    def __init__(
        self,
        report: Path,
        document: Document,
        *,
        planned: int,
        since: int = 0,
        writing: Writing | None = None,
        hide: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.report, self.document, self.planned, self.hide = report, document, planned, hide
        self.writing = writing or Writing()
        self.seed = 0
        self.pictures: dict[int, Pictures] = {}
        self._begin()
        begun = replace(document, state="running", written=now(), result=None)
        begin = partial(begin_document, report, begun, since=since)
        self.document = self.writing.attempt(f"the record in {folder_of(report, begun)}", begin, otherwise=begun)

    def of_seed(self, seed: int) -> Recorder:
        """The same recorder, for the run of another seed."""
        self.seed = seed
        self._begin()
        return self

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        self.rows.extend(rows)
        if time.monotonic() - self.written > WRITE_SECONDS:
            self._write("running", self._so_far())

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        self.val.append((step, terms))

    def on_pictures(self, pictures: Pictures) -> None:
        self.pictures[self.seed] = pictures

    def close(self) -> None:
        """Nothing is held open between two writes."""

    def end(self, verdict: OverfitResult, *, comparison: Comparison | None = None, **known: Any) -> Document:
        """Writes the verdict, and the pictures of the run that it is about."""
        names = self._pictures(verdict.record.seed)
        self.document = replace(self.document, pictures=names, comparison=comparison, **known)
        return self._write("interrupted" if verdict.interrupted else "finished", verdict)

    def broke(self, error: BaseException, *, interrupted: bool = False) -> Document:
        """Writes what was known when an error, or somebody at the keyboard, ended the run."""
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        told = self.hide("\n".join([said, *getattr(error, "__notes__", ())]))
        self.document = replace(self.document, error=told)
        known = self.document.result or (self._so_far() if self.rows else None)
        return self._write("interrupted" if interrupted else "finished", known)

    def hung(self, hang: Hang) -> Document:
        """Writes what was known when the process had to be ended."""
        self.document = replace(self.document, error=f"hung: {hang.text()}")
        return self._write("killed", self._so_far() if self.rows else None)

    def _pictures(self, seed: int) -> tuple[str, ...]:
        """Writes the pictures of one seed; their names."""
        if seed not in self.pictures:
            return ()
        folder, shown = folder_of(self.report, self.document), self.pictures[seed]
        return self.writing.attempt(f"pictures in {folder}", lambda: shown.write(folder), otherwise=())

    def _begin(self) -> None:
        self.rows: list[Mapping[str, float]] = []
        self.val: list[tuple[int, Mapping[str, float]]] = []
        self.began = self.written = time.monotonic()

    def _write(self, state: State, result: OverfitResult | None = None) -> Document:
        document = replace(self.document, state=state, written=now(), result=result)
        folder = folder_of(self.report, document)
        self.writing.attempt(f"the record in {folder}", lambda: write_document(self.report, document), otherwise=None)
        self.document, self.written = document, time.monotonic()
        return self.document

    def _so_far(self) -> OverfitResult:
        """The curves of the seed that runs now; nothing was judged yet."""
        record = RunRecord(
            name=self.document.title,
            seed=self.seed,
            device="",
            planned_steps=self.planned,
            stop="interrupted",
            seconds=time.monotonic() - self.began,
            val_steps=tuple(step for step, _ in self.val),
            val_curves=columns_of([terms for _, terms in self.val]),
            **curves_of(self.rows),
        )
        return OverfitResult(record, ())
