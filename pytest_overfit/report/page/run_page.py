"""One run as its page tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_overfit.diagnose.answers import Answer
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.page import sentences as words
from pytest_overfit.report.page.charts import Chart, chart_data, charts_of
from pytest_overfit.report.page.coverage import ModuleCoverage, by_module
from pytest_overfit.report.page.error_text import ErrorText, error_text
from pytest_overfit.report.page.images import Pictures, pictures_of
from pytest_overfit.report.page.telling import Telling, prediction_limits, telling_of
from pytest_overfit.report.record.document import Document, SettingRow
from pytest_overfit.report.record.folder import RECORD
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.settings.keywords import DEFAULT

BESIDE = (RECORD, "record.md")
NOT_ASKED_EITHER = ("not asked either: ",)


@dataclass(frozen=True)
class Fact:
    """A number that is worth to be large: what it is, its value, and what stands below it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class RunView:
    """What the template of a run reads.

    Example:
        >>> RunView(document, folder).sentence                                           # doctest: +SKIP
        'Memorised the sample in 540 of 600 steps: all 13 criteria hold.'
    """

    document: Document
    folder: Path

    @property
    def badge(self) -> words.Badge:
        return words.badge(self.document)

    @property
    def sentence(self) -> str:
        return words.sentence(self.document)

    @property
    def lead(self) -> str:
        return words.lead(self.document)

    @property
    def state(self) -> str:
        return words.STATES[self.document.state]

    @property
    def record(self) -> RunRecord | None:
        """Of several seeds that of the run that did worst."""
        return self.document.result.record if self.document.result else None

    @property
    def causes(self) -> tuple[Cause, ...]:
        return self.document.result.causes if self.document.result else ()

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What was asked of the run, and what it answered."""
        return self.document.result.answers if self.document.result else ()

    @property
    def influence(self) -> Mapping[str, Mapping[str, str]]:
        """A row per term of the loss, a cell per module that learns."""
        rows: dict[str, dict[str, str]] = {}
        for reach in self.document.result.influence if self.document.result else ():
            rows.setdefault(reach.term, {})[reach.module] = reach.text
        return rows

    @property
    def twins(self) -> tuple[TwinResult, ...]:
        return self.record.twins if self.record else ()

    @property
    def not_asked(self) -> tuple[NotAsked, ...]:
        return self.document.result.not_asked if self.document.result else ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was missed first."""
        return tuple(sorted(self.document.findings, key=lambda finding: (not finding.missed, finding.passed)))

    @property
    def missed(self) -> tuple[Finding, ...]:
        return words.missed(self.document)

    def place(self, name: str) -> str:
        """``file:line`` of what failed: of the key of a config, or of the call; empty where nobody knows."""
        return self.document.places.get(name) or self.document.places.get("", "")

    @property
    def diagnosed(self) -> bool:
        return self.document.result is not None and self.document.result.evidence is not None

    @property
    def not_named(self) -> str:
        """What stands where no cause does."""
        result = self.document.result
        open_ = ", and not everything was asked" if result is not None and result.not_asked else ""
        return f"No cause is proven, shown or observed{open_}"

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What is known of any run that made a step."""
        record = self.record
        if record is None:
            return ()
        limit, (name, margin) = words.objective_limit(self.document), words.tightest_margin(self.document)
        passed = words.steps_to_pass(self.document)
        counted = words.count(record.steps if passed is None else passed)
        facts = [
            Fact("Steps" if passed is None else "Steps to pass", counted, f"of {words.count(record.planned_steps)}"),
            Fact("Objective", words.judged_objective(self.document), limit),
            Fact("Tightest margin", "" if self.badge == "passed" else margin, name),
            Fact("Training", words.duration(words.seconds_of(self.document)), f"{record.step_ms:.3g} ms a step"),
            Fact("Diagnosis", *words.diagnosis(self.document)),
            Fact("Device", record.device, f"seed{'s'[: len(self.document.records) > 1]} {self.seeds}"),
        ]
        return tuple(fact for fact in facts if fact.value)

    @property
    def seeds(self) -> str:
        return words.seeds_text(self.document)

    @property
    def worst_of_seeds(self) -> str:
        """Which run is shown where there are several."""
        record, several = self.record, len(self.document.records) > 1
        return f"seed {record.seed}, which did worst" if record is not None and several else ""

    @cached_property
    def charts(self) -> tuple[Chart, ...]:
        return charts_of(self.document)

    @property
    def chart_data(self) -> list[dict[str, Any]]:
        return [chart_data(chart) for chart in self.charts]

    @cached_property
    def pictures(self) -> Pictures:
        return pictures_of(self.folder, self.document.pictures)

    @cached_property
    def telling(self) -> Telling | None:
        """The picture that shows what was missed."""
        return telling_of(self.document, self.pictures)

    @property
    def prediction_limits(self) -> Mapping[str, float]:
        return prediction_limits(self.document)

    @property
    def error(self) -> ErrorText:
        return error_text(self.document.error)

    @cached_property
    def modules(self) -> tuple[ModuleCoverage, ...]:
        return by_module(self.record.parameters) if self.record else ()

    @property
    def some_frozen(self) -> bool:
        return any(module.frozen_by for module in self.modules)

    @property
    def some_problem(self) -> bool:
        return any(module.problems for module in self.modules)

    @property
    def given_settings(self) -> tuple[SettingRow, ...]:
        """Those that somebody gave a value."""
        return tuple(row for row in self.document.settings if row.source != DEFAULT)

    @property
    def default_settings(self) -> tuple[SettingRow, ...]:
        return tuple(row for row in self.document.settings if row.source == DEFAULT)

    @property
    def environment(self) -> Mapping[str, str]:
        """Of the session and of the run."""
        peak = self.record.peak_mib if self.record else None
        memory = {} if peak is None else {"peak memory": f"{peak:.0f} MiB"}
        return {**self.document.environment, **(self.record.environment if self.record else {}), **memory}

    @property
    def notes(self) -> tuple[str, ...]:
        """What else has to be known; what was not asked has a list of its own."""
        result = self.document.result
        listed = {each.text() for each in self.not_asked} if self.answers else set()
        either = NOT_ASKED_EITHER if listed else ()
        notes = result.notes if result is not None else ()
        return tuple(note for note in notes if note not in listed and not note.startswith(either))

    @property
    def beside(self) -> tuple[str, ...]:
        """The files of the run that a reader may want."""
        return tuple(name for name in BESIDE if (self.folder / name).is_file())
