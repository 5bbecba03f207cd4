"""A report of what failed, kept without being asked: of the last session that failed, in ``.overfit/last``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_overfit.report.writing import Writing

if TYPE_CHECKING:
    from pytest_overfit.report.record.document import Document

FOLDER, NAME = "last", "overfit_kept_report"
MOST = 20  # runs of a session: whoever breaks two hundred tests opens a few of them
IGNORED = "*\n"  # by git: .gitignore


class KeptReport:
    """Writes the runs that failed at the end of their session, in the place of those of the session before.

    Args:
        folder: of the report; every worker of pytest-xdist has its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents: list[Document] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """What goes wrong here costs nobody more than the report."""
        Writing().attempt("the report of what failed", self._write, otherwise=None)

    def _write(self) -> None:
        from pytest_overfit.errors import OverfitError
        from pytest_overfit.errors.asking import Unanswerable
        from pytest_overfit.report.publish import write_forms
        from pytest_overfit.report.record.folder import write_document

        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        for document in self.documents:
            write_document(self.folder, document)
        (self.folder / ".gitignore").write_text(IGNORED, encoding="utf-8")
        try:
            write_forms(self.folder, self.documents)
        except OverfitError as error:  # of what the pages need: the records are there
            raise Unanswerable(str(error)) from error


def keep(config: pytest.Config, storage: Path, document: Document) -> str:
    """Takes a run that failed into the report of its session; the path to open, or a note why there is none."""
    folder = storage / FOLDER
    if worker := getattr(config, "workerinput", {}).get("workerid"):
        folder /= str(worker)
    from pytest_overfit.errors import OverfitError
    from pytest_overfit.report.folders import refuse_unwritable
    from pytest_overfit.report.publish import first_page

    plugin = config.pluginmanager.getplugin(NAME)
    if plugin is None:
        try:
            refuse_unwritable(folder)
        except OverfitError as error:
            return f"note: no report is kept of what failed: {error.where}: {error.found}"
        plugin = KeptReport(folder)
        config.pluginmanager.register(plugin, NAME)
    if len(plugin.documents) < MOST:
        plugin.documents.append(document)
    return f"report: {(folder / first_page()).as_uri()}"
