"""The pages as a browser shows them, opened as files: charts, filter, sliders, themes, narrow screens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.judge.finding import number
from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.folder import folder_of
from tests.report.page.opened import HOSTILE, Reader, hostile, passing
from tests.report.page.pages import write_pictures
from tests.support.documents import broken, frozen_trunk, frozen_trunk_pictured

PLOTS = "overfitCharts.map((box) => box.plot)"


def test_charts_have_axes_a_legend_and_values_under_the_pointer(reader: Reader) -> None:
    """The loss chart of the two-view run: named axes, a switch per term, the numbers of a step."""
    document = passing()
    page = reader.open(document)
    axes = f"{PLOTS}.map((plot) => [plot.xaxes[0].axis_label, plot.yaxes[0].axis_label])"
    assert page.evaluate(axes) == [["step", "loss"], ["step", "learning rate"], ["step", "gradient norm"]]
    legend = page.locator("[data-chart=losses] [data-field=name]").all_inner_texts()
    assert document.result is not None
    assert legend == list(document.result.record.curves)
    plot = page.locator("[data-chart=losses] .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 3)
    told = page.wait_for_function(
        """() => {
          const all = (root) => [...root.querySelectorAll("*")].flatMap(
            (e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]
          );
          const seen = all(document).find((e) => e.matches(".bk-tooltip-content, .bk-Tooltip"));
          return seen && (seen.shadowRoot ?? seen).textContent;
        }"""
    ).json_value()
    step = int("".join(filter(str.isdigit, told.split("step", 1)[1].split("objective")[0])))
    assert 1 < step < document.result.record.steps
    for curve in document.result.record.curves.values():
        assert number(float(f"{curve[step - 1]:.7g}")) in told


def test_the_legend_hides_a_term_by_keyboard(reader: Reader) -> None:
    """All lines of the term, of training, validation, the saved run and its limit; and shows them again."""
    page = reader.open(passing())
    seen = "overfitCharts[0].drawn.filter((item) => item.name === 'loss_camera').map((item) => item.glyph.visible)"
    assert set(page.evaluate(seen)) == {True}
    assert len(page.evaluate(seen)) == 6  # with its name at the end
    button = page.get_by_role("button", name="loss_camera", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert set(page.evaluate(seen)) == {False}
    page.keyboard.press("Enter")
    assert set(page.evaluate(seen)) == {True}


def test_kinds_and_seeds_are_switched(reader: Reader) -> None:
    """A seed is hidden in one chart; the limit stays, and goes with its own switch."""
    page = reader.open(broken("head_swapped_late", (0, 1, 2)))
    hidden = "overfitCharts[0].drawn.filter((item) => !item.glyph.visible).map((item) => [item.kind, item.seed])"
    page.locator("[data-chart=losses]").get_by_role("button", name="seed 1").click()
    assert {seed for _, seed in page.evaluate(hidden)} == {1}
    page.locator("[data-chart=losses]").get_by_role("button", name="limit").click()
    assert {kind for kind, _ in page.evaluate(hidden)} == {"training", "limit"}


def test_the_scale_is_logarithmic_and_can_be_linear(reader: Reader) -> None:
    """A loss above zero has a log axis, one that goes below it an axis about zero; both can be made linear."""
    page = reader.open(frozen_trunk())
    axis = "overfitCharts[0].plot.yaxes[0].type"
    assert page.evaluate(axis) == "LogAxis"
    page.locator("[data-chart=losses] [data-scale=linear]").check(force=True)
    assert page.evaluate(axis) == "LinearAxis"
    page = reader.open(passing())
    assert page.evaluate(axis) == "LinearAxis"
    labels = page.evaluate("[...overfitCharts[0].plot.yaxes[0].major_label_overrides.values()]")
    assert {"0", "1", "−1", "0.01"} <= set(labels)


def test_limits_are_dashed_and_marked_where_they_were_met(reader: Reader) -> None:
    """A line at the height of every limit, and a ring at the step from which it was met."""
    page = reader.open(frozen_trunk())
    limits = """overfitCharts[0].drawn.filter((item) => item.kind === "limit" && item.name)
        .map((item) => [item.name, item.glyph.data_source.data.y[0], item.glyph.glyph.line_dash.value.length])"""
    assert sorted(page.evaluate(limits)) == [
        ["loss_camera", 0.001, 2],
        ["loss_reg_depth", 0.01, 2],
        ["objective", 0.01, 2],
    ]
    marks = "overfitCharts[0].chart.marks.map((mark) => mark.step)"
    result = frozen_trunk().result
    assert result is not None
    assert page.evaluate(marks) == [result.finding("camera").steps_to_pass]


def test_the_overview_is_filtered(reader: Reader) -> None:
    """By words of a row, and to what failed; the number of rows is told."""
    page = reader.open()
    shown = page.locator("[data-run]:visible")
    assert shown.count() == 8
    assert page.locator("[data-run]").first.get_attribute("data-run") == "failed"
    page.get_by_label("failed only").check()
    assert shown.count() == 4
    page.get_by_label("Filter").fill("OPTIMIZER-coverage swapped")
    assert shown.count() == 1
    assert page.locator("output").inner_text() == "1 of 8 runs"
    page.get_by_label("failed only").uncheck()
    page.get_by_label("Filter").fill("no such run")
    assert shown.count() == 0


def test_a_row_leads_to_its_run_and_back(reader: Reader) -> None:
    """Two clicks, on files."""
    page = reader.open()
    page.get_by_role("link", name="configs/frozen_trunk.yaml").click()
    assert page.locator("h1").inner_text().split() == ["failed", "configs/frozen_trunk.yaml"]
    page.wait_for_load_state()  # a script that is left while it loads counts as one that failed
    page.get_by_role("link", name="All runs").click()
    page.wait_for_load_state()
    assert "failed" in page.locator("h1").inner_text()


def test_the_slider_moves_by_keyboard(reader: Reader) -> None:
    """Arrow keys and Home uncover the true depth; a screen reader is told how much."""
    page = reader.open(passing())
    slider = page.get_by_label("Predicted depth against true depth of frame 0")
    top = "document.querySelector('[data-split] img + img')"
    before = page.evaluate(f"getComputedStyle({top}).clipPath")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    assert slider.get_attribute("aria-valuetext") == "51 % predicted, 49 % true"
    assert page.evaluate(f"getComputedStyle({top}).clipPath") != before
    page.keyboard.press("Home")
    assert page.evaluate(f"getComputedStyle({top}).clipPath") == "inset(0px 100% 0px 0px)"


@pytest.mark.parametrize("reader", [{"viewport": {"width": 1280, "height": 800}}], indirect=True)
def test_the_cause_is_above_the_fold(reader: Reader) -> None:
    """What failed, why, and what to change are seen without scrolling."""
    for document in (frozen_trunk(), broken("head_swapped_late", (0, 1, 2))):
        page = reader.open(document)
        for selector in ("h1", ".top .sentence", ".why h2", ".why .change"):
            box = page.locator(selector).first.bounding_box()
            assert box["y"] + box["height"] < 800


@pytest.mark.parametrize("reader", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_phone_scrolls_downwards_only(reader: Reader) -> None:
    """Wide tables scroll in their own boxes; charts are as narrow as the screen."""
    for document in (None, passing(), frozen_trunk(), hostile()):
        page = reader.open(document)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("[...document.querySelectorAll('.plot')].every((plot) => plot.offsetWidth < 390)")


@pytest.mark.parametrize("reader", [{"color_scheme": "dark"}], indirect=True)
def test_dark_is_dark_in_charts_too(reader: Reader) -> None:
    """Ground and ink change places, also on the axes; and back, when the system does."""
    page = reader.open(passing())
    ground, ink = (
        "getComputedStyle(document.body).backgroundColor",
        "overfitCharts[0].plot.xaxes[0].axis_label_text_color",
    )
    dark = page.evaluate(f"[{ground}, {ink}.value ?? {ink}]")
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"({ink}.value ?? {ink}) !== {dark[1]!r}")
    light = page.evaluate(f"[{ground}, {ink}.value ?? {ink}]")
    assert dark[0] == "rgb(18, 20, 23)"
    assert light[0] == "rgb(247, 247, 245)"
    assert light[1] == "#59616b"


def test_hostile_names_stay_text(reader: Reader) -> None:
    """In titles, legends, limits and under the pointer: no script runs, no formula is fetched."""
    page = reader.open(hostile())
    assert HOSTILE in page.title()
    assert page.locator("h1 .title").inner_text() == HOSTILE
    assert page.locator("[data-chart=losses] [data-field=name]").last.inner_text() == HOSTILE
    plot = page.locator("[data-chart=losses] .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(200)
    page.locator("[data-chart=losses] [data-field=name]").last.click()
    assert page.evaluate(
        "[window.hacked, overfitCharts[0].drawn.filter((item) => !item.glyph.visible).length > 0]"
    ) == [
        None,
        True,
    ]
    assert (
        page.evaluate(
            "[...document.scripts].filter((script) => !script.src && script.type !== 'application/json').length"
        )
        == 0
    )


def test_the_advice_can_be_copied(reader: Reader) -> None:
    """The button says that it did; where the clipboard is closed the text is selected."""
    document = frozen_trunk()
    page = reader.open(document)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    button = page.get_by_role("button", name="Copy what to change").first
    button.click()
    page.wait_for_function("document.querySelector('.why [data-copy]').textContent !== 'Copy'")
    assert document.result is not None
    assert page.evaluate("window.getSelection().toString()") == document.result.causes[0].advice


def test_a_picture_that_is_broken_inside_is_told(reader: Reader, tmp_path: Path) -> None:
    """The head of a PNG and nothing behind it: its words stand in its place."""
    document, pictures = frozen_trunk_pictured()
    folder = folder_of(tmp_path, document)
    write_pictures(folder, pictures)
    file = folder / "frame_0_image.png"
    file.write_bytes(file.read_bytes()[:40])
    write_pages(tmp_path, [document])
    page = Reader(reader.page, tmp_path, reader.problems).open(document)
    assert page.locator("figure .missing").all_inner_texts() == ["Image: this picture cannot be shown."]


def test_runs_are_sorted_by_a_heading(reader: Reader) -> None:
    """By time, and the other way round; a screen reader is told which."""
    page = reader.open()
    seconds = "[...document.querySelectorAll('[data-run]')].map((row) => Number(row.dataset.seconds))"
    head = page.get_by_role("columnheader", name="Time")
    for way in ("ascending", "descending"):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == way
        found = page.evaluate(seconds)
        assert found == sorted(found, reverse=way == "descending")


def test_terms_without_a_limit_are_hidden_at_first(reader: Reader) -> None:
    """And each that has one carries its name at its end."""
    document = frozen_trunk()
    page = reader.open(document)
    pressed = "[data-chart=losses] [data-field=name][aria-pressed=true]"
    names = f"[...document.querySelectorAll('{pressed}')].map((button) => button.textContent)"
    assert set(page.evaluate(names)) == {"objective", *document.limits}
    visible = "overfitCharts[0].drawn.filter((item) => item.glyph.visible && item.name).map((item) => item.name)"
    assert set(page.evaluate(visible)) == {"objective", *document.limits}
