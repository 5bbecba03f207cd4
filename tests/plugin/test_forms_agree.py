"""One run in every form: the terminal, the record, the page, the experiment record, the summary, JUnit, TensorBoard."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from pytest_overfit.judge.finding import number
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import read_report
from tests.plugin.conftest import TinyConfig
from tests.shared_data import shared_data
from tests.support.sessions import read_scalars

RENDERED = "{source: render, width: 160, height: 120}"


def flat(text: str) -> str:
    """Words alone: without tags, entities, Markdown's escapes and line breaks."""
    shown = html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", " ", text))
    return " ".join(re.sub(r"\\(.)", r"\1", shown).replace("`", "").split())


def check(document: Document, folder: Path, output: str) -> None:
    """Every finding and the last losses, in every form."""
    assert document.result is not None
    record = document.result.record
    run = folder / "report" / "runs" / document.id
    forms = {
        "page": flat((run / "index.html").read_text(encoding="utf-8")),
        "experiment record": flat((run / "record.md").read_text(encoding="utf-8")),
        "step summary": flat((folder / "step.md").read_text(encoding="utf-8")),
        "JUnit": flat((folder / "junit.xml").read_text(encoding="utf-8").replace("value=", ">").replace("/>", "")),
    }
    for finding in document.findings:
        for form, text in forms.items():
            if form != "experiment record" or not finding.passed:  # which lists what was missed
                assert flat(finding.observed) in text, f"{form}: {finding.observed}"
        assert re.search(rf"(ok|FAILED) +{finding.name} +{re.escape(finding.observed[:10])}", output), finding.name
    for text in (forms["page"], forms["experiment record"], output):
        assert f"{record.steps} of {record.planned_steps}" in text
    last = {name: curve[-1] for name, curve in record.curves.items()}
    assert number(last["objective"]) in forms["experiment record"]
    assert number(last["loss_camera"]) in forms["experiment record"]
    (board,) = (folder / "overfit_logs").glob("*/*")
    scalars = read_scalars(board)
    for name, curve in record.curves.items():
        tag = "train/loss_objective" if name == "objective" else f"train/{name}"
        steps, values = zip(*scalars[tag], strict=True)
        assert steps[-1] == record.steps
        assert values == pytest.approx([curve[step - 1] for step in steps], rel=1e-6)
    for name, curve in record.val_curves.items():
        tag = "val/loss_objective" if name == "objective" else f"val/{name}"
        steps, values = zip(*scalars[tag], strict=True)
        assert steps == record.val_steps
        assert values == pytest.approx(curve, rel=1e-6)


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Document:
    """One session of the tiny config, checked."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "step.md"))
    monkeypatch.setenv("COLUMNS", "200")
    result = pytester.runpytest_inprocess(
        "--overfit-config=tiny.yaml", "--overfit-report=report", "--junitxml=junit.xml"
    )
    (document,) = read_report(pytester.path / "report")
    check(document, pytester.path, result.stdout.str())
    return document


def test_all_forms_of_a_rendered_pair_agree(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tiny: TinyConfig
) -> None:
    """The same findings and the same numbers wherever one looks."""
    tiny()
    assert run(pytester, monkeypatch).verdict == "passed"


def test_all_forms_of_a_real_pair_agree(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tiny: TinyConfig
) -> None:
    """Its scenes and images are in every form that names them."""
    root = shared_data("real_rgbd", "cropped")
    source = f"{{source: cut, source_root: {root}, source_seg_root: {root}_seg}}"
    tiny(replace=((RENDERED, source),))
    document = run(pytester, monkeypatch)
    assert document.pair is not None
    folder = pytester.path / "report" / "runs" / document.id
    for form in ("index.html", "record.md"):
        text = flat((folder / form).read_text(encoding="utf-8"))
        assert all(view.scene in text and view.image in text for view in document.pair.views)
