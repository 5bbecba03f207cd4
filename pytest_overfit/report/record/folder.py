"""The folder of a report: one folder per run below ``runs/``, with its record and pictures, and the pages beside them.

```
DIR/index.html  summary.md  schema.json  assets/
DIR/runs/<id>/record.json  record.md  index.html  frame_0_image.png ...
```
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.record.codec import from_json, json_schema, to_json
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.json_tree import MOST_BYTES
from pytest_overfit.report.record.session_ids import is_running
from pytest_overfit.untrusted.files import read_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RECORD, SCHEMA, RUNS = "record.json", "schema.json", "runs"
SESSION = re.compile(rb'"session": ?"([^"\\]*)"')
MOST_SECONDS, POLL_SECONDS = 60.0, 0.05  # to wait for the turn of another session


def folder_of(report: Path, document: Document) -> Path:
    """Where the record and the pictures of a run are."""
    return report / RUNS / document.id


def write_document(report: Path, document: Document) -> Path:
    """Writes the record of a run; whoever reads it meets the old one or the new one, never half of one.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = folder_of(report, document)
    folder.mkdir(parents=True, exist_ok=True)
    return write_text(folder / RECORD, to_json(document))


def begin_document(report: Path, document: Document, *, since: int) -> Document:
    """Writes a record for the first time: over that of an earlier session, beside that of one that goes on too.

    Args:
        since: when the session of the document began, in nanoseconds.

    Returns:
        The document, whose id may have got a number.

    Raises:
        OSError: the folder cannot be written.
    """
    with in_turn(report):
        numbered = itertools.chain((document.id,), (f"{document.id}.{number}" for number in itertools.count(2)))
        name = next(each for each in numbered if not _goes_on(report / RUNS / each / RECORD, document.session, since))
        begun = replace(document, id=name)
        write_document(report, begun)
    return begun


@contextmanager
def in_turn(report: Path) -> Iterator[None]:
    """Sessions that write into one folder take turns for what is of all of them, where its file system has locks.

    Raises:
        OSError: the folder cannot be made.
    """
    report.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    folder, end = os.open(report, os.O_RDONLY), time.monotonic() + MOST_SECONDS
    try:
        with suppress(OSError):
            while time.monotonic() < end:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(folder)


def beside(report: Path, shown: Container[str], session: str, *, since: int) -> tuple[Document, ...]:
    """The records of sessions that go on at the same time as this one; what cannot be read is left out.

    Args:
        shown: ids of the records that are known.
    """
    found = list[Document]()
    for path in _records(report):
        if path.parent.name not in shown and _goes_on(path, session, since):
            with suppress(OverfitError):
                found.append(read_document(path))
    return tuple(found)


def remove_others(report: Path, kept: Container[str], session: str, *, since: int, dropped: Container[str]) -> None:
    """Removes the runs of earlier sessions, and of this one those that are dropped."""
    for path in _records(report):
        name = path.parent.name
        if name in dropped or (name not in kept and not _goes_on(path, session, since)):
            shutil.rmtree(path.parent, ignore_errors=True)


def _goes_on(path: Path, session: str, since: int) -> bool:
    """Whether a record is of another session that has not ended, or not before this one began."""
    try:
        written = path.stat().st_mtime_ns
        found = SESSION.search(read_regular(path, most=MOST_BYTES))
    except (OSError, OverfitError):  # there is none
        return False
    theirs = found[1].decode() if found else ""
    return theirs != session and (written >= since or is_running(theirs, session))


def write_schema(report: Path) -> Path:
    """Writes the JSON Schema of the records beside them."""
    return write_text(report / SCHEMA, json.dumps(json_schema(), indent=1) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Writes a file as a whole, in UTF-8."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return path


def read_document(path: Path) -> Document:
    """The document of a ``record.json``, or of the folder of a run.

    Raises:
        OverfitError: the file cannot be read, or is none.
    """
    file = path / RECORD if path.is_dir() else path
    hint = "name a record.json that `pytest --overfit-report DIR` wrote, its folder, or DIR"
    return from_json(read_regular(file, most=MOST_BYTES, hint=hint), where=str(file))


def read_report(report: Path, *, session: str | None = None) -> tuple[Document, ...]:
    """The documents of a report folder, by title and call; with ``session`` those of that session alone.

    Raises:
        OverfitError: a record is broken; with ``session``, one of that session.
    """
    paths = [path for path in _records(report) if session is None or _speaks_of(path, session)]
    found = [read_document(path) for path in paths]
    wanted = [document for document in found if session is None or document.session == session]
    return tuple(sorted(wanted, key=lambda document: (document.title, document.call)))


def others(report: Path, documents: Sequence[Document]) -> int:
    """How many records of a report folder are none of these: of earlier sessions, which are left as they are."""
    shown = {document.id for document in documents}
    return sum(path.parent.name not in shown for path in _records(report))


def latest_session(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Those of the session that wrote last: a folder may hold runs of earlier ones."""
    last = max(documents, key=lambda document: document.written, default=None)
    return tuple(document for document in documents if last is not None and document.session == last.session)


def _records(report: Path) -> Iterator[Path]:
    yield from sorted((report / RUNS).glob(f"*/{RECORD}"))


def _speaks_of(path: Path, session: str) -> bool:
    """Whether a record may be of a session: those of others, of earlier versions too, are none of its business."""
    return session.encode() in read_regular(path, most=MOST_BYTES)
