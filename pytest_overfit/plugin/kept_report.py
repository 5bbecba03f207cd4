"""A report of what failed, kept without being asked: of the last session that failed, in ``.overfit/last``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_overfit.plugin.state import SessionState
from pytest_overfit.report.writing import Writing

if TYPE_CHECKING:
    from pytest_overfit.report.record.document import Document

FOLDER = "last"
MOST = 20  # runs of a process: whoever breaks two hundred tests opens a few of them


def keep(session: SessionState, documents: Sequence[Document]) -> tuple[str, list[str]]:
    """Writes the records of runs that failed, in whichever process they ran; the path to open, or why there is none.

    Returns:
        That line, and the ids of the records that were written.
    """
    from pytest_overfit.errors import OverfitError
    from pytest_overfit.report.folders import refuse_unwritable
    from pytest_overfit.report.publish import first_page
    from pytest_overfit.report.record.folder import write_document

    folder, ids = session.options.storage / FOLDER, list[str]()
    try:
        refuse_unwritable(folder)
        for document in documents[: MOST - session.kept]:
            write_document(folder, document)
            ids.append(document.id)
    except OverfitError as error:
        return f"note: no report is kept of what failed: {error.where}: {error.found}", ids
    except OSError as error:
        return f"note: no report is kept of what failed: {folder}: {error.strerror}", ids
    session.kept += len(ids)
    return f"report: {(folder / first_page()).as_uri()}", ids


def publish(session: SessionState, ids: Iterable[str]) -> Sequence[str]:
    """Makes one report of the records of a session, of all its workers, in the place of the report before.

    Returns:
        Lines about what could not be written, or what the pages of it need.
    """
    writing, kept, needed = Writing(), frozenset(ids), ""
    if kept and not session.is_worker:
        needed = writing.attempt("the report of what failed", lambda: _publish(session, kept), otherwise="")
    return (*writing.lines, *([needed] if needed else []))


def _publish(session: SessionState, kept: frozenset[str]) -> str:
    """Writes it; what its pages need and what brings that, where they could not be made: all else is there."""
    from pytest_overfit.errors import OverfitError
    from pytest_overfit.report.folders import hide_from_git
    from pytest_overfit.report.publish import write_forms
    from pytest_overfit.report.record.folder import RUNS, read_report

    folder = session.options.storage / FOLDER
    for before in (folder / RUNS).iterdir():
        if before.name not in kept:
            shutil.rmtree(before, ignore_errors=True)
    hide_from_git(folder)
    try:
        write_forms(folder, read_report(folder), lang=session.options.lang)
    except OverfitError as error:
        return f"{error.found}: {error.hint}"
    return ""
