"""What stopped a session before any run, as a CI service shows it: an annotation, and the page of the job."""

from __future__ import annotations

import re

from pytest_overfit.report.ci.annotations import escape_data, escape_property
from pytest_overfit.report.ci.workspace import in_workspace
from pytest_overfit.report.markdown.escape import block, plain

_PLACE = re.compile(r"(?m)^ *change: (?P<file>[^\n:]+\.ya?ml):(?P<line>\d+): ")
_FILE = re.compile(r"\A(?P<file>[^\n:]+\.(?:ya?ml|ini|toml|cfg|py)):")


def refused_annotation(message: str) -> str:
    """A workflow command of GitHub's, beside the line that the message names, or the file.

    Example:
        >>> refused_annotation("a.yaml: threds: found an unknown key\\n  change: a.yaml:7: threads: 1")
        '::error file=a.yaml,line=7,title=overfit%3A nothing was run::a.yaml: threds: found an unknown key%0A ...'
    """
    found = _PLACE.search(message) or _FILE.search(message)
    place = ""
    if found is not None:
        file, line = in_workspace(plain(found["file"].strip())), found.groupdict().get("line")
        place = f"file={escape_property(file)}," + (f"line={line}," if line else "")
    return f"::error {place}title={escape_property('overfit: nothing was run')}::{escape_data(message)}"


def refused_summary(message: str) -> str:
    """The same in Markdown."""
    return f"## pytest-overfit: nothing was run\n\n{block(message)}\n"
