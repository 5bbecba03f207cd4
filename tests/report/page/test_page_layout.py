"""Pages as they lie on a screen and on paper: labels beside curves, nothing cut, nothing that cannot be seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.folder import folder_of
from tests.report.page.opened import Reader, passing
from tests.report.page.pages import plain, write_pictures
from tests.report.page.test_page_accessibility import axe_problems
from tests.support.documents import broken, frozen_trunk, two_view_pictured, unstarted

PHONE = {"viewport": {"width": 390, "height": 844}}
PAPER = {"viewport": {"width": 720, "height": 1000}}  # A4 between margins, in pixels of CSS


def test_names_at_ends_of_lines_stand_apart(reader: Reader) -> None:
    """As near as they can be to their lines, around their middle, in their order and below the upper edge."""
    page = reader.open(frozen_trunk())
    assert page.evaluate("OverfitLabels.apart([50, 10, 52], 12)") == [45, 10, 57]
    assert page.evaluate("OverfitLabels.apart([99, 99, 99], 12, 100)") == [76, 88, 100]
    page = reader.open(broken("head_swapped_late", (0, 1, 2)))
    heights = page.evaluate("""overfitCharts[0].drawn.filter((item) => item.glyph.text?.includes?.("seed"))
        .map((item) => item.glyph.y_offset)""")
    assert len(heights) == 3
    assert len({*heights}) > 1


def test_the_text_of_a_limit_has_no_curve_under_it(reader: Reader, tmp_path: Path) -> None:
    """It goes to where the least runs through it: here to the left, since the curve ends around its limit."""
    steps = 100
    curve = tuple(2.0 * 0.005 ** min(1.0, step / 40) * (1.5 if step % 2 else 0.7) for step in range(steps))
    document = plain(curves={"objective": curve}, steps=steps)
    write_pages(tmp_path, [document])
    page = Reader(reader.page, tmp_path, reader.problems).open(document)
    labels = "overfitCharts[0].drawn.filter((item) => item.glyph.text_align).map((item) => item.glyph)"
    assert page.evaluate(f"{labels}.map((label) => [label.text, label.text_align])") == [["objective < 0.01", "left"]]


def test_an_axis_of_less_than_two_decades_has_ticks(reader: Reader) -> None:
    """Four or more, none of them beside another one; the lines behind are at the ticks."""
    page = reader.open(passing())
    for low, high, ticks in (
        (0.2, 4.0, [0.2, 0.5, 1, 2]),
        (1.06, 1.36, [1.1, 1.15, 1.2, 1.25, 1.3, 1.35]),
        (0.0005, 20.0, [0.001, 0.01, 0.1, 1, 10]),
    ):
        assert page.evaluate(f"OverfitLabels.logTicks({low}, {high}).major") == ticks
    assert len(page.evaluate("OverfitLabels.logTicks(1e-30, 1e3).major")) < 10
    same = "overfitCharts.map((box) => box.plot).every((plot) => plot.ygrids[0].ticker === plot.yaxes[0].ticker)"
    assert page.evaluate(same)


def test_an_axis_is_of_what_is_seen(reader: Reader) -> None:
    """A term below zero that is hidden leaves the axis logarithmic; shown, it changes it; and back."""
    document = frozen_trunk()
    assert document.result is not None
    record = document.result.record
    page = reader.open(document)
    hidden = next(name for name, curve in record.curves.items() if name not in {"objective", *document.limits})
    axis = "overfitCharts[0].plot.yaxes[0].type"
    page.evaluate(f"overfitCharts[0].chart.lines.find((line) => line.name === {hidden!r}).values[3] = -1")
    page.evaluate("overfitCharts[0].draw()")
    assert page.evaluate(axis) == "LogAxis"
    button = page.locator("[data-chart=losses]").get_by_role("button", name=hidden, exact=True)
    button.click()
    assert page.evaluate(axis) == "LinearAxis"
    button.click()
    assert page.evaluate(axis) == "LogAxis"
    page.wait_for_timeout(300)
    assert page.locator("[data-chart=losses] [data-plot] > .bk-Figure").count() == 1  # two draws, one chart


def test_a_curve_of_one_step_is_a_dot(reader: Reader, tmp_path: Path) -> None:
    """A line between no two points would not be seen."""
    document = plain(curves={"objective": (0.5,)}, learning_rate=(0.1,), grad_norms={}, steps=1)
    write_pages(tmp_path, [document])
    page = Reader(reader.page, tmp_path, reader.problems).open(document)
    glyph = "overfitCharts.map((box) => box.drawn.find((item) => item.kind === 'training').glyph.glyph.type)"
    assert page.evaluate(glyph) == ["Scatter", "Scatter"]


@pytest.mark.parametrize("reader", [{}, {"color_scheme": "dark"}, PHONE], indirect=True)
def test_a_run_that_never_trained_has_no_problem_of_accessibility(reader: Reader, tmp_path: Path) -> None:
    """Whatever the length of its error."""
    long = "\n".join(f"line {number} of an error that says more than fits on a phone" for number in range(60))
    finding = Finding("config", False, "no such folder " * 20, "paths that exist", "a.yaml", "look")
    skipped = Finding("pair", False, "not judged", "valid files", judged=False)
    documents = [unstarted(error=long), replace(unstarted(checks=(finding, skipped)), id="b", title="b.yaml")]
    write_pages(tmp_path, documents)
    for document in (None, *documents):
        page = Reader(reader.page, tmp_path, reader.problems).open(document)
        assert axe_problems(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    tone = "document.querySelector('.badge.skipped .icon circle')"
    assert page.evaluate(f"getComputedStyle({tone}).fill") != "rgb(0, 0, 0)"


@pytest.mark.parametrize("reader", [PAPER], indirect=True)
def test_paper_cuts_nothing(reader: Reader, tmp_path: Path) -> None:
    """Tables are as wide as the sheet, the names of runs can be read, and nothing is there to be moved or sorted."""
    pictured, pictures = two_view_pictured()
    documents = [pictured, frozen_trunk(), broken("missing_step")]
    write_pictures(folder_of(tmp_path, pictured), pictures)
    write_pages(tmp_path, documents)
    for document in (None, *documents):
        page = Reader(reader.page, tmp_path, reader.problems).open(document)
        page.emulate_media(media="print")
        wide = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1)"
        assert page.evaluate(f"{wide}.map((box) => box.getAttribute('aria-label'))") == []
        assert page.locator("input[type=range]:visible").count() == 0
        assert page.locator(".legend button[aria-pressed=false]:visible").count() == 0
    page = Reader(reader.page, tmp_path, reader.problems).open()
    page.emulate_media(media="print")
    assert page.locator(".runs tbody th").first.bounding_box()["width"] > 170
    arrow = "getComputedStyle(document.querySelector('[data-sort] button'), '::after').content"
    assert page.evaluate(arrow) == "none"


@pytest.mark.parametrize("reader", [PHONE], indirect=True)
def test_a_card_has_no_cell_that_says_nothing(reader: Reader, tmp_path: Path) -> None:
    """Of a run that never trained there are no steps, no margin and no time."""
    write_pages(tmp_path, [unstarted(), plain()])
    page = Reader(reader.page, tmp_path, reader.problems).open()
    said = page.locator("[data-run]").all_inner_texts()
    assert all("–" not in row for row in said)
    assert "Seeds" not in said[1]


def test_the_printed_overview_is_neither_squeezed_nor_glued_to_its_head(reader: Reader) -> None:
    """On A4 the small print of a number has two lines at most, and the table stands apart from the head."""
    page = reader.open()
    page.set_viewport_size({"width": 794, "height": 1123})
    page.emulate_media(media="print")
    gap = """document.querySelector('table.runs').getBoundingClientRect().top
             - document.querySelector('header.top').getBoundingClientRect().bottom"""
    assert page.evaluate(gap) >= 8
    lines = """[...document.querySelectorAll('.runs td.n small')].map(
        (each) => each.getBoundingClientRect().height / parseFloat(getComputedStyle(each).lineHeight))"""
    assert max(page.evaluate(lines)) < 2.5
