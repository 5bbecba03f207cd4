"""Every form of a report that is made of its records: pages, experiment records, the schema, the summary."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.ci.summary import summary_markdown
from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import (
    RECORD,
    RUNS,
    beside,
    folder_of,
    in_turn,
    latest_session,
    others,
    read_document,
    read_report,
    write_document,
    write_schema,
    write_text,
)

GROUP = "pytest_overfit.forms"
PAGES_NEED = ("jinja2", "bokeh")
PAGES_COME_BY = 'pip install "pytest-overfit[pages]"'


def write_forms(report: Path, documents: Sequence[Document], *, lang: str = "en", notes: Sequence[str] = ()) -> Path:
    """Writes every form beside the records and returns the page to open first.

    Records of other sessions in the folder are left as they are, and counted. Forms of other packages are functions
    ``write(report, documents, *, lang)``, named by entry points of the group ``pytest_overfit.forms``; they come last.

    Args:
        notes: what is told of the session beside its runs.

    Example:
        >>> write_forms(Path("overfit_report"), read_report(Path("overfit_report")))     # doctest: +SKIP
        PosixPath('overfit_report/index.html')

    Raises:
        OverfitError: what the pages need is not installed; every other form has been written.
    """
    report.mkdir(parents=True, exist_ok=True)
    write_schema(report)
    for document in documents:
        write_text(folder_of(report, document) / "record.md", experiment_record(document, lang))
    if left := others(report, documents):
        notes = (*notes, f"Not shown: {left} record{'' if left == 1 else 's'} of other sessions, in {RUNS}/.")
    write_text(report / "summary.md", summary_markdown(documents, notes=notes, lang=lang))
    missing = pages_need()
    if not missing:
        from pytest_overfit.report.page.write import write_pages

        write_pages(report, documents, lang=lang, notes=notes)
    for form in entry_points(group=GROUP):
        form.load()(report, documents, lang=lang)
    if missing:
        raise OverfitError(
            missing,
            where=str(report),
            allowed="records and summary.md, which are written",
            hint=PAGES_COME_BY,
        )
    return report / "index.html"


def write_together(
    report: Path, documents: Sequence[Document], session: str, *, since: int, lang: str, notes: Sequence[str] = ()
) -> None:
    """Every form, of these runs and of those of sessions that write into the same folder at the same time.

    Args:
        session: that of the documents.
        since: when it began, in nanoseconds.
    """
    with in_turn(report):
        others = beside(report, {document.id for document in documents}, session, since=since)
        write_forms(report, (*documents, *others), lang=lang, notes=notes)


def pages_need() -> str:
    """What pages need and is not there, as a sentence; empty where they can be written."""
    missing = [name for name in PAGES_NEED if find_spec(name) is None]
    if not missing:
        return ""
    return f"pages need {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"


def first_page() -> str:
    """The name of the file of a report to open first: the page, where what pages need is installed."""
    return "index.html" if all(map(find_spec, PAGES_NEED)) else "summary.md"


def render_again(path: Path, *, output: Path | None = None, lang: str = "en") -> tuple[Path, tuple[Document, ...]]:
    """Every form again, of the folder of a report or of one record of it; returns the page to open first.

    Args:
        path: a ``record.json``, its folder, or the folder of a whole report, whose last session is taken.
        output: another folder to write to, records and pictures included; None: where the records are.

    Raises:
        OverfitError: there is no record, one is broken, or the folder cannot be written.
    """
    source, documents = _found(path)
    report = output or source
    if report is None:
        raise OverfitError(
            "a record outside of a report", where=str(path), allowed="a folder to write to", hint="add --output DIR"
        )
    try:
        for document in documents if output else ():
            write_document(report, document)
            for name in document.pictures:
                picture = (path if path.is_dir() else path.parent) / name
                picture = picture if source is None else folder_of(source, document) / name
                if picture.is_file():
                    shutil.copyfile(picture, folder_of(report, document) / name)
        return write_forms(report, documents, lang=lang), documents
    except OSError as error:
        told = error.strerror or str(error)
        raise OverfitError(told, where=str(report), allowed="a folder that can be written") from None


def _found(path: Path) -> tuple[Path | None, tuple[Document, ...]]:
    """The folder of the report, and the documents that are asked for."""
    if path.is_dir() and not (path / RECORD).is_file():
        documents = latest_session(read_report(path))
        if not documents:
            raise OverfitError("no record", where=str(path), allowed="what `pytest --overfit-report DIR` wrote")
        return path, documents
    document = read_document(path)
    folder = path if path.is_dir() else path.parent
    within = folder.name == document.id and folder.parent.name == RUNS
    return (folder.parent.parent if within else None), (document,)
