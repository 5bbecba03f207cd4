"""Workflow commands: one per failed criterion, and no text can make another one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.annotations import annotations as annotate
from pytest_overfit.report.ci.annotations import escape_data, escape_property
from pytest_overfit.report.record.document import Document
from pytest_overfit.result import OverfitResult
from pytest_overfit.text.failure import headline, told
from tests.support.documents import broken, finished, healthy, two_view
from tests.support.records import record

COMMAND = re.compile(r"::error file=([^,:\r\n]*),title=([^,:\r\n]*)::([^\r\n]*)")


def read(command: str) -> tuple[str, str, str]:
    """File, title and message, as GitHub's runner takes them apart."""
    found = COMMAND.fullmatch(command)
    assert found is not None, command
    parts = []
    for part in found.groups():
        for sign, code in (("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C"), ("%", "%25")):
            part = part.replace(code, sign)
        parts.append(part)
    return parts[0], parts[1], parts[2]


def test_nothing_for_what_passed() -> None:
    """No notices."""
    assert annotate([healthy(), two_view()]) == []
    assert annotate([]) == []


def test_one_for_every_failed_criterion() -> None:
    """Its file, its name, its text; the cause beside the first."""
    document = broken("missing_step")
    assert document.result is not None
    commands = [read(command) for command in annotate([document, healthy()])]
    missed = [finding for finding in document.findings if not finding.passed]
    assert [finding.name for finding in missed] == ["gradients", "objective"]
    title = "tests/test_missing_step.py::test_learns"
    assert [command[:2] for command in commands] == [
        ("tests/test_missing_step.py", f"overfit {finding.name}: {title}") for finding in missed
    ]
    causes = document.result.causes
    assert commands[0][2].splitlines() == [
        headline(missed[:1], causes),
        *told(headline(missed[:1], causes), causes, most=1),
    ]
    assert [command[2] for command in commands[1:]] == [headline([finding], causes) for finding in missed[1:]]


def test_every_run_is_among_the_first() -> None:
    """GitHub shows ten: the first failure of each run comes before the second of any."""
    runs = [replace(broken("missing_step"), title=f"runs/{i}.yaml") for i in range(3)]
    files = [read(command)[0] for command in annotate(runs)]
    assert files == ["runs/0.yaml", "runs/1.yaml", "runs/2.yaml"] * 2


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ("killed", "SIGKILL", "the run was killed: SIGKILL"),
        ("interrupted", None, "the run was interrupted"),
        ("not_run", "ImportError: vggt", "nothing was run: ImportError: vggt"),
        ("running", None, "the run has not come to its end"),
        ("finished", None, "no criterion was judged"),
    ],
)
def test_one_for_a_run_without_a_verdict(state: Any, error: str | None, message: str) -> None:
    """Although no criterion failed."""
    document = Document("a", "configs/a.yaml", "s", state, "", "", error=error)
    (command,) = annotate([document])
    file, _, told = read(command)
    assert (file, told) == ("configs/a.yaml", message)


def test_a_failed_check_says_why_nothing_was_run() -> None:
    """Once: the state alone would say less."""
    check = Finding("pair", False, "a.exr: 12 depths are NaN", "metres")
    document = Document("a", "configs/a.yaml", "s", "not_run", "", "", checks=(check,), error="see ::pair")
    assert [read(command)[2] for command in annotate([document])] == [check.text()]


@pytest.mark.parametrize(
    ("value", "data", "in_property"),
    [
        ("100 %", "100 %25", "100 %25"),
        ("a\r\nb", "a%0D%0Ab", "a%0D%0Ab"),
        ("x: y, z", "x: y, z", "x%3A y%2C z"),
        ("%0A", "%250A", "%250A"),
        ("::set-env name=A::b", "::set-env name=A::b", "%3A%3Aset-env name=A%3A%3Ab"),
    ],
)
def test_escapes_of_github(value: str, data: str, in_property: str) -> None:
    """As its own toolkit does it."""
    assert escape_data(value) == data
    assert escape_property(value) == in_property


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_makes_a_second_command(title: str, observed: str) -> None:
    """One line, one command, and the message as it was."""
    finding = Finding("objective", False, observed, "< 0.01")
    (command,) = annotate([finished(title, OverfitResult(record(), (finding,)))])
    assert read(command)[2] == finding.text()


def test_each_stands_at_its_line() -> None:
    """That of the criterion's key, else of the call."""
    document = replace(broken("missing_step"), places={"gradients": "a.yaml:7", "": "tests/helper.py:12"})
    first, second = annotate([document])
    assert first.startswith("::error file=a.yaml,line=7,title=")
    assert second.startswith("::error file=tests/helper.py,line=12,title=")
