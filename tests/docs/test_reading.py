"""docs/reading-a-report.md names and shows what the reports really have."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from pytest_overfit.report.ci.junit import user_properties
from pytest_overfit.report.markdown.curve import text_curve
from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.markdown.tables import comparison_table
from pytest_overfit.report.record.document import Change, Comparison
from pytest_overfit.report.record.folder import write_document
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.table import criteria_table
from pytest_overfit.text.translations import words
from tests.support.documents import broken, two_view
from tests.support.markdown import assert_well_formed, headings, tables

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "reading-a-report.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def section(name: str) -> str:
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_form_has_its_section() -> None:
    """And in the order of the table at the top."""
    assert headings(PAGE) == [
        "# Reading a report",
        *("## In which order to look", "## Terminal", "## HTML page", "## TensorBoard", "## Experiment record"),
        *("## JSON", "## Step summary", "## Comparison"),
    ]


def test_the_tables_are_those_of_the_code() -> None:
    """The losses and the comparison, column by column."""
    losses, comparison = (tables(block)[0] for block in fenced("markdown"))
    assert losses[0] == next(rows[0] for rows in tables(experiment_record(two_view())) if rows[0][0] == "Epoch")
    changes = (Change("steps", 160, 290, 290 / 160, (290 / 160, 290 / 160), 1, True, allowed=1.5),)
    assert comparison[:2] == tables(comparison_table(Comparison("nightly", "", changes), words("en")))[0]


def test_the_terminal_is_that_of_the_code() -> None:
    """The header of the table of criteria."""
    shown = fenced("text")[0].splitlines()[0].split("  ")
    made = criteria_table(two_view().findings)[0].split("  ")
    assert [word.strip() for word in shown if word] == [word.strip() for word in made if word]


def test_the_curve_is_one_that_the_code_draws() -> None:
    """Its limit, its axis, and the height and width."""
    (curve,) = [block.splitlines() for block in fenced("text") if block.startswith("objective\n")]
    made = text_curve([1.612 / (1 + step / 50) for step in range(120)], Limit(below=0.01))
    assert (len(curve) - 1, curve[-1], curve[-2]) == (len(made), made[-1], made[-2].replace("▀", "-").replace("█", "-"))


def test_the_script_reads_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there."""
    document = broken("missing_step")
    write_document(tmp_path / "overfit_report", document)
    monkeypatch.chdir(tmp_path)
    (script,) = fenced("python")
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(script, "page", "exec"), {})
    missed = [finding.name for finding in document.findings if not finding.passed]
    assert out.getvalue() == f"{document.title} finished {document.records[0].steps} {missed}\n"


def test_names_of_the_record_exist(tmp_path: Path) -> None:
    """Every key that the page names is in a record."""
    tree = json.loads(write_document(tmp_path, two_view()).read_text())["overfit"]
    named = set(re.findall(r"`(state|version|settings|checks|result(?:\.\w+)*)`", section("JSON")))
    assert named == {
        *("state", "version", "settings", "checks", "result"),
        *("result.findings", "result.record.curves", "result.not_asked"),
    }
    for name in named:
        found = tree
        for key in name.split("."):
            found = found[key]


def test_names_of_properties_exist() -> None:
    """Those of the example are among those of a run."""
    named = set(re.findall(r"^(overfit\.\w+) ", PAGE, re.MULTILINE))
    assert named == {f"overfit.{name}" for name in ("verdict", "steps", "margin", "causes", "depth", "camera")}
    assert named <= {name for name, _ in user_properties(two_view())}


def test_links_lead_somewhere() -> None:
    """Beside the page."""
    linked = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert linked
    assert [link for link in linked if not (DOCS / link).exists()] == []


def test_its_tables_are_well_formed() -> None:
    """Links aside, which a report must not have."""
    assert_well_formed(re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", PAGE))
