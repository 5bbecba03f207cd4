"""A strict session: whatever leaves an overfit test unjudged makes it fail."""

from __future__ import annotations

import os

import pytest

from tests.plugin.conftest import TinyConfig
from tests.plugin.strict_sessions import CPU, LEARNS, MISSES, SHORT, session
from tests.support.sessions import ITEMS


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
