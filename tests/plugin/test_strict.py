"""A strict session: whatever leaves an overfit test unjudged makes it fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import ITEMS, outcomes

CPU = ("--overfit-strict", "--overfit-device=cpu")
SHORT = "--overfit-set=overfit.budget.max_steps=20"
HEAD = """
import pytest
import torch

@pytest.fixture
def run(overfit):
    def run(**settings):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        batch = torch.randn(8, 4), torch.randn(8, 1)
        adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)
        return overfit(net, batch, torch.nn.functional.mse_loss, optimizer=adam, diagnose=False, **settings)
    return run
"""
LEARNS = "def test_learns(run): run()"
MISSES = "objective=1e-30, max_steps=20"


def session(
    pytester: pytest.Pytester, *tests: str, args: Sequence[str] = CPU, workers: bool = False
) -> pytest.RunResult:
    """A session on these tests, in this process; with workers in another."""
    pytester.makepyfile(test_it="\n\n".join([HEAD, *tests]))
    return (pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess)(*args)


def no_gpu() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count():
        pytest.skip("this machine has a GPU")


SKIPS = {
    "body": "def test_skipped(overfit): pytest.skip('no weights')",
    "unused fixture": "def test_skipped(overfit_batch): pytest.skip('no weights')",
    "marked": "@pytest.mark.overfit(max_steps=5)\ndef test_skipped(): pytest.skip('no weights')",
    "mark": "@pytest.mark.skip(reason='no weights')\ndef test_skipped(run): run()",
    "condition": "@pytest.mark.skipif(True, reason='no weights')\ndef test_skipped(run): run()",
    "fixture": "@pytest.fixture\ndef overfit_model(): pytest.skip('no weights')\n\n"
    "def test_skipped(overfit): overfit(data=1)",
    "unittest": "import unittest\n\n@pytest.mark.overfit\nclass TestIt(unittest.TestCase):\n"
    "    def test_skipped(self): self.skipTest('no weights')",
}


@pytest.mark.parametrize("how", SKIPS)
def test_a_skip_fails(pytester: pytest.Pytester, how: str) -> None:
    """However it is skipped: seen, allowed, where, what to do next. An ordinary skip is none of it."""
    if how == "unused fixture":
        pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_batch(): return 1")
    ordinary = "def test_own(): pytest.skip('own reasons')"
    lenient = session(pytester, SKIPS[how], ordinary, args=())
    assert lenient.ret == pytest.ExitCode.OK
    assert lenient.parseoutcomes() == {"skipped": 2}
    result = session(pytester, SKIPS[how], ordinary)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = result.parseoutcomes()
    assert outcomes["skipped"] == 1
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    result.stdout.fnmatch_lines(
        [
            "*test_it.py::*test_skipped: it was skipped: no weights",
            "*allowed: overfit tests that run (--overfit-strict)",
            "*next: make it run here, or leave it out of this session (-k, -m, --deselect)",
        ]
    )


def test_a_skipped_item_of_a_config_fails(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A conftest's model that is not there skips every item that needs it."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(): pytest.skip('no weights')")
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "config or camera", *CPU)
    result.assert_outcomes(failed=2, deselected=13)
    result.stdout.fnmatch_lines(
        [
            "tiny.yaml::camera: it was skipped: no weights",
            "--overfit-strict: no criterion was judged in this session: 2 overfit tests ran, and no run came to a *",
        ]
    )


def test_an_expected_miss_fails(pytester: pytest.Pytester) -> None:
    """A test that shows a miss on purpose says so itself."""
    expected = f"@pytest.mark.xfail(reason='learns slowly')\ndef test_slow(run): run({MISSES})"
    raising = f"def test_gate(run):\n    with pytest.raises(AssertionError): run({MISSES})"
    session(pytester, expected, raising, args=()).assert_outcomes(xfailed=1, passed=1)
    result = session(pytester, expected, raising)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_slow: it failed, as its xfail expects: learns slowly"])


def test_a_file_that_skips_itself_fails(pytester: pytest.Pytester) -> None:
    """One that speaks of overfit; another may."""
    pytester.makepyfile(
        test_gate="import pytest\npytest.importorskip('no_such_package')\n\ndef test_a(overfit): pass",
        test_other="import pytest\npytest.importorskip('no_such_package')",
    )
    assert session(pytester, LEARNS, args=()).ret == pytest.ExitCode.OK
    result = session(pytester, LEARNS)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(["test_gate.py: the whole file was skipped, and it speaks of overfit: could not *"])


@pytest.mark.parametrize(
    ("device", "named"), [("", False), ("device='auto'", False), ("device='cpu'", True), ("device='model'", True)]
)
def test_a_missing_gpu_fails_where_no_device_is_named(pytester: pytest.Pytester, device: str, named: bool) -> None:
    """In a call; the error says how to name one."""
    no_gpu()
    result = session(pytester, f"def test_learns(run): run({device})", args=["--overfit-strict"])
    result.assert_outcomes(passed=int(named), failed=int(not named))
    if not named:
        result.stdout.fnmatch_lines(["*a GPU is required*", "*next: *such as --overfit-device=cpu"])


@pytest.mark.parametrize("how", ["nothing", "marker", "config", "option"])
def test_a_missing_gpu_fails_a_config_that_names_no_device(
    pytester: pytest.Pytester, tiny: TinyConfig, how: str
) -> None:
    """As --overfit-require-gpu does; a config for the CPU is no contradiction."""
    no_gpu()
    tiny(replace=(("threads: 1", "threads: 1\n  device: cpu"),) if how == "config" else ())
    given = ", device='cpu'" if how == "marker" else ""
    body = "def test_run(overfit_result): assert overfit_result.finding('objective').missed"
    marked = f"@pytest.mark.overfit(config='tiny.yaml', max_steps=20{given})\n{body}"
    args = ["--overfit-strict", *(["--overfit-device=cpu"] if how == "option" else [])]
    result = session(pytester, marked, args=args)
    assert result.parseoutcomes() == ({"errors": 1} if how == "nothing" else {"passed": 1})
    if how != "marker":
        result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", "-k", "config or finite", SHORT, *args)
        result.assert_outcomes(deselected=13, **({"failed": 1, "skipped": 1} if how == "nothing" else {"passed": 2}))


def test_the_table_of_settings_says_who_asks_for_a_gpu(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Of a config, and of a marked test."""
    tiny()
    pytester.makepyfile("import pytest\n\n@pytest.mark.overfit(max_steps=5)\ndef test_it(overfit): pass")
    result = pytester.runpytest_inprocess(
        ".", "--overfit-config=tiny.yaml", "--overfit-explain", "--overfit-strict", "--collect-only"
    )
    assert result.ret == pytest.ExitCode.OK
    result.stdout.re_match_lines([r"  overfit\.require_gpu +on +--overfit-strict", r"  require_gpu +on +--overfit-s"])


NOTHING = {
    "ordinary tests": ("def test_own(): pass", (), "no overfit test ran"),
    "all deselected": (LEARNS, ("-k", "nothing"), "no overfit test ran, and 1 tests were deselected"),
    "no call": ("def test_idle(overfit): pass", (), "1 overfit test ran, and no run came to a verdict"),
}


@pytest.mark.parametrize("how", NOTHING)
@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_session_that_judged_nothing_fails(pytester: pytest.Pytester, how: str, quiet: tuple[str, ...]) -> None:
    """Exit code 1, and a line that says why."""
    test, args, why = NOTHING[how]
    result = session(pytester, test, args=[*CPU, *args, *quiet])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"--overfit-strict: no criterion was judged in this session: {why}",
            "  allowed: at least one overfit run that comes to a verdict",
            "  next: name a config (--overfit-config FILE), or look at the paths, -k and -m",
        ]
    )


def test_stages_are_no_criteria(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A config whose items before the run alone were selected has judged nothing."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", "-k", "pair or loader", *CPU)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--overfit-strict: no criterion was judged *: 2 overfit tests ran, and no run *"])


@pytest.mark.parametrize("flag", ["--collect-only", "--fixtures", "--setup-plan"])
def test_a_session_that_only_looks_is_no_gate(pytester: pytest.Pytester, flag: str) -> None:
    """Nothing was to be judged."""
    assert session(pytester, LEARNS, args=[*CPU, flag]).ret == pytest.ExitCode.OK


def test_a_config_without_criteria_is_a_usage_error(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """In every session, a strict one too."""
    names = ("objective", "camera", "depth", "monotonic", "finite", "gradients", "supervised", "constant_batch")
    off = ", ".join(f"{name}: false" for name in (*names, "train_val", "prediction", "defects"))
    tiny(replace=(("threads: 1", f"threads: 1\n  criteria: {{{off}}}"),))
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", *CPU)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*nothing asks for learning*"])


def test_an_interrupted_run_fails_its_test(pytester: pytest.Pytester) -> None:
    """Whoever caught the interruption."""
    test = """
def test_caught(overfit):
    def loss(model, batch):
        loss.calls = getattr(loss, "calls", 0) + 1
        if loss.calls == 9:
            raise KeyboardInterrupt
        return model(batch).square().mean()

    with pytest.raises(KeyboardInterrupt):
        overfit(torch.nn.Linear(4, 1), torch.randn(8, 4), loss, supervised=False, max_steps=50)
"""
    session(pytester, test, args=()).assert_outcomes(passed=1)
    result = session(pytester, test)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_caught: an overfit run was interrupted, and the test passed all the same"])


def test_a_session_that_was_stopped_fails(pytester: pytest.Pytester) -> None:
    """An exit code of 0 is not for those who leave early."""
    leaves = "def test_leaves(): pytest.exit('enough', returncode=0)"
    assert session(pytester, LEARNS, leaves, args=()).ret == pytest.ExitCode.OK
    result = session(pytester, LEARNS, leaves)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--overfit-strict: the session was stopped before its end: enough"])


@pytest.mark.parametrize(("args", "failed"), [(("-x",), 1), (("--maxfail=2",), 2)])
def test_skips_count_for_maxfail(pytester: pytest.Pytester, args: tuple[str, ...], failed: int) -> None:
    """What runs after them is left alone."""
    skips = [f"def test_{index}(overfit): pytest.skip()" for index in range(3)]
    result = session(pytester, *skips, LEARNS, args=[*CPU, *args])
    result.assert_outcomes(failed=failed)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("how", ["option", "ini"])
def test_a_session_that_judges_passes(pytester: pytest.Pytester, how: str) -> None:
    """Ordinary skips and all; the ini key asks for the same."""
    if how == "ini":
        pytester.makeini("[pytest]\noverfit_strict = true\noverfit_device = cpu\n")
    own = "def test_own(): pytest.skip()"
    args = CPU if how == "option" else ()
    assert session(pytester, LEARNS, own, args=args).ret == pytest.ExitCode.OK
    assert session(pytester, own, args=args).ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.skipif(os.name == "nt", reason="slow to start")
def test_workers_fail_and_the_controller_decides(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Under pytest-xdist: a run of a call or of a config counts wherever it was made, and so does a skip."""
    pytest.importorskip("xdist")
    tiny()
    args = [*CPU, "-n", "2"]
    judged = session(pytester, LEARNS, "def test_own(): pytest.skip()", args=args, workers=True)
    assert judged.ret == pytest.ExitCode.OK
    judged = pytester.runpytest_subprocess("--overfit-config=tiny.yaml", "-k", "finite", SHORT, *args)
    assert judged.ret == pytest.ExitCode.OK
    skipped = session(pytester, LEARNS, SKIPS["body"], args=args, workers=True)
    skipped.assert_outcomes(passed=1, failed=1)
    skipped.stdout.fnmatch_lines(["*test_it.py::test_skipped: it was skipped: no weights"])
    nothing = session(pytester, "def test_own(): pass", args=args, workers=True)
    assert nothing.ret == pytest.ExitCode.TESTS_FAILED
    nothing.stdout.fnmatch_lines(["--overfit-strict: no criterion was judged in this session: no overfit test ran"])


UNJUDGED = """
import dataclasses
import pytest_overfit.api
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.judge.finding import Finding

judged = pytest_overfit.api.judged

def unjudged(*args, **kwargs):
    verdict = judged(*args, **kwargs)
    rest = [finding for finding in verdict.findings if finding.name != "defects"]
    found = [Finding("defects", False, "a question broke", "", judged=False)] * {finding}
    asked = tuple(NotAsked(f"question {{i}}", "IndexError", ours=True) for i in range({mistakes}))
    return dataclasses.replace(verdict, findings=(*rest, *found), not_asked=asked)

pytest_overfit.api.judged = unjudged
"""


@pytest.fixture
def broken(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """A diagnosis that leaves ``defects`` unjudged, and makes mistakes of ours."""
    import pytest_overfit.api

    def make(finding: int, mistakes: int) -> None:
        monkeypatch.setattr(pytest_overfit.api, "judged", pytest_overfit.api.judged)
        pytester.makeconftest(UNJUDGED.format(finding=finding, mistakes=mistakes))

    return make


@pytest.mark.parametrize(("finding", "mistakes"), [(1, 0), (0, 1)])
def test_what_was_not_judged_fails_a_call(
    pytester: pytest.Pytester, broken: Callable[[int, int], None], finding: int, mistakes: int
) -> None:
    """In a strict session; else a mistake of ours is a note."""
    broken(finding, mistakes)
    lenient = session(pytester, LEARNS, args=())
    lenient.assert_outcomes(passed=1)
    if mistakes:
        lenient.stdout.fnmatch_lines(["note: not asked: question 0: IndexError; this is a mistake of *"])
    result = session(pytester, LEARNS)
    result.assert_outcomes(failed=1)
    why = "defects: a question broke" if finding else "not asked: question 0: IndexError*"
    result.stdout.fnmatch_lines([f"test_it.py::test_learns: it passed, and this was not judged: {why}"])


@pytest.mark.parametrize(
    ("finding", "mistakes", "chosen", "failed"),
    [(1, 2, "run or finite or defects", "defects"), (0, 2, "run or finite", "run"), (1, 0, "finite", "finite")],
)
def test_what_was_not_judged_fails_one_item(
    pytester: pytest.Pytester,
    tiny: TinyConfig,
    broken: Callable[[int, int], None],
    finding: int,
    mistakes: int,
    chosen: str,
    failed: str,
) -> None:
    """The item ``defects`` is skipped with its reason; a strict session fails it, or who made the run without it."""
    tiny()
    broken(finding, mistakes)
    args = ("--overfit-config=tiny.yaml", "-k", chosen, SHORT)
    passed = dict.fromkeys(chosen.split(" or "), "passed")
    skipped = {failed: "skipped"} if failed == "defects" else {}
    assert outcomes(pytester.runpytest_inprocess(*args)) == {**passed, **skipped}
    assert outcomes(pytester.runpytest_inprocess(*args, *CPU)) == {**passed, failed: "failed"}


def test_many_questions_are_five_lines(
    pytester: pytest.Pytester, tiny: TinyConfig, broken: Callable[[int, int], None]
) -> None:
    """And how many more."""
    tiny()
    broken(1, 7)
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT)
    assert sum(line.startswith("note: not asked: question ") for line in result.outlines) == 5
    result.stdout.fnmatch_lines(["note: not asked either: question 5, question 6"])


def test_without_a_diagnosis_there_are_no_defects(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Neither an item nor a finding: config, marker and call alike; green in a strict session too."""
    tiny()
    off = ("--overfit-set=overfit.diagnose=false", "--overfit-config=tiny.yaml")
    result = pytester.runpytest_inprocess(*off, *CPU)
    result.assert_outcomes(passed=len(ITEMS) - 1)
    assert "ok       defects" not in result.stdout.str()
    marked = "@pytest.mark.overfit(diagnose=False)\ndef test_marked(run): run()"
    result = session(pytester, LEARNS, marked, args=[*CPU, "-v"])
    result.assert_outcomes(passed=2)
    assert "ok       defects" not in result.stdout.str()
