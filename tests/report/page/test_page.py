"""The pages of real runs: what they say is what the documents say, and nothing of it is markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.report.page.coverage import by_module, problems_of
from pytest_overfit.report.page.images import pictures_of
from pytest_overfit.report.page.sentences import badge, sentence, steps_to_pass
from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.document import Document, PairView, SettingRow
from pytest_overfit.report.record.folder import folder_of, write_document
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.cause_titles import meaning
from tests.report.page.pages import page_of, plain, text_of, write_pictures
from tests.support.documents import broken, frozen_trunk, healthy, mended, two_view, two_view_pictured, unstarted
from tests.support.records import parameter

CHINESE = "[\u4e00-\u9fff]"

HOSTILE = "tests/test_a.py::test_b[<script>alert(1)</script>]"
Change = Callable[[Document], Document]


def test_a_failing_run_names_its_cause_before_anything_else(tmp_path: Path) -> None:
    """Cause, strength, place and change stand before the criteria, in the words of the document."""
    document = broken("sgd_rate_of_twenty")
    assert document.result is not None
    cause = document.result.causes[0]
    text = text_of(page_of(tmp_path, document))
    head = text[: text.index("Criteria Verdict")]
    for said in (sentence(document), cause.id, cause.strength, cause.observed, cause.where, cause.advice):
        assert said in head
    assert f"Why {cause.id} {cause.strength}" in head


def test_every_further_cause_is_there_with_its_numbers(tmp_path: Path) -> None:
    """Folded, with observed, where, change and evidence."""
    document, other = frozen_trunk(), broken("missing_step")
    assert document.result is not None
    assert other.result is not None
    causes = (*document.result.causes[:1], *other.result.causes)
    text = text_of(page_of(tmp_path, replace(document, result=replace(document.result, causes=causes))))
    for cause in causes:
        assert cause.observed in text
        for name, value in cause.evidence.items():
            assert f"{name} {number(value)}" in text


@pytest.mark.parametrize("make", [two_view, frozen_trunk, lambda: broken("missing_step"), unstarted])
def test_a_page_is_in_chinese(tmp_path: Path, make: Callable[[], Document]) -> None:
    """Headings, heads of tables and labels; causes with what they mean; code and numbers as they are in English."""
    document = make()
    english = page_of(tmp_path, document)
    write_pages(tmp_path, [document], lang="zh")
    page = (folder_of(tmp_path, document) / "index.html").read_text(encoding="utf-8")
    names = {"AbsRel", "MAE (m)", *(finding.name for finding in document.findings)}
    labels = re.findall(r"<(h2|h3|th|dt|summary|a|small)\b[^>]*>([^<]*[a-z]{3}[^<]*)</\1>", page)
    code = r"<code[^>]*>.*?</code>"
    assert {said for tag, said in labels if tag in ("h2", "h3", "summary") and not re.search(CHINESE, said)} == set()
    heads = set(re.findall(r'<th scope="col"[^>]*>([^<]*[a-z]{3}[^<]*)</th>', page))
    assert {said for said in heads if not re.search(CHINESE, said)} <= names | set(by_name(document))
    assert re.findall(code, page) == re.findall(code, english)
    assert '<html lang="zh">' in page
    for cause in document.result.causes if document.result else ():
        assert meaning(cause.id, "zh") in page


def by_name(document: Document) -> list[str]:
    """The modules that a gradient reaches, which are heads of a table."""
    return [reach.module for reach in document.result.influence] if document.result else []


@pytest.mark.parametrize("make", [two_view, frozen_trunk])
def test_numbers_are_those_of_the_document(tmp_path: Path, make: Callable[[], Document]) -> None:
    """Criteria, predictions, parameters, settings and the pair."""
    document = make()
    assert document.result is not None
    text = text_of(page_of(tmp_path, document))
    for finding in document.findings:
        assert f"{finding.name} {' '.join(finding.observed.split())}" in text
    for frame in document.result.record.predictions:
        assert frame.abs_rel is not None
        assert frame.delta_1_25 is not None
        allowed = r"(?: allowed [<>] [\d.]+)?"
        cells = f"{frame.frame} {re.escape(number(frame.abs_rel))}{allowed} {re.escape(number(frame.delta_1_25))}"
        assert re.search(cells, text)
    for module in by_module(document.result.record.parameters):
        assert f"{module.name} {len(module.parameters)}" in text
        assert number(module.moved) in text
    for row in document.settings:
        assert f"{row.setting} {row.value} {row.source}" in text
    assert document.pair is not None
    for view in document.pair.views:
        assert view.valid is not None
        assert view.total is not None
        assert f"{100 * view.valid / view.total:.1f} %" in text
    assert document.command in text


def test_training_and_diagnosis_are_timed_apart(tmp_path: Path) -> None:
    """Steps against the budget, and no margin where nothing is missed."""
    times = {"warm-up": 0.5, "training": 3.0, "probes": 1.5, "trials": 61.0}
    passed = replace(healthy(), times=times)
    facts = text_of(page_of(tmp_path, passed)).partition("Criteria Verdict")[0]
    assert f"Steps to pass {steps_to_pass(passed)} of 1 000" in facts
    assert "Diagnosis 1 min 2 s probes 1.5 s, trials 1 min 1 s" in facts
    assert "Training " in facts
    assert "margin" not in facts
    assert "Tightest margin" in text_of(page_of(tmp_path, broken("missing_step")))


def test_a_page_says_at_which_line_it_failed(tmp_path: Path) -> None:
    """That of the criterion's key, else that of the call; beside the cause that of what was missed first."""
    document = broken("missing_step")
    missed = next(finding.name for finding in document.findings if finding.missed)
    for places, place in (({missed: "a.yaml:12", "": "test.py:7"}, "a.yaml:12"), ({"": "test.py:7"}, "test.py:7")):
        why, _, rows = text_of(page_of(tmp_path, replace(document, places=places))).partition("Criteria Verdict")
        assert f"At {place}" in why
        assert f"at {place}" in rows
    assert "At " not in text_of(page_of(tmp_path, document)).partition("Criteria Verdict")[0]


def test_the_overview_shows_what_failed_first(tmp_path: Path) -> None:
    """Verdicts are counted, and rows go from failed to passed."""
    passed, failed = mended("sgd_rate_of_twenty", (0, 1)), broken("sgd_rate_of_twenty")
    running = replace(passed, id="still", title="a_first.yaml", state="running")
    path = write_pages(tmp_path, [passed, running, failed])
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "index.html"
    assert re.findall(r'data-run="(\w+)"', page) == ["failed", "running", "passed"]
    text = text_of(page)
    assert "1 failed , 1 passed , 1 running" in text
    assert failed.result is not None
    assert f"{failed.result.causes[0].id} {failed.first_line}" in text
    assert f"{steps_to_pass(passed)} of {passed.records[0].planned_steps}" in text
    for document in (passed, running, failed):
        assert f'href="runs/{document.id}/index.html"' in page


def test_an_empty_session_is_no_success(tmp_path: Path) -> None:
    """Nothing ran: the page says so, and not in green."""
    page = write_pages(tmp_path, []).read_text(encoding="utf-8")
    assert "No model was asked to memorise anything." in text_of(page)
    assert 'class="top failed"' in page


def in_title(document: Document) -> Document:
    return replace(document, title=HOSTILE)


def in_term(document: Document) -> Document:
    assert document.result is not None
    made = replace(document.result.record, curves={HOSTILE: (1.0, 0.5), "objective": (1.0, 0.5)})
    return replace(document, result=replace(document.result, record=made), limits={HOSTILE: Limit(below=0.7)})


def in_module(document: Document) -> Document:
    assert document.result is not None
    made = replace(
        document.result.record,
        parameters=(parameter(HOSTILE, frozen_by=HOSTILE),),
        grad_norms={HOSTILE: (1.0,), "b": (1.0,)},
        notes=(HOSTILE,),
        environment={HOSTILE: HOSTILE},
    )
    return replace(document, result=replace(document.result, record=made))


def in_finding(document: Document) -> Document:
    return replace(document, checks=(Finding(HOSTILE, False, HOSTILE, HOSTILE, HOSTILE, HOSTILE),))


def in_files(document: Document) -> Document:
    assert document.pair is not None
    views = (PairView(HOSTILE, HOSTILE, 1, 2),)
    return replace(document, pair=replace(document.pair, seq_name=HOSTILE, views=views), pictures=(HOSTILE,))


def in_settings(document: Document) -> Document:
    rows = (SettingRow(HOSTILE, HOSTILE, HOSTILE),)
    return replace(document, settings=rows, command=HOSTILE, error=HOSTILE, environment={HOSTILE: HOSTILE})


@pytest.mark.parametrize("change", [in_title, in_term, in_module, in_finding, in_files, in_settings])
def test_what_users_write_stays_text(tmp_path: Path, change: Change) -> None:
    """Titles, terms, modules, errors, file names and settings, also inside the JSON of the charts."""
    document = change(two_view())
    path = write_pages(tmp_path, [document])
    pages = [path.read_text(encoding="utf-8"), page_of(tmp_path, document)]
    for page in pages:
        assert "alert(1)</script" not in page
        assert "<script>alert" not in page
        assert page.count("<script") == page.count("</script")
    assert any("alert(1)" in text_of(page) for page in pages)


def test_pictures_are_shown_as_far_as_they_are_there(tmp_path: Path) -> None:
    """A missing file, a broken one and a name that leaves the folder are told; the others are shown."""
    document, pictures = two_view_pictured()
    folder = folder_of(tmp_path, document)
    write_pictures(folder, pictures)
    (folder / "cameras.png").write_bytes(b"no picture")
    (folder / "frame_1_confidence.png").unlink()
    wanted = (*document.pictures, "cameras.png", "../../../secret.png")
    page = page_of(tmp_path, replace(document, pictures=wanted))
    assert page.count("data-slider") == 2
    assert re.findall(r'src="([^"]+\.png)"', page) == [
        f"frame_{frame}_{panel}.png"
        for frame in (0, 1)
        for panel in ("depth_true", "depth_predicted", "image", "depth_error", "confidence")
        if (frame, panel) != (1, "confidence")
    ]
    text = text_of(page)
    for name in ("cameras.png", "frame_1_confidence.png", "../../../secret.png"):
        assert f"{name} is not there, or is no picture." in text


def test_one_depth_alone_has_no_slider(tmp_path: Path) -> None:
    """Without a prediction the true depth stands on its own."""
    _, pictures = two_view_pictured()
    write_pictures(tmp_path, pictures)
    found = pictures_of(tmp_path, ["frame_0_depth_true.png", "frame_0_image.png"])
    assert found.frames[0].pair is None
    assert [picture.caption for picture in found.frames[0].single] == ["Image", "True depth"]


@pytest.mark.parametrize(
    ("state", "result", "said"),
    [
        ("not_run", False, "Nothing was trained: no such config."),
        ("running", False, "Running: no step so far."),
        ("running", True, "Running: 100 of 1000 steps so far; nothing is judged yet."),
        ("killed", True, "The process ended after 100 of 1000 steps, before there was a verdict."),
        ("interrupted", True, "Not finished: 100 of 1000 steps (stopped early: every limit held)."),
    ],
)
def test_a_run_without_a_verdict_has_a_page(tmp_path: Path, state: Any, result: bool, said: str) -> None:
    """Whatever is known until then, in words."""
    document = replace(plain(), state=state, error="no such config")
    document = document if result else replace(document, result=None)
    page = page_of(tmp_path, document)
    assert said in text_of(page)
    assert f'class="top {state if state in ("running", "interrupted") else "failed"}"' in page


def test_parameters_that_do_not_learn_are_marked(tmp_path: Path) -> None:
    """Each kind of problem, counted by module and told by name."""
    document = plain(
        parameters=(
            parameter("trunk.a.weight", max_grad=None),
            parameter("trunk.b.weight", in_optimizer=False),
            parameter("head.weight", moved=0.0),
            parameter("fixed.weight", trainable=False, frozen_by="fixed", max_grad=None, moved=0.0),
        )
    )
    page = page_of(tmp_path, document)
    text = text_of(page)
    for said in ("1 no gradient", "1 outside the optimizer", "1 not moved"):
        assert said in text
    assert "no: fixed 1" not in text
    assert problems_of(parameter(trainable=False, moved=0.0)) == ()
    assert problems_of(parameter(trainable=False)) == ("moved though frozen",)


def test_many_modules_are_told_one_level_up() -> None:
    """A backbone of 40 blocks is one line, and every parameter is in one of the lines."""
    parameters = [parameter(f"backbone.block{number}.{name}") for number in range(40) for name in ("weight", "bias")]
    modules = by_module([*parameters, parameter("head.weight"), parameter("scale")])
    assert [module.name for module in modules] == ["backbone", "head", "scale"]
    assert sum(len(module.parameters) for module in modules) == 82


def test_pages_are_written_again_only_where_they_change(tmp_path: Path) -> None:
    """The second time nothing is written; a new document changes its own page and the overview."""
    document = plain()
    write_pages(tmp_path, [document])
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.*") if path.is_file()}
    write_pages(tmp_path, [document])
    assert {path: path.stat().st_ino for path in before} == before
    write_pages(tmp_path, [replace(document, state="killed")])
    changed = {path.relative_to(tmp_path).as_posix() for path in before if path.stat().st_ino != before[path]}
    assert changed == {"index.html", f"runs/{document.id}/index.html"}


@pytest.mark.parametrize("strange", ["../../outside", "..", "", "a/b", "a\\b"])
def test_no_page_leaves_its_folder(tmp_path: Path, strange: str) -> None:
    """An id out of a foreign record.json that is a path is refused, before anything is written."""
    with pytest.raises(OverfitError, match="letters, digits"):
        write_pages(tmp_path / "report", [plain(), replace(plain(), id=strange)])
    assert [*tmp_path.iterdir()] == []


def test_links_to_the_records_that_are_there(tmp_path: Path) -> None:
    """record.json where it was written, record.md not before it is."""
    document = plain()
    write_document(tmp_path, document)
    page = page_of(tmp_path, document)
    assert 'href="record.json"' in page
    assert 'href="record.md"' not in page
    assert badge(document) == "passed"


def test_nothing_is_asked_of_a_network(tmp_path: Path) -> None:
    """Every address in a page and in our own assets is beside it."""
    document = two_view()
    write_pages(tmp_path, [document])
    own = [*tmp_path.rglob("*.html"), *(tmp_path / "assets" / name for name in ("page.css", "page.js", "charts.js"))]
    assert len(own) == 5
    for path in own:
        assert "http" not in path.read_text(encoding="utf-8").replace("http-equiv", "")


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    """3,000 steps of 12 terms: the page and the scripts beside it, without pictures, stay below 2.5 MB."""
    terms = {f"term_{index}": tuple(1 / (step + index + 1) for step in range(3000)) for index in range(12)}
    document = plain(curves={"objective": terms["term_0"], **terms}, steps=3000)
    page_of(tmp_path, document)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*") if path.is_file()) < 2_500_000


def test_a_title_cannot_turn_the_text_around_it(tmp_path: Path) -> None:
    """A sign that turns the direction of what follows is left out; one of Arabic stays."""
    document = replace(two_view(), title="\u0627\u062e::\u202etest_a")
    write_pages(tmp_path, [document])
    for path in tmp_path.rglob("index.html"):
        title = re.search(r"<bdi>(.*?)</bdi>", path.read_text(encoding="utf-8"))
        assert title is not None
        assert "\u202e" not in title[1]
        assert "\u0627\u062e" in title[1]
