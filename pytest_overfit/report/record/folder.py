"""The folder of a report: one folder per run below ``runs/``, with its record and pictures, and the pages beside them.

```
DIR/index.html  summary.md  schema.json  assets/
DIR/runs/<id>/record.json  record.md  index.html  frame_0_image.png ...
```
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pytest_overfit.report.record.codec import from_json, json_schema, to_json
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.json_tree import MOST_BYTES
from pytest_overfit.untrusted.files import read_regular

RECORD, SCHEMA, RUNS = "record.json", "schema.json", "runs"


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
