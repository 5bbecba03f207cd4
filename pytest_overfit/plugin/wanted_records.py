"""What a session makes of the records of its runs: what options, ini file and CI service ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_overfit.errors import ConfigError
from pytest_overfit.plugin.resolved_options import Options

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
ANNOTATED = "GITHUB_ACTIONS"


@dataclass(frozen=True)
class Wanted:
    """What is to become of the records; empty where nobody asked for any."""

    report: Path | None = None
    lang: str = "en"
    save: Path | None = None
    compare: Path | None = None
    allowed: Mapping[str, float] | None = None
    step_summary: Path | None = None
    annotate: bool = False

    @property
    def anything(self) -> bool:
        return any((self.report, self.save, self.compare, self.step_summary, self.annotate))


def refuse_unwritable(wanted: Wanted) -> None:
    """Looks, before anything is trained, whether the report and the saved runs can be written.

    Raises:
        OverfitError: a folder cannot be written, or what is there is no file of saved runs, or a newer one.
    """
    for folder in (wanted.report, wanted.save.parent if wanted.save else None):
        if folder is not None:
            from pytest_overfit.report import folders

            folders.refuse_unwritable(folder)
    if wanted.save is not None and wanted.save.exists():
        from pytest_overfit.report.record.saved import read_saved

        read_saved(wanted.save)


def wanted_of(options: Options) -> Wanted:
    """What the options, the ini file and the CI service ask for.

    Raises:
        ConfigError: a name of saved runs, or a limit on a change, is none.
    """
    summary = os.environ.get(STEP_SUMMARY)
    saved: dict[str, Any] = {}
    if options.save or options.compare or options.compare_fail:
        from pytest_overfit.report.record.saved import parse_allowed, path_of

        if options.compare_fail and not options.compare:
            raise ConfigError(
                f"found {options.compare_fail[0]!r} alone",
                where="--overfit-compare-fail",
                allowed="beside --overfit-compare NAME",
            )
        saved["allowed"] = parse_allowed(options.compare_fail)
        saved["save"] = path_of(options.storage, options.save) if options.save else None
        saved["compare"] = path_of(options.storage, options.compare) if options.compare else None
    return Wanted(
        report=options.report,
        lang=options.lang,
        **saved,
        step_summary=Path(summary) if summary else None,
        annotate=os.environ.get(ANNOTATED) == "true",
    )
