"""The twins of one run: written down while it trains, made when it is over."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

from pytest_overfit.errors.asking import Questions, Unanswerable
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import restored_process
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.twin_record import PORT, TwinResult, Twins
from pytest_overfit.run.update import Update
from pytest_overfit.run.watchdog import Hung
from pytest_overfit.settings.settings import OverfitSettings
from pytest_overfit.twins.course import Exchange, Recorder
from pytest_overfit.twins.elsewhere import Elsewhere, folder
from pytest_overfit.twins.resume import Checkpoint, State, resume, resumed
from pytest_overfit.twins.side import Side

# A twin -> the file of this room. The function of its name there makes one comparison, or yields a call for each.
HOMES = {
    "accumulation": "parts", "batch": "parts", "bfloat16": "switches", "float16": "switches", "fused": "switches",
    "attention": "switches", "checkpointing": "checkpointing", "compile": "switches", "device": "places",
    "workers": "places", "export": "places", "ranks": "processes", PORT: "port",
}  # fmt: skip
GRACE = 10.0  # seconds beyond the limit of a run


def with_parts(subject: Subject, settings: OverfitSettings) -> OverfitSettings:
    """The settings of a run: what some twins need asks them wherever it is given."""
    asked, parts = settings.criteria.twins or Twins(names=()), subject.twins
    needed = ("resume", parts.save), ("accumulation", parts.accumulate), (PORT, parts.port_of)
    names = (*asked.names, *(name for name, part in needed if part is not None and name not in asked.names))
    if names == asked.names:
        return settings
    given = {**settings.criteria.given, "twins": replace(asked, names=names)}
    return replace(settings, criteria=replace(settings.criteria, given=given))


def asked_twins(settings: OverfitSettings, questions: Questions) -> AskedTwins | None:
    """Who makes the twins of a run; None where none is asked for."""
    asked = settings.criteria.twins
    return AskedTwins(asked.names, asked.steps, questions) if asked else None


class AskedTwins:
    """Who writes down the first steps of a run, and makes its twins once it is over.

    Args:
        names: which twins; ``steps``: over how many steps.
        questions: keeps what could not be asked by a mistake of ours.
    """

    def __init__(self, names: Sequence[str], steps: int, questions: Questions) -> None:
        self.names, self.steps, self.questions = names, steps, questions
        self.recorder: Recorder | None = None
        self.there: list[Elsewhere] = []
        self.at_save: State = {}
        self.refused = self.nowhere = ""
        self.ranks = 1

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Around the run: no process of ours stays behind it."""
        with contextlib.ExitStack() as stack:
            try:
                self.folder = Path(stack.enter_context(folder()))
            except OSError as error:
                self.folder, self.nowhere = Path(), f"there is no folder for temporary files: {error}"
            try:
                yield
            finally:
                for there in self.there:
                    there.close()

    def watch(self, context: RunContext, subject: Subject, update: Update, *, ranks: int = 1) -> Update:
        """The update that the loop is to call; nothing has been trained yet."""
        self.ranks = ranks
        self.steps = max(1, min(self.steps, context.plan.max_steps))
        earliest = max(1, context.plan.hold_steps - 1)  # that a run can end after
        self.subject, self.done = subject, min(earliest, max(1, self.steps // 2))
        checkpoint = Checkpoint(context, subject, self.folder)
        if PORT in self.names:
            from pytest_overfit.twins.port import original_of

            original_of(context, subject)  # names that do not fit are an error at once
        if ranks > 1:  # of a model that is sharded nothing is gathered
            if "ranks" not in self.names or any(hasattr(p, "device_mesh") for p in context.task.model.parameters()):
                return update
            self.recorder = Recorder(update, context, self.steps)
            return self.recorder
        if "resume" in self.names:
            self.there += [Elsewhere(partial(resumed, context, subject)) for _ in range(2)]
        if "ranks" in self.names:
            from pytest_overfit.twins.processes import rank_of

            self.there += [Elsewhere(partial(rank_of, context, subject)) for _ in range(4)]

        def finish(made: int) -> None:
            if made == self.done and "resume" in self.names and not self.nowhere:
                questions = Questions(raising=self.questions.raising)
                with questions.asking("to save"):
                    self.at_save = checkpoint.save()
                self.refused = next((each.why for each in questions.not_asked), "")

        self.recorder = Recorder(update, context, self.steps, exchange=Exchange(finish=finish))
        return self.recorder

    def compared(self, context: RunContext, curves: Curves) -> tuple[TwinResult, ...]:
        """Every twin; the state is afterwards what it is now. Ctrl-C, and a limit of the run, leave the others out."""
        recorder, names, results = self.recorder, self.names, list[TwinResult]()
        if self.ranks > 1:
            names = tuple(name for name in names if name == "ranks" and recorder is not None)
            if others := ", ".join(name for name in self.names if name not in names):
                why = f"{self.ranks} ranks train together: ask one process"
                results.append(TwinResult(others, "not asked", why=why))
        if recorder is None or not recorder.course.losses:
            return tuple(results)
        side = Side(context, self.subject, recorder.course, curves, self.questions, self.steps, self.at_save)
        now = Snapshot()
        for thing in (context.task.model, *context.optimizers):
            now.add(thing)
        now.add_reachable(*context.callables)
        left, cut = context.watchdog.left(), ""
        with restored_process(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for name in names:
                    if cut:
                        results.append(TwinResult(name, "not asked", why=cut))
                        continue
                    try:
                        with context.watchdog.limited(left, what=f"the twin {name}", grace=GRACE):
                            results += self._asked(name, side, now)
                    except Hung as hung:
                        cut = f"out of time ({hung.hang.where})"
                        results.append(TwinResult(name, "not asked", why=cut))
                    except KeyboardInterrupt:
                        cut = curves.stop = "interrupted"
                        results.append(TwinResult(name, "not asked", why=cut))
            finally:
                now.restore()
                context.task.heard.clear()
        return tuple(dict.fromkeys(results))  # parts that cannot be asked for one reason are one line

    def _asked(self, name: str, side: Side, now: Snapshot) -> Iterator[TwinResult]:
        """The results of one twin, one for each of its parts; each begins where the run has ended."""
        parts: Any = None
        part: Callable[[], TwinResult] | None
        while True:
            questions = Questions(raising=self.questions.raising)
            result = part = None
            with questions.asking(name):
                parts = parts or iter(self._parts(name, side))
                part = next(parts, None)
                if part is None:
                    return
                side.context.tell("twin", name, side.context.watchdog.left())
                result = part()
            for each in questions.not_asked:
                if each.ours:
                    self.questions.found[each] = None
                result = TwinResult(name, "not asked", why=each.why)
            now.restore()
            if result is not None:
                yield result
            if part is None:  # which parts it has is not known
                return

    def _parts(self, name: str, side: Side) -> Iterator[Callable[[], TwinResult]]:
        if why := (name in ("resume", "ranks") and self.nowhere) or (name == "resume" and self.refused):
            raise Unanswerable(why)
        if name == "resume":
            yield partial(resume, side, self.there[:2], self.folder, self.done)
            return
        home = import_module(f"pytest_overfit.twins.{HOMES[name]}")
        if name == "ranks" and self.ranks > 1:
            yield partial(home.alone, side, self.ranks)
            return
        twin = partial(getattr(home, name), side, *((self.there[-4:], self.folder) if name == "ranks" else ()))
        if isgeneratorfunction(twin.func):
            yield from twin()
        else:
            yield twin
