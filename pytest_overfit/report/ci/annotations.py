"""What failed as GitHub's workflow commands: the service shows each beside the line that it is about."""

# Without the future import of the name that the function has.
import itertools
import re
from collections.abc import Container, Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.workspace import in_workspace, is_elsewhere
from pytest_overfit.report.markdown.escape import plain
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.failure import headline, short, told
from pytest_overfit.text.translations import translated

PLACE = re.compile(r"(?P<file>[^\s:,'\"()]+\.(?:py|ya?ml)):(?P<line>\d+)")
STATES = {
    "running": "the run has not come to its end",
    "killed": "the run was killed",
    "interrupted": "the run was interrupted",
    "not_run": "nothing was run",
}


def annotations(documents: Sequence[Document], *, expected: Container[str] = (), lang: str = "en") -> list[str]:
    """One line per cause, or per failed criterion without one, and per run that did not come to its end.

    What fails for one cause is one line, beside the line to change where one is known: of the user's sources, or of the
    config. Nothing for what passed. GitHub shows the first ten errors of a step, so the first failure of every run
    comes before the second of any.

    Args:
        expected: titles of finished runs that missed what their test expects them to miss: no error.
        lang: ``en`` or ``zh``.

    Example:
        >>> annotations([document])                                              # doctest: +SKIP
        ['::error file=quick.yaml,line=12,title=overfit camera%3A quick.yaml::loss_camera 0.158, allowed < 0.001: ...']
    """
    told = [document for document in documents if document.state != "finished" or document.title not in expected]
    cut = [document for document in told if document.state == "interrupted"]  # by one signal, on several workers
    told = [document for document in told if document not in cut[1:]]
    columns = itertools.zip_longest(*(list(_of(document, lang, cut[1:])) for document in told))
    return [command for column in columns for command in column if command is not None]


def escape_data(value: str) -> str:
    """The message of a workflow command.

    Example:
        >>> escape_data("100%\\nof it")
        '100%25%0Aof it'
    """
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(value: str) -> str:
    """A value between ``=`` and ``,`` of a workflow command.

    Example:
        >>> escape_property("a.py::test_b[x,y]")
        'a.py%3A%3Atest_b[x%2Cy]'
    """
    return escape_data(value).replace(":", "%3A").replace(",", "%2C")


def _of(document: Document, lang: str, cut: Sequence[Document] = ()) -> Iterator[str]:
    """The annotations of one run; the first one that was interrupted names the others, which are ``cut``."""
    missed = [finding for finding in document.findings if finding.missed]
    if document.state != "finished" and not (document.state == "not_run" and missed):
        lines = [STATES[document.state] + (f": {document.error}" if document.error else "")]
        lines += [f"  not held until then: {', '.join(finding.name for finding in missed)}"] if missed else []
        others = cut if document.state == "interrupted" else ()
        lines += [f"  interrupted too: {', '.join(other.title for other in others)}"] if others else []
        yield _error(document, lang, document.state.replace("_", " "), "\n".join(lines))
        return
    if document.verdict == "failed" and not missed:
        yield _error(document, lang, "not judged", document.error or "no criterion was judged")
    causes = () if document.result is None else document.result.causes
    caused = [finding for finding in missed if causes and finding not in document.checks and not finding.hint_stands]
    if caused:
        yield _caused(document, lang, caused, causes)
    for finding in missed:
        if finding not in caused:
            yield _error(document, lang, finding.name, finding.text())


def _caused(document: Document, lang: str, missed: Sequence[Finding], causes: Sequence[Cause]) -> str:
    """All that was missed for a cause as one annotation, beside the line that is to be changed where one is known."""
    head = headline(missed, causes)
    told_first = next((each for each in missed if short(each) in head or head.startswith(each.name)), missed[0])
    others = [finding.name for finding in missed if finding is not told_first]
    lines = [head, *told(head, causes, most=1), *([f"  missed too: {', '.join(others)}"] if others else [])]
    known = (document.places[finding.name] for finding in (told_first, *missed) if finding.name in document.places)
    place = _named(causes[0].advice) or _named(causes[0].where) or next(known, "")
    return _error(document, lang, told_first.name, "\n".join(lines), place)


def _named(text: str) -> str:
    """The first line of a file of the user's that a text names; empty where none is."""
    found = (each for each in PLACE.finditer(text) if "site-packages" not in each["file"])
    return next((f"{each['file']}:{each['line']}" for each in found if not is_elsewhere(each["file"])), "")


def _error(document: Document, lang: str, what: str, message: str, place: str = "") -> str:
    file, title = plain(document.title.partition("::")[0]), plain(f"overfit {what}: {document.title}")
    place = place or document.places.get(what) or document.places.get("") or ""
    if place:
        file, _, number = plain(place).rpartition(":")
    line = f",line={number}" if place else ""
    said = escape_data(translated(message, lang))
    return f"::error file={escape_property(in_workspace(file))}{line},title={escape_property(title)}::{said}"
