"""What failed as GitHub's workflow commands: the service shows each beside the line that it is about."""

# Without the future import of the name that the function has.
import itertools
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.workspace import in_workspace, is_elsewhere
from pytest_overfit.report.markdown.escape import plain
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.failure import alone, headline, short, told
from pytest_overfit.text.translations import translated

PLACE = re.compile(r"(?P<file>[^\s:,'\"()]+\.(?:py|ya?ml)):(?P<line>\d+)")
MOST_NAMED = 3  # of runs that fail alike
STATES = {
    "running": "the run has not come to its end",
    "killed": "the run was killed",
    "interrupted": "the run was interrupted",
    "not_run": "nothing was run",
}


def annotations(documents: Sequence[Document], *, expected: Container[str] = (), lang: str = "en") -> list[str]:
    """One line per cause, or per failed criterion without one, and per run that did not come to its end.

    What fails for one cause is one line, beside the line to change where one is known: of the user's sources, or of the
    config; so are runs that fail for one cause at one place, by their number and the first ids. Nothing for what
    passed. GitHub shows the first ten errors of a step, so the first failure of every run comes before the second of
    any.

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
    columns = itertools.zip_longest(*(list(_of(document, cut[1:])) for document in told))
    alike: dict[object, list[_Told]] = {}
    for each in (each for column in columns for each in column if each is not None):
        alike.setdefault(each.alike, []).append(each)
    return [_command(group, lang) for group in alike.values()]


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


@dataclass(frozen=True)
class _Told:
    """One thing that failed in one run: what, by which cause, at which ``file:line``, in words."""

    document: Document
    what: str
    message: str
    cause: str = ""
    place: str = ""

    @property
    def alike(self) -> object:
        """The same of all that is one annotation; what has no place is its own."""
        return (self.place, self.cause or self.what) if self.place and self.cause else id(self)


def _of(document: Document, cut: Sequence[Document] = ()) -> Iterator[_Told]:
    """The annotations of one run; the first one that was interrupted names the others, which are ``cut``."""
    missed = [finding for finding in document.findings if finding.missed]
    if document.state != "finished" and not (document.state == "not_run" and missed):
        lines = [STATES[document.state] + (f": {document.error}" if document.error else "")]
        names = ", ".join(finding.name for finding in missed)
        lines += [f"  not held until then: {names}", f"  {document.first_line}"] if missed else []
        others = cut if document.state == "interrupted" else ()
        lines += [f"  interrupted too: {', '.join(other.title for other in others)}"] if others else []
        yield _told(document, document.state.replace("_", " "), "\n".join(lines))
        return
    if document.verdict == "failed" and not missed:
        error = document.error or ""
        why = "\n".join(dict.fromkeys([document.first_line, *error.splitlines()])).strip()
        yield _told(document, "not judged", why or "no criterion was judged", error.partition(":")[0])
    causes = () if document.result is None else document.result.causes
    caused = [finding for finding in missed if causes and finding not in document.checks and not finding.hint_stands]
    if caused:
        yield _caused(document, caused, causes)
    for finding in missed:
        if finding not in caused:
            yield _told(document, finding.name, alone(finding), finding.name)


def _caused(document: Document, missed: Sequence[Finding], causes: Sequence[Cause]) -> _Told:
    """All that was missed for a cause as one annotation, beside the line that is to be changed where one is known."""
    head = headline(missed, causes)
    told_first = next((each for each in missed if short(each) in head or head.startswith(each.name)), missed[0])
    others = [finding.name for finding in missed if finding is not told_first]
    lines = [head, *told(head, causes, most=1), *([f"  missed too: {', '.join(others)}"] if others else [])]
    known = (document.places[finding.name] for finding in (told_first, *missed) if finding.name in document.places)
    place = _named(causes[0].advice) or _named(causes[0].where) or next(known, "")
    return _told(document, told_first.name, "\n".join(lines), causes[0].id, place)


def _named(text: str) -> str:
    """The first line of a file of the user's that a text names; empty where none is."""
    found = (each for each in PLACE.finditer(text) if "site-packages" not in each["file"])
    return next((f"{each['file']}:{each['line']}" for each in found if not is_elsewhere(each["file"])), "")


def _told(document: Document, what: str, message: str, cause: str = "", place: str = "") -> _Told:
    place = place or document.places.get(what) or document.places.get("") or ""
    return _Told(document, what, message, cause, plain(place))


def _command(group: Sequence[_Told], lang: str) -> str:
    """The first of those that are alike, and how many they are."""
    first, titles = group[0], list(dict.fromkeys(each.document.title for each in group))
    file, title = plain(first.document.title.partition("::")[0]), plain(f"overfit {first.what}: {first.document.title}")
    message = first.message
    if len(titles) > 1:
        named, rest = ", ".join(plain(each) for each in titles[:MOST_NAMED]), len(titles) - MOST_NAMED
        message += f"\n  {len(titles)} runs fail so: {named}" + (f" and {rest} more" if rest > 0 else "")
    if first.place:
        file, _, number = first.place.rpartition(":")
    line = f",line={number}" if first.place else ""
    said = escape_data(translated(message, lang))
    return f"::error file={escape_property(in_workspace(file))}{line},title={escape_property(title)}::{said}"
