"""Failed criteria as GitHub's workflow commands: the service shows each beside the file that it is about."""

# Without the future import of the name that the function has.
import itertools
from collections.abc import Container, Iterator, Sequence

from pytest_overfit.report.ci.workspace import in_workspace
from pytest_overfit.report.markdown.escape import plain
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.failure import headline, told
from pytest_overfit.text.translations import translated

STATES = {
    "running": "the run has not come to its end",
    "killed": "the run was killed",
    "interrupted": "the run was interrupted",
    "not_run": "nothing was run",
}


def annotations(documents: Sequence[Document], *, expected: Container[str] = (), lang: str = "en") -> list[str]:
    """One line per failed criterion, and one per run that did not come to its end; nothing for what passed.

    GitHub shows the first ten errors of a step, so the first failure of every run comes before the second of any.

    Args:
        expected: titles of finished runs that missed what their test expects them to miss: no error.
        lang: ``en`` or ``zh``.

    Example:
        >>> annotations([document])                                              # doctest: +SKIP
        ['::error file=quick.yaml,line=12,title=overfit camera: quick.yaml::camera%3A ...']
    """
    told = [document for document in documents if document.state != "finished" or document.title not in expected]
    columns = itertools.zip_longest(*(list(_of(document, lang)) for document in told))
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


def _of(document: Document, lang: str) -> Iterator[str]:
    missed = [finding for finding in document.findings if finding.missed]
    if document.state != "finished" and not (document.state == "not_run" and missed):
        error = f": {document.error}" if document.error else ""
        yield _error(document, lang, document.state.replace("_", " "), STATES[document.state] + error)
    elif document.verdict == "failed" and not missed:
        yield _error(document, lang, "not judged", document.error or "no criterion was judged")
    causes = () if document.result is None else document.result.causes
    for place, finding in enumerate(missed):
        head = headline([finding], causes) if causes else finding.text()
        # The cause is that of the run, not of one criterion: where and what to change is told once.
        yield _error(
            document, lang, finding.name, "\n".join([head, *(told(head, causes, most=1) if place == 0 else ())])
        )


def _error(document: Document, lang: str, what: str, message: str) -> str:
    file, title = plain(document.title.partition("::")[0]), plain(f"overfit {what}: {document.title}")
    place = document.places.get(what) or document.places.get("")
    if place:
        file, _, number = plain(place).rpartition(":")
    line = f",line={number}" if place else ""
    said = escape_data(translated(message, lang))
    return f"::error file={escape_property(in_workspace(file))}{line},title={escape_property(title)}::{said}"
