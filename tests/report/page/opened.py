"""A page that is opened in a browser, and documents that show all that there is to see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import folder_of
from pytest_overfit.settings.criteria import Limit
from tests.report.page.pages import compared
from tests.support.documents import broken, finished, two_view

HOSTILE = "</script><script>window.hacked = 1</script> $$x$$ \\(y\\)"


@dataclass
class Reader:
    """One page of a browser, and what went wrong in it."""

    page: Any
    report: Path
    problems: list[str]

    def open(self, document: Document | None = None) -> Any:
        """Opens the overview or the page of a run, and waits until its charts are drawn."""
        folder = self.report if document is None else folder_of(self.report, document)
        self.page.goto((folder / "index.html").as_uri())
        self.page.wait_for_function(
            "[...document.querySelectorAll('[data-chart]')].every((chart) => chart.dataset.state === 'drawn')"
        )
        return self.page


def passing() -> Document:
    document = two_view()
    assert document.result is not None
    return replace(document, comparison=compared(document.result))


def without_a_run() -> tuple[Document, Document]:
    """A call that torch refused, and a session that was interrupted before its run."""
    error = "RuntimeError: no\n  shapes: Linear with in_features=4 gets 3\n  where: a.py:3\n  change: a.py:3: x = 1"
    refused = finished("tests/test_a.py::test_refused", None, error=error)
    cut = finished("tests/test_a.py::test_cut", None, state="interrupted", error="ended by SIGTERM")
    return refused, cut


def hostile() -> Document:
    document = broken("objective_negated")
    assert document.result is not None
    curves = {**document.result.record.curves, HOSTILE: (1.0, 0.5, 0.4)}
    norms = {HOSTILE: (1.0, 2.0), "b": (1.0, 2.0)}
    made = replace(document.result.record, curves=curves, grad_norms=norms, notes=("a.key.of.a.trainer[0]" * 9,))
    limits = {HOSTILE: Limit(below=0.1)}
    return replace(document, id="hostile", title=HOSTILE, limits=limits, result=replace(document.result, record=made))
