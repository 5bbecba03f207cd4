"""A report of what failed, kept without being asked: of the last session that failed, in ``.overfit/last``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
            own = replace(document, id=f"{document.id}-{session.id[-8:]}")  # another session may write there now
            write_document(folder, own)
            ids.append(own.id)
    except OverfitError as error:
        return f"note: no report is kept of what failed: {error.where}: {error.found}", ids
    except OSError as error:
        return f"note: no report is kept of what failed: {folder}: {error.strerror}", ids
    session.kept += len(ids)
    return f"report: {(folder / first_page()).as_uri()}", ids


def publish(session: SessionState, told: Sequence[tuple[str, list[str]]], written: Iterable[str]) -> Iterator[str]:
    """Makes one report of the records of a session, of all its workers, in the place of the report before.

    Args:
        told: what ``keep`` gave of what failed to the end.
        written: ids of the records of tests that passed when they were run again, too.

    Returns:
        Its path, where it is there; what could not be written, or what the pages of it need.
    """
    writing, kept, needed = Writing(), frozenset(each for _, ids in told for each in ids), ""
    dropped = frozenset(written) - kept
    if kept and not session.is_worker:
        needed = writing.attempt("the report of what failed", lambda: _publish(session, kept, dropped), otherwise="")
    yield from dict.fromkeys(line for line, _ in told if line.startswith("note: ") or not writing.lines)
    yield from (f"note: {line}" for line in (*writing.lines, needed) if line)


def _publish(session: SessionState, kept: frozenset[str], dropped: frozenset[str]) -> str:
    """Writes it; what its pages need and what brings that, where they could not be made: all else is there."""
    from pytest_overfit.errors import OverfitError
    from pytest_overfit.report.folders import hide_from_git
    from pytest_overfit.report.publish import write_together
    from pytest_overfit.report.record.folder import read_report, remove_others

    folder = session.options.storage / FOLDER
    remove_others(folder, kept, session.id, since=session.began, dropped=dropped)
    hide_from_git(folder)
    try:
        documents = [document for document in read_report(folder) if document.id in kept]
        write_together(folder, documents, session.id, since=session.began, lang=session.options.lang)
    except OverfitError as error:
        return f"{error.found}: {error.hint}"
    return ""
