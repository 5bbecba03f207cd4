"""The pages without a mouse and without eyes: by keyboard, and what axe-core finds in them."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.report.page.write import write_pages
from tests.report.page.opened import Reader, hostile, passing, without_a_run
from tests.report.test_twins import with_twins
from tests.support.documents import broken, frozen_trunk

PHONE, DARK = {"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}
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


@pytest.mark.parametrize("reader", [{}, DARK, PHONE], indirect=True)
def test_no_page_has_a_problem_of_accessibility(reader: Reader) -> None:
    """What axe-core finds on the overview and on every kind of run page: contrast, names, roles, order."""
    seeds = broken("head_swapped_late", (0, 1, 2))
    for document in (None, passing(), frozen_trunk(), seeds, hostile(), with_twins(), *without_a_run()):
        page = reader.open(document)
        assert axe_problems(page) == []


@pytest.mark.parametrize("reader", [{}, DARK], indirect=True)
def test_every_name_of_a_curve_is_read(reader: Reader) -> None:
    """What no rule of axe-core sees, since it is painted: a contrast of 4.5 with the ground of its chart."""
    swatches = """[...document.querySelectorAll("[style*='--swatch']")]
        .map((each) => each.style.getPropertyValue("--swatch"))"""
    names = """overfitCharts.flatMap((box) => box.drawn.map((item) => item.glyph.text_color))
        .filter((color) => typeof color === "string")"""
    for document in (passing(), frozen_trunk(), with_twins()):
        page = reader.open(document)
        ground = page.evaluate("getComputedStyle(document.querySelector('.chart')).backgroundColor")
        colors = [channels(each) for each in page.evaluate(swatches) + page.evaluate(names)]
        assert len(colors) > 1
        for color in colors:
            less, more = sorted(luminance(each) + 0.05 for each in (color, channels(ground)))
            assert more / less >= 4.5, (color, ground)


@pytest.mark.parametrize("reader", [PHONE], indirect=True)
def test_no_text_of_a_limit_is_cut_off(reader: Reader) -> None:
    """One that is longer than its plot is wide ends in a dot of three."""
    page = reader.open(hostile())
    (text,) = page.evaluate("overfitCharts[0].drawn.map((item) => item.glyph.text).filter((text) => text)")
    assert text.endswith("\u2026")


@pytest.mark.parametrize("reader", [PHONE, {}, {**DARK, **PHONE}], indirect=True)
def test_a_chinese_page_has_no_problem_of_accessibility(reader: Reader, tmp_path: Path) -> None:
    """And scrolls downwards only on a phone; its filter counts in its language."""
    documents = [passing(), broken("missing_step"), with_twins(), *without_a_run()]
    write_pages(tmp_path, documents, lang="zh")
    reader = replace(reader, report=tmp_path)
    for document in (None, *documents):
        page = reader.open(document)
        assert axe_problems(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page = reader.open()
    page.get_by_role("checkbox").check()
    assert page.locator("output").inner_text() == "2 / 5 次运行"


@pytest.mark.parametrize("reader", [{}, DARK], indirect=True)
def test_a_printed_page_is_read(reader: Reader) -> None:
    """Whatever the screen is, paper is white; curves keep their colours."""
    for document in (None, passing(), frozen_trunk(), *without_a_run()):
        page = reader.open(document)
        page.emulate_media(media="print")
        assert axe_problems(page) == []
        if document is not None and document.records:
            swatches = page.evaluate("overfitCharts[0].swatches.map(([b]) => b.style.getPropertyValue('--swatch'))")
            assert len(set(swatches)) > 1
            assert all(1.05 / (luminance(channels(each)) + 0.05) >= 4.5 for each in swatches)
        page.emulate_media(media="screen")


def test_no_name_of_a_curve_is_below_its_chart(reader: Reader) -> None:
    """Names of many curves that end at the lower edge are moved up together."""
    page = reader.open(broken("head_swapped_late", (0, 1, 2)))
    places = page.evaluate("OverfitLabels.apart([3, 1, 2], 13, 100, 6)")
    assert sorted(places) == [6, 19, 32]
    assert places.index(6) == 1


def test_a_problem_of_accessibility_is_found(reader: Reader) -> None:
    """A picture without a text."""
    page = reader.open()
    page.evaluate("document.querySelector('main').append(new Image())")
    assert [problem.partition(":")[0] for problem in axe_problems(page)] == ["image-alt"]


def channels(color: str) -> list[int]:
    """The red, green and blue of a colour as a browser or a page gives it."""
    if color.startswith("#"):
        return [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return [int(each) for each in re.findall(r"\d+", color)[:3]]


def luminance(color: list[int]) -> float:
    """Of the guidelines for accessibility (WCAG 2)."""
    shares = [each / 255 for each in color]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def axe_problems(page: Any) -> list[str]:
    """What axe-core says of the page as it is, beside its canvases."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0].get('failureSummary')}" for each in found
    ]
