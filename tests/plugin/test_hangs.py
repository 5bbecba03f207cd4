"""Code that hangs under a limit: the session comes back red, names the line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.plugin.conftest import TinyConfig

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals"),
    pytest.mark.timeout(600),  # against hanging alone
]
LIMIT = ("--overfit-max-seconds", "3")
PATIENCE = 500.0
NET = """\
import ctypes, sys, time
import torch
from torch import nn
from torch.nn import functional as F

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))

def batch():
    return torch.randn(12, 8), torch.arange(12) % 3

def loss(model, data):
    return F.cross_entropy(model(data[0]), data[1])

def hang():
    time.sleep(1e6)  # here

def within(name):
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.endswith(name):
        frame = frame.f_back
    return frame is not None
"""
HANGS_IN = """
def bad(model, data):
    if within("{file}"):
        hang()
    return loss(model, data)
"""
HERE = 1 + NET.splitlines().index("    time.sleep(1e6)  # here")


def session(pytester: pytest.Pytester, test: str, *args: str) -> pytest.RunResult:
    """A session of its own over one file."""
    pytester.makepyfile(test_it=NET + test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, "test_it.py", timeout=PATIENCE)


def config_session(pytester: pytest.Pytester, tiny: TinyConfig, module: str) -> pytest.RunResult:
    """A session of its own over the tiny config, with the ``Model`` of a module."""
    tiny(replace=(("tests.support.tiny.Memoriser", "stuck.Model"),))
    pytester.makepyfile(stuck=module)
    command = ("-p", "no:cacheprovider", "--overfit-config", "tiny.yaml", *LIMIT)
    result = pytester.runpytest_subprocess(*command, timeout=PATIENCE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    return result


def text_of(result: pytest.RunResult) -> str:
    return "\n".join((*result.outlines, *result.errlines))


def test_a_loss_that_hangs_is_red_and_the_next_test_runs(pytester: pytest.Pytester) -> None:
    """One failure with the line, in the terminal and in JUnit; the session goes on."""
    result = session(
        pytester,
        """
def bad(model, data):
    hang()

def test_hangs(overfit):
    overfit(net, batch(), bad)

def test_learns(overfit):
    overfit(net, batch(), loss, max_seconds=None)
""",
        *LIMIT,
        "--junitxml=junit.xml",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"E *objective: HUNG: did not come back within 3 s (*): hang at test_it.py:{HERE}: time.sleep(1e6)*",
            f"E *note: stack: hang at test_it.py:{HERE}: * < bad at test_it.py:*: hang() < test_hangs at test_it.py:*",
        ]
    )
    failures = [*ET.parse(pytester.path / "junit.xml").iter("failure")]
    assert len(failures) == 1
    assert f"hang at test_it.py:{HERE}" in str(failures[0].get("message")) + str(failures[0].text)


def test_the_report_has_the_line(pytester: pytest.Pytester) -> None:
    """The record says hung and where; so do its page and its Markdown, in both languages."""
    test = "\ndef test_hangs(overfit):\n    overfit(net, batch(), lambda model, data: hang())\n"
    result = session(pytester, test, *LIMIT, "--overfit-report=report", "--overfit-lang=zh")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (path,) = (pytester.path / "report").glob("runs/*/record.json")
    document = json.loads(path.read_text(encoding="utf-8"))["overfit"]
    record = document["result"]["record"]
    assert (document["state"], record["stop"], record["hung"]["limit"]) == ("finished", "hung", 3.0)
    assert record["hung"]["where"].startswith(f"hang at test_it.py:{HERE}")
    for form in ("index.html", "record.md"):
        assert f"test_it.py:{HERE}" in (path.parent / form).read_text(encoding="utf-8")
    assert "代码挂起" in (path.parent / "record.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "body",
    [
        "    while True:\n        try:\n            hang()\n        except BaseException:\n            pass\n",
        "    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)\n"
        "    lock(mutex)\n    lock(mutex)\n",
    ],
    ids=["keeps whatever is raised", "C code"],
)
def test_what_cannot_be_stopped_ends_the_process(
    pytester: pytest.Pytester, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, the line on stderr past the capture, and every form says killed, and where."""
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    test = f"\ndef bad(model, data):\n{body}\ndef test_hangs(overfit):\n    overfit(net, batch(), bad)\n"
    result = session(pytester, test, *LIMIT, "--overfit-report=report")
    assert result.ret == 1
    result.stderr.fnmatch_lines(
        ["overfit: did not come back within 3 s (*): * at test_it.py:*", "overfit: it cannot be stopped: *"]
    )
    [annotation] = [line for line in result.errlines if line.startswith("::error")]
    for form in (annotation, summary.read_text(), (pytester.path / "report" / "summary.md").read_text()):
        assert "did not come back within 3 s" in form
    assert (pytester.path / "report" / "index.html").is_file()
    (path,) = (pytester.path / "report").glob("runs/*/record.json")
    document = json.loads(path.read_text(encoding="utf-8"))["overfit"]
    assert document["state"] == "killed"
    assert document["error"].startswith("hung: did not come back within 3 s")
    assert " at test_it.py:" in document["error"]


def test_c_code_that_holds_the_interpreter_ends_the_process(pytester: pytest.Pytester) -> None:
    """Nothing of Python can run any more: faulthandler's thread writes the stack and ends it."""
    test = """
def bad(model, data):
    ctypes.PyDLL(None).sleep(10000)

def test_hangs(overfit):
    overfit(net, batch(), bad)
"""
    result = session(pytester, test, *LIMIT)
    assert result.ret == 1
    line = (NET + test).splitlines().index("    ctypes.PyDLL(None).sleep(10000)") + 1
    result.stderr.fnmatch_lines([f'*test_it.py", line {line} in bad'])


def test_a_diagnosis_that_hangs_leaves_the_verdict(pytester: pytest.Pytester) -> None:
    """The criteria are judged as they were, and the report says what was not asked, and where it hung."""
    result = session(
        pytester,
        HANGS_IN.format(file="changes.py")
        + """
def test_misses(overfit):
    overfit(net, batch(), bad, max_steps=3, diagnose_seconds=3)
""",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "HUNG" not in text_of(result)
    result.stdout.fnmatch_lines(
        [
            "E *objective: objective *, allowed < 0.01*",
            f"E *note: not asked: the rest of the diagnosis: out of time (trial *, hung in hang at *:{HERE}: *",
        ]
    )


def test_a_probe_that_hangs_is_not_none_found(pytester: pytest.Pytester) -> None:
    """Every limit is met, and the defects are not judged: skipped is no pass for ``--overfit-strict``."""
    result = session(
        pytester,
        HANGS_IN.format(file="inspector.py")
        + """
def test_learns(overfit):
    result = overfit(net, batch(), bad, diagnose_seconds=3)
    assert result.passed
    assert result.record.stop == "passed"
    assert not result.finding("defects").judged
    assert "hung in hang at test_it.py" in result.finding("defects").observed
    assert len(result.not_asked) == 1
""",
    )
    result.assert_outcomes(passed=1)


def test_a_worker_of_a_loader_that_hangs(pytester: pytest.Pytester) -> None:
    """The worker's own line is named, although the main process only waits."""
    result = session(
        pytester,
        """
class Stuck(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        hang()

def test_hangs(overfit):
    overfit(net, torch.utils.data.DataLoader(Stuck(), num_workers=2), loss)
""",
        *LIMIT,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *waiting for a DataLoader worker: hang at test_it.py:{HERE}: *"])


def test_a_model_of_a_config_that_hangs_when_it_is_built(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """What comes before the run has the limit too: it fails with the line, once, and no run is made."""
    module = (
        "import time, torch\nclass Model(torch.nn.Module):\n    def __init__(self):\n"
        "        open('built', 'a').write('x')\n        time.sleep(1e6)\n"
    )
    result = config_session(pytester, tiny, module)
    result.stdout.fnmatch_lines(
        ["config: HUNG: did not come back within 3 s (model): __init__ at stuck.py:5: *", "*where: model"]
    )
    assert Path("built").read_text(encoding="utf-8") == "x"


def test_the_validation_of_a_config_that_hangs(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The run is red, its first limit says where, and the others are not judged."""
    module = """
from tests.support.tiny import Memoriser

class Model(Memoriser):
    def forward(self, *args, **kwargs):
        if within("loop.py") and not self.training:
            hang()
        return super().forward(*args, **kwargs)
"""
    result = config_session(pytester, tiny, NET + module)
    result.stdout.fnmatch_lines(
        [
            f"run: HUNG: did not come back within 3 s (training): hang at stuck.py:{HERE}: *",
            "FAILED *run *HUNG: did not come back within 3 s *",
            f"* of 200 steps in * HUNG: did not come back within 3 s (training): hang at stuck.py:{HERE}: *",
        ]
    )


def test_pytest_timeout_goes_first_where_it_is_shorter(pytester: pytest.Pytester) -> None:
    """Its signal and its handler are its own. A first test has imported what its seconds are not meant for."""
    pytest.importorskip("pytest_timeout")
    test = """
import pytest

@pytest.mark.timeout(600)
def test_learns(overfit):
    overfit(net, batch(), loss)

def test_hangs(overfit):
    overfit(net, batch(), lambda model, data: hang(), max_seconds=60)
"""
    result = session(pytester, test, "--timeout=5")
    result.assert_outcomes(passed=1, failed=1)
    assert "Timeout" in text_of(result)
    assert "HUNG" not in text_of(result)
