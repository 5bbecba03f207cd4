"""One failure, one first line: what the terminal says of it is what every form begins with."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from pytest_overfit.report.record.folder import read_report
from tests.plugin.conftest import TinyConfig
from tests.plugin.test_forms_agree import flat

TESTS = """
    import pytest, torch
    from torch import nn

    torch.manual_seed(0)
    DATA = torch.randn(8, 4), torch.randn(8, 1)

    def model():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    @pytest.mark.overfit(objective=0.01, max_steps=60)
    def test_slow(overfit):
        overfit(model(), DATA, nn.MSELoss(), lr=1e-5)

    @pytest.mark.overfit(objective=0.001, max_steps=40, diagnose=False)
    def test_without_a_cause(overfit):
        overfit(model(), DATA, nn.MSELoss(), lr=1e-2)

    @pytest.mark.overfit(objective={"below": 0.01, "relative": True}, max_steps=40, diagnose=False)
    def test_relative(overfit):
        overfit(model(), DATA, nn.MSELoss(), lr=1e-2)

    @pytest.mark.overfit(objective=0.01, max_steps=20, seeds=[1, 2])
    def test_seeds(overfit):
        overfit(model(), DATA, nn.MSELoss(), lr=1e-5)

    def test_shapes(overfit):
        overfit(model(), (DATA[0][:, :3], DATA[1]), nn.MSELoss())
"""
FROZEN = "--overfit-set=optim.frozen_module_names=['*camera_head*']"


@pytest.fixture
def forms(pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> pytest.RunResult:
    """A session in which all fails, with every form turned on."""
    tiny()
    pytester.makepyfile(test_all=TESTS)
    for name, value in (("CI", "true"), ("GITHUB_ACTIONS", "true"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "step.md"))
    return pytester.runpytest_inprocess(
        "test_all.py", "--overfit-config=tiny.yaml", FROZEN, "--overfit-max-steps=20",
        "--overfit-report=report", "--junitxml=junit.xml",
    )  # fmt: skip


def of_log(result: pytest.RunResult) -> dict[str, str]:
    """Test or item -> the line by which the terminal lists its failure."""
    lines = (re.fullmatch(r"FAILED (\S+) - (.*)", line) for line in result.outlines)
    return {found[1]: found[2] for found in lines if found}


def test_every_form_begins_as_the_terminal_does(pytester: pytest.Pytester, forms: pytest.RunResult) -> None:
    """Record, page, overview, summaries, annotation and JUnit."""
    log, folder = of_log(forms), pytester.path / "report"
    documents = read_report(folder)
    assert len(documents) == 6
    whole = {
        form: flat(path.read_text(encoding="utf-8"))
        for form, path in (("overview", folder / "index.html"), ("summary", folder / "summary.md"),
                           ("step summary", pytester.path / "step.md"))
    }  # fmt: skip
    commands = [line.rpartition("::")[2].partition("%0A")[0] for line in forms.outlines if line.startswith("::error")]
    for document in documents:
        nodeids = [nodeid for nodeid in log if nodeid.startswith(document.title)]
        told = log[nodeids[0]]
        assert document.first_line == told
        run = folder / "runs" / document.id
        each = {name: flat((run / name).read_text(encoding="utf-8")) for name in ("record.md", "index.html")}
        for form, text in {**whole, **each}.items():
            assert flat(told).rstrip(".") in text, f"{form}: {told}"
        assert told in commands
    for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase"):
        if (failure := case.find("failure")) is not None:
            name = str(case.get("name"))
            line = next(line for nodeid, line in log.items() if nodeid.endswith(f"::{name}"))
            assert failure.get("message") == line


def test_the_judged_number_is_one_number(pytester: pytest.Pytester, forms: pytest.RunResult) -> None:
    """What stands beside a limit, in tables too, is what was held against it, and not the last step."""
    for document in read_report(pytester.path / "report"):
        if document.result is None or not (limit := document.limits.get("objective")):
            continue
        (finding,) = (each for each in document.findings if each.name == "objective")
        judged, allowed = re.findall(r"objective (\S+)", finding.observed)[0], limit.text()
        run = pytester.path / "report" / "runs" / document.id
        record, page = ((run / name).read_text(encoding="utf-8") for name in ("record.md", "index.html"))
        overview = flat((pytester.path / "report" / "index.html").read_text(encoding="utf-8"))
        assert f"| objective | {judged} | {allowed} |" in record
        assert f"Objective {judged} {allowed}" in flat(page)
        assert f"{judged} {allowed}" in overview
