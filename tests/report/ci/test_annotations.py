"""Workflow commands: one per cause, or per criterion without one, and no text can make another one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.annotations import annotations as annotate
from pytest_overfit.report.ci.annotations import escape_data, escape_property
from pytest_overfit.report.record.document import Document
from pytest_overfit.result import OverfitResult
from pytest_overfit.text.failure import alone, headline, told
from pytest_overfit.text.translations import translated
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


def uncaused(title: str = "configs/a.yaml") -> Document:
    """A run that missed two criteria, of which nobody knows why."""
    findings = Finding("camera", False, "loss_camera 0.2", "< 0.001"), Finding("depth", False, "loss_depth 3", "< 0.01")
    return finished(title, OverfitResult(record(), findings))


def test_one_for_every_criterion_without_a_cause() -> None:
    """Its file, its name, its text."""
    commands = [read(command) for command in annotate([uncaused(), healthy()])]
    assert [command[:2] for command in commands] == [
        ("configs/a.yaml", f"overfit {name}: configs/a.yaml") for name in ("camera", "depth")
    ]
    assert [command[2] for command in commands] == [alone(finding) for finding in uncaused().findings]


def test_one_for_all_that_one_cause_fails() -> None:
    """The limit that was missed and the cause, where and what to change, and the other criteria by name."""
    document = broken("missing_step")
    assert document.result is not None
    missed = [finding for finding in document.findings if finding.missed]
    assert [finding.name for finding in missed] == ["gradients", "objective"]
    [command] = annotate([document, healthy()])
    assert "title=overfit objective%3A tests/test_missing_step.py%3A%3Atest_learns::" in command
    message = command.rpartition("::")[2].replace("%0A", "\n").replace("%25", "%").splitlines()
    head = headline(missed, document.result.causes)
    assert message == [head, *told(head, document.result.causes, most=1), "  missed too: gradients"]
    assert translated(message[-1], "zh") == "  同样未达到：gradients"


CAUSE = Cause("lr-high", "(Adam), group 0", "objective climbs from 2.3 to 41", "set lr=0.001")


@pytest.mark.parametrize(
    ("cause", "places", "shown"),
    [
        (replace(CAUSE, advice="svc/train.py:12: lr=0.001"), {"objective": "a.yaml:7"}, "svc/train.py,line=12"),
        (replace(CAUSE, where="conf/base.yaml:9 optim.lr: group 0"), {"": "a.yaml:1"}, "conf/base.yaml,line=9"),
        (replace(CAUSE, where="/opt/lib/loss.py:3"), {"objective": "a.yaml:7"}, "a.yaml,line=7"),
        (replace(CAUSE, where=".venv/site-packages/x.py:3"), {"camera": "a.yaml:8"}, "a.yaml,line=8"),
        (CAUSE, {"": "tests/helper.py:12"}, "tests/helper.py,line=12"),
        (CAUSE, {}, "a.yaml"),
    ],
    ids=["the line to change", "the key of a config", "not of the repository", "a library", "the call", "nothing"],
)
def test_the_line_of_the_cause(cause: Cause, places: dict[str, str], shown: str) -> None:
    """Where it is known, else that of the criterion's key, else of the call."""
    findings = Finding("camera", False, "loss_camera 0.2", "< 0.001"), Finding("objective", False, "41", "< 0.01")
    result = OverfitResult(record(), findings, causes=(cause,))
    [command] = annotate([finished("a.yaml", result, places=places)])
    assert command.startswith(f"::error file={shown},title=")


def test_every_run_is_among_the_first() -> None:
    """GitHub shows ten: the first failure of each run comes before the second of any."""
    runs = [uncaused(f"runs/{i}.yaml") for i in range(3)]
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


def test_one_for_a_run_that_was_ended() -> None:
    """What had not held until then is no failure of its own."""
    error = "ended by SIGTERM at step 12 of 600"
    document = replace(uncaused(), state="interrupted", error=error)
    [command] = annotate([document])
    told = ["  not held until then: camera, depth", "  loss_camera 0.2, allowed < 0.001"]
    assert read(command)[2].splitlines() == [f"the run was interrupted: {error}", *told]


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
    assert read(command)[2] == alone(finding)


def alike(count: int, *, place: str = "tests/test_a.py:12") -> list[Document]:
    """Parameters of one test that fail for one cause, each with its own number."""
    documents = []
    for at in range(count):
        finding = Finding("objective", False, f"objective 0.{at + 1}", "< 0.01")
        result = OverfitResult(record(), (finding,), causes=(CAUSE,))
        documents.append(finished(f"tests/test_a.py::test_b[{at}]", result, places={"": place}))
    return documents


def test_runs_that_fail_alike_are_one() -> None:
    """Of one cause at one place: the first in words, how many they are and the first three by name."""
    (command,) = annotate(alike(12))
    assert "12 runs fail so: " in command
    assert "objective 0.1, allowed < 0.01" in command
    names = ", ".join(f"tests/test_a.py::test_b[{at}]" for at in range(3))
    assert command.endswith(f"%0A  12 runs fail so: {names} and 9 more")
    assert translated(f"  12 runs fail so: {names} and 9 more", "zh").endswith("等，另有 9 项")


def test_errors_at_one_place_are_one() -> None:
    """Whatever numbers they have."""
    errors = [f"RuntimeError: {at} is no shape" for at in range(4)]
    shown = {"": "tests/test_a.py:12"}
    runs = [finished(f"t.py::t[{at}]", None, error=error, places=shown) for at, error in enumerate(errors)]
    (command,) = annotate(runs)
    assert "RuntimeError: 0 is no shape" in command
    assert "and 1 more" in command


def test_other_places_and_causes_stay_apart() -> None:
    """What has no place is its own too."""
    other = alike(1)[0]
    assert other.result is not None
    low = replace(other, result=replace(other.result, causes=(replace(CAUSE, id="lr-low"),)))
    assert len(annotate([*alike(2), *alike(2, place="tests/test_a.py:30"), low])) == 3
    assert len(annotate([replace(each, places={}) for each in alike(3)])) == 3


def test_each_stands_at_its_line() -> None:
    """That of the criterion's key, else of the call."""
    document = replace(uncaused(), places={"camera": "a.yaml:7", "": "tests/helper.py:12"})
    first, second = annotate([document])
    assert first.startswith("::error file=a.yaml,line=7,title=")
    assert second.startswith("::error file=tests/helper.py,line=12,title=")
