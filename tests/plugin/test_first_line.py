"""A failure reads in ten seconds: cause and number first, one line for each further criterion, wherever it is read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.plugin.conftest import TinyConfig

FROZEN = ("--overfit-set=optim.frozen_module_names=['*camera_head*']", "--overfit-max-steps=20")
CAUSE = re.compile(r"\S.* 2 of 4 parameter tensors are frozen by '\*camera_head\*'")
MOST_LINES, MOST = 35, 120


@pytest.fixture
def session(pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a session of one config that fails."""
    tiny()
    monkeypatch.setenv("CI", "true")  # where pytest cuts nothing off
    return ["--overfit-config=tiny.yaml", *FROZEN]


def test_a_quiet_session_is_short(pytester: pytest.Pytester, session: list[str]) -> None:
    """The first item that fails tells the cause, once; the others are a line each."""
    result = pytester.runpytest_inprocess("-q", *session)
    assert len(result.outlines) <= MOST_LINES, result.outlines
    summary = [line.partition(" - ")[2] for line in result.outlines if line.startswith("FAILED tiny.yaml::")]
    assert CAUSE.match(summary[0])
    assert all(len(line) <= MOST for line in summary)
    assert all(line.endswith(": frozen, see ::objective") for line in summary[1:])
    assert sum("change: " in line for line in result.outlines) == 1
    assert sum("pytest-overfit explain frozen" in line for line in result.outlines) == 1
    assert sum(line.startswith("____") for line in result.outlines) == 1
    rows = [line.split()[1] for line in result.outlines if line.startswith("FAILED   ")]
    assert rows == [line.partition("::")[2].split()[0] for line in result.outlines if line.startswith("FAILED tiny")]


def test_a_quiet_session_is_short_without_a_cause(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first criterion is told in full, the others are a row each, those that are too many a name."""
    monkeypatch.setenv("CI", "true")
    tiny()
    more = [f"--overfit-set=overfit.criteria.{term}=1e-6" for term in ("loss_T", "loss_R", "loss_FL")]
    args = ("--overfit-config=tiny.yaml", "--overfit-max-steps=5", "--overfit-set=overfit.diagnose=false", *more)
    result = pytester.runpytest_inprocess("-q", *args)
    assert len(result.outlines) <= MOST_LINES, result.outlines
    assert sum(line.startswith("____") for line in result.outlines) == 1
    assert result.parseoutcomes()["failed"] > 5
    *rows, names = [line.removeprefix("FAILED   ") for line in result.outlines if line.startswith("FAILED   ")]
    failed = [line.partition("::")[2].split()[0] for line in result.outlines if line.startswith("FAILED tiny")]
    assert [*(row.split()[0] for row in rows), *names.split(", ")] == failed


def test_a_quiet_session_has_a_row_for_the_item_that_keeps_the_others_from_a_verdict(
    pytester: pytest.Pytester, tiny: TinyConfig
) -> None:
    """What was not judged is a row beside it, and what holds is counted."""
    tiny()
    result = pytester.runpytest_inprocess("-q", "--overfit-config=tiny.yaml", "--overfit-set=model._target_=no.Such")
    assert sum(line.startswith("FAILED   config ") for line in result.outlines) == 1
    assert sum(line.startswith("skipped  ") for line in result.outlines) == 1
    assert len(result.outlines) <= MOST_LINES


def test_a_quiet_session_counts_what_pytest_counts(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Items: those before a run are no criteria."""
    tiny()
    result = pytester.runpytest_inprocess("-q", "--overfit-config=tiny.yaml", "-k", "config or pair")
    passed = result.parseoutcomes()["passed"]
    assert f"ok       {passed} of {passed} items" in result.outlines


def test_one_line_per_failure(pytester: pytest.Pytester, session: list[str]) -> None:
    """Of ``--tb=line``, with the line of the config."""
    result = pytester.runpytest_inprocess("--tb=line", *session)
    begin = next(place for place, line in enumerate(result.outlines) if " FAILURES " in line)
    end = next(place for place, line in enumerate(result.outlines) if "overfit tiny.yaml -" in line)
    shown, failed = result.outlines[begin + 1 : end], result.parseoutcomes()["failed"]
    assert len(shown) == failed
    assert all(re.search(r"tiny\.yaml:\d+: ", line) for line in shown)


def test_junit_has_the_first_line_and_what_passed_is_passed(pytester: pytest.Pytester, session: list[str]) -> None:
    """The line of the key is that of the file."""
    pytester.runpytest_inprocess("--junitxml=out.xml", "-o", "junit_family=xunit1", *session)
    for case in ElementTree.parse(pytester.path / "out.xml").iter("testcase"):
        verdict = {each.get("name"): each.get("value") for each in case.iter("property")}.get("overfit.verdict")
        failure = case.find("failure")
        assert verdict in (None, "passed" if failure is None else "failed")
        if case.get("name") == "objective" and failure is not None:
            assert CAUSE.fullmatch(str(failure.get("message")))
            assert "change: " in str(failure.text)
            line = (pytester.path / "tiny.yaml").read_text().splitlines()[int(str(case.get("line")))]
            assert "optim" in line


@pytest.mark.parametrize("below", [False, True])
def test_a_key_is_told_in_the_file_that_writes_it(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    """JUnit, annotation and list of failures name the extended file where the key is its, and its line there."""
    base = tiny("base.yaml")
    own = "overfit:\n  criteria:\n    objective: 1e-9\n"
    (pytester.path / "top.yaml").write_text(f"# The top.\ndefaults: [base]\n{own if below else ''}", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    args = ("--tb=line", "--junitxml=out.xml", "-o", "junit_family=xunit1", "--overfit-max-steps=5")
    result = pytester.runpytest_inprocess("--overfit-config=top.yaml", "--overfit-set=overfit.diagnose=false", *args)
    cases = ElementTree.parse(pytester.path / "out.xml").iter("testcase")
    case = next(case for case in cases if case.get("name") == "objective")
    file, line = ("top.yaml", 5) if below else ("base.yaml", written(base.read_text(), "overfit:"))
    assert (case.get("file"), int(str(case.get("line"))) + 1) == (file, line)
    assert any(f"{file}:{line}: " in each for each in result.outlines)
    assert any(each.startswith(f"::error file={file},line={line},") for each in result.outlines)


def written(text: str, name: str) -> int:
    """The line of a text that begins with this name, from 1."""
    lines = text.splitlines()
    return next(at + 1 for at, line in enumerate(lines) if line.strip().startswith(name))


def test_a_misspelt_key_is_mended_in_the_file_that_writes_it(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The line to change is that of the extended file."""
    base = tiny("base.yaml", replace=(("optimizer: {", "optimzer: {"),))
    (pytester.path / "top.yaml").write_text("defaults: [base]\n", encoding="utf-8")
    result = pytester.runpytest_inprocess("-q", "--overfit-config=top.yaml")
    line = written(base.read_text(), "optimzer:")
    assert any(f"change: base.yaml:{line}: optimizer: {{" in each for each in (*result.outlines, *result.errlines))


def test_a_config_is_told_the_line_of_its_own_model(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The file that its model is in, with the line as it should read."""
    pytester.makepyfile(
        theirs="""
        from tests.support.tiny import Memoriser

        class Cut(Memoriser):
            def forward(self, images):
                told = super().forward(images)
                told["pose_enc_list"] = [each.detach() for each in told["pose_enc_list"]]
                return told
        """
    )
    tiny(replace=(("tests.support.tiny.Memoriser", "theirs.Cut"),))
    result = pytester.runpytest_inprocess("-q", "--overfit-config=tiny.yaml", "--overfit-max-steps=20")
    line = next(line for line in result.outlines if line.startswith("  change: "))
    assert line == '  change: theirs.py:6: told["pose_enc_list"] = [each for each in told["pose_enc_list"]]'
