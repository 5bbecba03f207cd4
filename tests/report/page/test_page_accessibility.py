"""The pages without a mouse and without eyes: by keyboard, and what axe-core finds in them."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.report.page.write import write_pages
from tests.report.page.opened import Reader, hostile, passing
from tests.support.documents import broken, frozen_trunk

AXE = files("axe_playwright_python") / "axe.min.js"


def test_everything_is_reached_by_keyboard(reader: Reader) -> None:
    """The first tab stop skips to the content; every control has a name."""
    page = reader.open(passing())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    unnamed = """[...document.querySelectorAll("button, input, a, [tabindex='0'], img")].filter((element) =>
        !(element.getAttribute("aria-label") || element.textContent.trim() || element.alt || element.labels?.length))"""
    assert page.evaluate(f"{unnamed}.map((element) => element.outerHTML)") == []
    assert page.locator("section:not([aria-labelledby]):not([aria-label])").count() == 0


@pytest.mark.parametrize(
    "reader", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}], indirect=True
)
def test_no_page_has_a_problem_of_accessibility(reader: Reader) -> None:
    """What axe-core finds on the overview and on every kind of run page: contrast, names, roles, order."""
    for document in (None, passing(), frozen_trunk(), broken("head_swapped_late", (0, 1, 2)), hostile()):
        page = reader.open(document)
        assert axe_problems(page) == []


@pytest.mark.parametrize("reader", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_chinese_page_has_no_problem_of_accessibility(reader: Reader, tmp_path: Path) -> None:
    """And scrolls downwards only on a phone; its filter counts in its language."""
    documents = [passing(), broken("missing_step")]
    write_pages(tmp_path, documents, lang="zh")
    reader = replace(reader, report=tmp_path)
    for document in (None, *documents):
        page = reader.open(document)
        assert axe_problems(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page = reader.open()
    page.get_by_role("checkbox").check()
    assert page.locator("output").inner_text() == "1 / 2 次运行"


def test_a_problem_of_accessibility_is_found(reader: Reader) -> None:
    """A picture without a text."""
    page = reader.open()
    page.evaluate("document.querySelector('main').append(new Image())")
    assert [problem.partition(":")[0] for problem in axe_problems(page)] == ["image-alt"]


def axe_problems(page: Any) -> list[str]:
    """What axe-core says of the page as it is, beside its canvases."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0].get('failureSummary')}" for each in found
    ]
