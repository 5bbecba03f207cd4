"""--overfit-report: every form of a session's runs, written by one process, whole whatever happens."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_overfit.report import publish
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import read_report
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import HANGS, STAGES, start_pytest

TESTS = """
import os, signal
import pytest, torch
from torch import nn


def learn(overfit, lr=0.05, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    data = (torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    return overfit(model, data, nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(model.parameters(), lr), **settings)


def test_learns(overfit):
    learn(overfit)


@pytest.mark.overfit(max_steps=100)
def test_lr(overfit):
    learn(overfit, lr=1e-5)


@pytest.mark.overfit
def test_never_begins(overfit):
    overfit(None)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>"])
def test_named(overfit, name):
    learn(overfit)
    learn(overfit, max_steps=300)


def test_of_somebody_else():
    pass
"""
LEARNS, LR, NEVER, NAMED = (
    "test_own.py::test_learns",
    "test_own.py::test_lr",
    "test_own.py::test_never_begins",
    "test_own.py::test_named[<script>alert(1)</script>]",
)


def documents(report: Path) -> dict[tuple[str, int], Document]:
    return {(document.title, document.call): document for document in read_report(report)}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_every_run_is_recorded_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    """Passes, failures, two calls of one test and a run that never began; one page and one step summary of all."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "step.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2hunter2")
    (pytester.path / "step.md").write_text("what was there before\n")
    pytester.makepyfile(test_own=TESTS)
    result = pytester.runpytest_subprocess("--overfit-report", "report", *workers)
    result.assert_outcomes(passed=3, failed=2)
    found = documents(pytester.path / "report")
    assert list(found) == [(LEARNS, 1), (LR, 1), (NAMED, 1), (NAMED, 2), (NEVER, 1)]
    verdicts = {place: document.verdict for place, document in found.items()}
    assert [place for place, verdict in verdicts.items() if verdict == "failed"] == [(LR, 1), (NEVER, 1)]
    assert found[NEVER, 1].state == "not_run"
    assert "model" in (found[NEVER, 1].error or "")
    assert len({document.session for document in found.values()}) == 1
    for document in found.values():
        folder = pytester.path / "report" / "runs" / document.id
        assert {"record.json", "record.md", "index.html"} <= {file.name for file in folder.iterdir()}
    assert {"index.html", "summary.md", "schema.json", "assets", "runs"} == {
        file.name for file in (pytester.path / "report").iterdir()
    }
    assert result.outlines.count(f"report: {pytester.path / 'report' / 'index.html'}") == 1
    summary = (pytester.path / "step.md").read_text()
    assert summary.startswith("what was there before\n")
    assert summary.removeprefix("what was there before\n").rstrip() == (
        (pytester.path / "report" / "summary.md").read_text().rstrip()
    )
    errors = [line for line in result.outlines if line.startswith("::error")]
    missed = [finding for document in found.values() for finding in document.findings if not finding.passed]
    assert len(errors) == len(missed) + 1  # and the one that never began
    assert all(line.startswith("::error file=test_own.py,line=") for line in errors)
    everything = [file for file in (pytester.path / "report").rglob("*") if file.suffix in (".json", ".html", ".md")]
    assert not any("hunter2" in file.read_text(encoding="utf-8") for file in everything)
    assert not any(
        "<script>alert(1)" in file.read_text(encoding="utf-8") for file in everything if file.suffix == ".html"
    )


def test_a_config_has_its_pair_and_its_checks(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The findings before the run, the scenes and images, the settings, the pictures, and a command that repeats it."""
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config",
        "tiny.yaml",
        "--overfit-report=report",
        "--overfit-set",
        "seed_value=1",
        "--overfit-lang",
        "zh",
    )
    result.assert_outcomes(passed=15)
    (document,) = documents(pytester.path / "report").values()
    assert document.title == "tiny.yaml"
    assert document.verdict == "passed"
    assert [check.name for check in document.checks] == list(STAGES)
    assert document.pair is not None
    assert all(view.valid and view.total for view in document.pair.views)
    assert document.setting_values["seed_value"] == "1"
    assert document.command == "pytest tiny.yaml --overfit-set seed_value=1"
    assert {"objective", "loss_camera", "loss_reg_depth"} == set(document.limits)
    folder = pytester.path / "report" / "runs" / document.id
    assert document.pictures
    assert all((folder / name).is_file() for name in document.pictures)
    assert "实验" in (folder / "record.md").read_text(encoding="utf-8")


def test_a_pair_that_is_wrong_is_in_the_report(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """There was no run, and the page still says why."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from pytest_overfit.errors import OverfitError

        @pytest.fixture
        def overfit_pair():
            raise OverfitError("no pair", where="nowhere", allowed="a pair")
        """
    )
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-report=report")
    (document,) = documents(pytester.path / "report").values()
    assert document.state == "not_run"
    assert document.verdict == "failed"
    assert any("no pair" in check.text() for check in document.checks)


def test_records_outlive_a_session(pytester: pytest.Pytester) -> None:
    """A second session into the same folder reports its own runs, and deletes nothing."""
    pytester.makepyfile(test_own=TESTS)
    pytester.runpytest_inprocess("--overfit-report", "report", "-k", "learns")
    pytester.runpytest_inprocess("--overfit-report", "report", "-k", "test_lr")
    assert list(documents(pytester.path / "report")) == [(LEARNS, 1), (LR, 1)]
    assert "test_learns" not in (pytester.path / "report" / "summary.md").read_text()


def test_a_folder_that_cannot_be_written_stops_before_training(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=TESTS)
    pytester.path.joinpath("taken").write_text("")
    result = pytester.runpytest_inprocess("--overfit-report", "taken/report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*taken/report: *", "*allowed: a folder that can be written*"])


def test_that_pages_are_not_written_is_said_before_anything_is_trained(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "PAGES_NEED", ("bokeh_that_is_absent",))
    pytester.makepyfile(TESTS.replace("learn(overfit)", "learn(overfit); print('TRAINED')", 1))
    result = pytester.runpytest_inprocess("-q", "-s", "--overfit-report", "pages", "-k", "learns")
    told = [line for line in result.outlines if "TRAINED" in line or line.startswith("note: pages need bokeh")]
    assert told[0].endswith('which is not installed: pip install "pytest-overfit[pages]"')
    assert "TRAINED" in told[1]
    assert "not written" not in result.stdout.str()
    assert f"report: {pytester.path / 'pages' / 'summary.md'}" in result.outlines


def test_without_a_report_nothing_is_left(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step summary alone needs records, and cleans them up."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "step.md"))
    pytester.makepyfile(test_own=TESTS)
    pytester.runpytest_subprocess("-k", "learns", "--basetemp", str(tmp_path / "base"))
    assert "test_learns" in (pytester.path / "step.md").read_text()
    assert not list(tmp_path.glob("overfit-*"))


ENDLESS = (
    TESTS
    + """

def test_dies(overfit):
    seen = []
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)

    def step(model, batch, optimizer):
        seen.append(None)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        if len(seen) == 2000:
            DIE
        return loss

    data = (torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    overfit(model, data, step=step, optimizer=optimizer, max_steps=100_000, objective=1e-9)
"""
)
OFTEN = "import pytest_overfit.report.record.recorder as recorder\nrecorder.WRITE_SECONDS = 0.05\n"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_worker_leaves_its_record(pytester: pytest.Pytester) -> None:
    """The session is red, and the page has the curves until then."""
    pytester.makeconftest(OFTEN)
    pytester.makepyfile(test_own=ENDLESS.replace("DIE", "os.kill(os.getpid(), signal.SIGKILL)"))
    result = pytester.runpytest_subprocess("-n", "2", "--overfit-report", "report", "-k", "dies or learns")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = documents(pytester.path / "report")
    killed = found["test_own.py::test_dies", 1]
    assert (killed.state, killed.verdict) == ("killed", "failed")
    assert killed.result is not None
    assert len(killed.result.record.curves["objective"]) > 10
    assert found[LEARNS, 1].verdict == "passed"
    assert "test_dies" in (pytester.path / "report" / "index.html").read_text()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_process_leaves_its_record(pytester: pytest.Pytester) -> None:
    """Valid JSON with what was known; ``pytest-overfit report`` makes the pages of it."""
    pytester.makeconftest(OFTEN)
    pytester.makepyfile(test_own=ENDLESS.replace("DIE", "pass"))
    session = start_pytest("--overfit-report", "report", "-k", "dies", folder=pytester.path)
    try:
        deadline = time.monotonic() + HANGS
        while not any("curves" in path.read_text() for path in (pytester.path / "report").glob("runs/*/record.json")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        session.send_signal(signal.SIGKILL)
    finally:
        session.kill()
        session.communicate()
    assert session.returncode == -signal.SIGKILL
    (path,) = (pytester.path / "report").glob("runs/*/record.json")
    assert json.loads(path.read_text())["overfit"]["state"] == "running"
    from pytest_overfit.cli import main

    assert main(["report", str(pytester.path / "report")]) == 0
    assert "test_dies" in (pytester.path / "report" / "index.html").read_text()


def test_a_report_is_rendered_again(pytester: pytest.Pytester) -> None:
    """Of the folder in place, or of one record into another folder: the same forms, number by number."""
    from pytest_overfit.cli import main

    pytester.makepyfile(test_own=TESTS)
    pytester.runpytest_inprocess("--overfit-report", "report", "-k", "test_lr")
    report = pytester.path / "report"
    before = {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    (record,) = report.glob("runs/*/record.json")
    assert main(["report", str(report)]) == 0
    assert {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    assert main(["report", str(record), "--output", str(pytester.path / "other")]) == 0
    other = pytester.path / "other"
    assert {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


def test_saved_runs_are_compared(pytester: pytest.Pytester) -> None:
    """Within the limit green; after the learning has become slower red, in the test, the table and the record."""
    pytester.makepyfile(test_own=TESTS)
    result = pytester.runpytest_inprocess("-k", "learns", "--overfit-save", "main")
    assert (pytester.path / ".overfit" / "main.json").is_file()
    result.stdout.fnmatch_lines(["saved 1 run*: *main.json"])
    limits = ("--overfit-compare", "main", "--overfit-compare-fail", "steps:1.5x")
    pytester.runpytest_inprocess("-k", "learns", *limits).assert_outcomes(passed=1)
    pytester.makepyfile(test_own=TESTS.replace("lr=0.05", "lr=0.005"))
    result = pytester.runpytest_inprocess("-k", "learns", *limits, "--overfit-report", "report")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*regression: steps * -> * (*x), allowed <= 1.5x*"])
    (document,) = documents(pytester.path / "report").values()
    assert document.comparison is not None
    assert document.comparison.changes[0].broken
    assert document.verdict == "failed"


def test_a_config_gets_an_item_for_it(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Beside its criteria, only where changes are limited."""
    tiny()
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-save", "main").assert_outcomes(passed=15)
    args = ("--overfit-config", "tiny.yaml", "--overfit-compare", "main")
    pytester.runpytest_inprocess(*args).assert_outcomes(passed=15)
    result = pytester.runpytest_inprocess(*args, "--overfit-compare-fail", "steps:1.01x")
    result.assert_outcomes(passed=16)
    result.stdout.fnmatch_lines(["ok*regression*steps * -> * (1x) *<= 1.01x"])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--overfit-compare", "nothing"), "nothing was saved as 'nothing'"),
        (("--overfit-compare-fail", "steps:2x"), "beside --overfit-compare NAME"),
        (("--overfit-save", "../x"), "found '../x'"),
        (("--overfit-save", "a", "--overfit-compare", "a", "--overfit-compare-fail", "steps"), "found 'steps'"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(pytester: pytest.Pytester, args: tuple[str, ...], told: str) -> None:
    """Exit code 4 before anything is trained."""
    pytester.makepyfile(test_own=TESTS)
    result = pytester.runpytest_inprocess("-k", "learns", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert told in result.stderr.str()


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_junit_has_the_numbers(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """As properties of the test case."""
    pytester.makepyfile(test_own=TESTS)
    session = pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess
    session("-k", "test_lr", "--junitxml", "junit.xml", *workers).assert_outcomes(failed=1)
    text = (pytester.path / "junit.xml").read_text()
    assert '<property name="overfit.verdict" value="failed"' in text
    assert 'value="lr-low' in text
    assert '<property name="overfit.objective" value=' in text


# What the xunit2 family allows of a test case; pytest itself puts properties there.
ATTRIBUTES, CHILDREN = {"name", "classname", "time"}, {"skipped", "error", "failure", "system-out", "system-err"}
ONE_OF_EACH = """
import pytest
import torch

@pytest.fixture
def broken():
    raise OSError("no file")

def learns(overfit, **settings):
    overfit(torch.nn.Linear(2, 1), (torch.ones(1, 2), torch.ones(1, 1)), torch.nn.functional.mse_loss, **settings)

def test_green(overfit):
    learns(overfit, lr=0.1)

def test_red(overfit):
    learns(overfit, lr=1e-6, max_steps=5, diagnose=False)

def test_error(overfit, broken):
    learns(overfit)

def test_skipped(overfit):
    pytest.skip("not here")
"""


@pytest.mark.parametrize("family", ["xunit2", "xunit1"])
@pytest.mark.parametrize("numbers", [True, False])
def test_junit_is_valid_in_its_family(pytester: pytest.Pytester, family: str, numbers: bool) -> None:
    """Green, red, error and skipped; the place of what failed is a property, since xunit2 has no attribute for it."""
    pytester.makepyfile(test_own=ONE_OF_EACH)
    options = ("-o", f"junit_family={family}", "-o", f"overfit_properties={numbers}")
    pytester.runpytest_inprocess("--junitxml=junit.xml", *options)
    cases = {str(case.get("name")): case for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")}
    kinds = {name: [child.tag for child in case if child.tag in CHILDREN][:1] for name, case in cases.items()}
    assert kinds == {
        "test_green": [],
        "test_red": ["failure"],
        "test_error": ["error"],
        "test_skipped": ["skipped"],
    }
    for name, case in cases.items():
        assert set(case.attrib) == ATTRIBUTES | ({"file", "line"} if family == "xunit1" else set())
        assert {child.tag for child in case} <= CHILDREN | ({"properties"} if numbers else set())
        told = {each.get("name"): each.get("value") for each in case.iter("property")}
        assert len(told) == len(list(case.iter("property")))
        places = {"test_red": "test_own.py:9", "test_error": "test_own.py:6"} if numbers else {}
        assert told.get("overfit.place") == places.get(name)


def test_an_ini_key_leaves_the_numbers_out_of_junit(pytester: pytest.Pytester) -> None:
    """They are there without it."""
    pytester.makepyfile(test_own=TESTS)
    for value in ("true", "false"):
        args = ("-k", "test_learns", "--junitxml", f"{value}.xml", "-o", f"overfit_properties={value}")
        pytester.runpytest_inprocess(*args).assert_outcomes(passed=1)
    has = {value: "overfit.verdict" in (pytester.path / f"{value}.xml").read_text() for value in ("true", "false")}
    assert has == {"true": True, "false": False}
