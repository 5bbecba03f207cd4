"""A run as names and values of a test case, as JUnit files and other reports keep them."""

from __future__ import annotations

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.markdown.escape import plain
from pytest_overfit.report.record.document import Document

PREFIX = "overfit"


def user_properties(document: Document) -> list[tuple[str, str]]:
    """Verdict, steps, smallest margin and causes of a run, and one property per criterion.

    The names of a second call of the same test begin with ``overfit.call2``.

    Example:
        >>> user_properties(document)                                            # doctest: +SKIP
        [('overfit.verdict', 'passed'), ('overfit.steps', '175'), ('overfit.margin', '1.06'), ('overfit.causes', ''),
         ('overfit.objective', 'objective 0.0088 < 0.01'), ...]
    """
    result = document.result
    values: list[tuple[str, str]] = [("verdict", document.verdict)]
    if document.state != "finished":
        values.append(("state", document.state))
    if result is not None:
        values.append(("steps", str(max(record.steps for record in document.records))))
        if result.margin is not None:
            values.append(("margin", f"{result.margin:.3g}"))
        values.append(("causes", ", ".join(cause.id for cause in result.causes)))
    values += [(finding.name, told(finding)) for finding in document.findings]
    prefix = PREFIX if document.call == 1 else f"{PREFIX}.call{document.call}"
    return [(f"{prefix}.{plain(name)}", plain(value)) for name, value in values]


def told(finding: Finding) -> str:
    """What a property says of one criterion."""
    if not finding.judged:
        return f"not judged: {finding.observed}"
    if not finding.passed:
        return f"FAILED: {finding.observed}, allowed {finding.allowed}"
    limited = finding.allowed.startswith(("<", ">"))
    return f"{finding.observed} {finding.allowed.partition(' for ')[0]}" if limited else finding.observed
