"""A test that judged nothing, or has lost a miss, is red in every session."""

# ruff: noqa: E501 - bodies of tests, each on its line

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig

HEAD = """
import contextlib
import unittest

import pytest
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))

def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 1, generator=generator)

@pytest.fixture
def overfit_model(): return net()

@pytest.fixture
def overfit_batch(): return batch()

@pytest.fixture
def overfit_loss(): return torch.nn.functional.mse_loss

@pytest.fixture
def overfit_optimizer(): return lambda parameters: torch.optim.Adam(parameters, lr=0.02)

MISS = dict(objective=1e-30, max_steps=3, diagnose=False)
PASS = dict(max_steps=500, diagnose=False)
"""
MISSED = "@pytest.mark.overfit(objective=1e-30, max_steps=3, diagnose=False)\n"
LOST = "its run misses objective, and the test passed all the same"
HIDDEN = "its run misses objective, and the test has skipped itself since"
NOTHING = "no run came to a verdict in this test: marked overfit, and nothing was run"
UNCALLED = "no run came to a verdict in this test: the overfit fixture was never called"

RED = {
    "marked alone": ("@pytest.mark.overfit\ndef test_it(): net()", NOTHING, "def test_it(overfit): overfit(model, b*"),
    "marked class": (
        "@pytest.mark.overfit(max_steps=3)\nclass TestIt:\n    def test_it(self): net()", NOTHING, "def test_it(self, overfit): *",
    ),
    "marked with a config": (
        "@pytest.mark.overfit(config='a.yaml')\ndef test_it(tmp_path): net()",
        NOTHING, "def test_it(tmp_path, overfit_result): overfit_result.check()",
    ),
    "marked and looked at the model": ("@pytest.mark.overfit\ndef test_it(overfit_model): net()", NOTHING, "def test*"),
    "marked unittest": (
        "@pytest.mark.overfit\nclass TestIt(unittest.TestCase):\n    def test_it(self): net()",
        NOTHING, '@pytest.mark.usefixtures("overfit") on the class*self.overfit(model, batch, loss)',
    ),
    "parametrized": (
        "@pytest.mark.overfit\n@pytest.mark.parametrize('n', [1])\ndef test_it(n): net()", NOTHING,
        "def test_it(n, overfit): *",
    ),
    "never called": ("def test_it(overfit): pass", UNCALLED, "add the line: overfit(model, batch, loss)"),
    "used and never called": (
        "@pytest.mark.usefixtures('overfit')\ndef test_it(): pass", UNCALLED, "add the line: overfit(model, batch, loss)",
    ),
    "called in vain": (
        "def test_it(overfit):\n    if torch.tensor(0): overfit(**PASS)", UNCALLED, "add the line: *",
    ),
    "caught": (
        "def test_it(overfit):\n    try: overfit(**MISS)\n    except AssertionError: pass", LOST,
        "let the AssertionError through; where it is meant: with pytest.raises(AssertionError); of several *",
    ),
    "suppressed": (
        "def test_it(overfit):\n    with contextlib.suppress(Exception): overfit(**MISS)", LOST, "let the Assertion*",
    ),
    "caught beside one that passes": (
        "def test_it(overfit):\n    with contextlib.suppress(Exception): overfit(**MISS)\n    overfit(**PASS)",
        LOST, "*seeds=*pass_at_least=1",
    ),
    "caught after a raises": (
        "def test_it(overfit):\n    with pytest.raises(AssertionError) as told: overfit(**MISS)\n"
        "    with contextlib.suppress(Exception): overfit(**MISS)", LOST, "let*",
    ),
    "caught beside another raises": (
        "def test_it(overfit):\n    with pytest.raises(KeyError):\n"
        "        with contextlib.suppress(AssertionError): overfit(**MISS)\n        {}[0]", LOST, "let*",
    ),
    "unittest that catches": (
        "@pytest.mark.usefixtures('overfit')\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n"
        "        with contextlib.suppress(AssertionError): self.overfit(**MISS)", LOST, "let*",
    ),
    "never checked": (
        MISSED + "def test_it(overfit_result): assert overfit_result is not None", LOST,
        "add the line: overfit_result.check(); where the miss is meant: assert overfit_result.finding('objective').missed",
    ),
    "printed": (MISSED + "def test_it(overfit_result): print(overfit_result, overfit_result.record.steps)", LOST, "add*"),
    "one criterion that passed": (
        MISSED + "def test_it(overfit_result): assert overfit_result.finding('finite').passed", LOST, "add*"
    ),
    "any criterion that passed": (
        MISSED + "def test_it(overfit_result): assert any(f.passed for f in overfit_result.findings)", LOST, "add*"
    ),
    "any criterion from behind": (
        MISSED + "def test_it(overfit_result): assert any(f.passed for f in reversed(overfit_result.findings))", LOST, "add*"
    ),
    "a criterion by its place": (
        MISSED + "def test_it(overfit_result): assert overfit_result.findings[2].passed", LOST, "add*"
    ),
    "skips itself after a miss": (
        "def test_it(overfit):\n    try: overfit(**MISS)\n    except AssertionError: pytest.skip('known')", HIDDEN, "let*"
    ),
    "expects to fail after a miss": (
        "def test_it(overfit):\n    try: overfit(**MISS)\n    except AssertionError: pytest.xfail('known')", HIDDEN, "let*"
    ),
    "skips itself on a result": (
        MISSED + "def test_it(overfit_result):\n    if not overfit_result.passed: pytest.skip('known')", HIDDEN, "let*"
    ),
    "a fixture that skips after a miss": (
        "@pytest.fixture\ndef trained(overfit):\n    try: return overfit(**MISS)\n"
        "    except AssertionError: pytest.skip('known')\n\ndef test_it(trained): pass", HIDDEN, "let*",
    ),
    "unittest that skips after a miss": (
        "@pytest.mark.usefixtures('overfit')\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n"
        "        try: self.overfit(**MISS)\n        except AssertionError: self.skipTest('known')", HIDDEN, "let*",
    ),
    "a check that is caught": (
        MISSED + "def test_it(overfit_result):\n    with contextlib.suppress(AssertionError): overfit_result.check()",
        LOST, "let the AssertionError through; *",
    ),
    "numbers alone": (MISSED + "def test_it(overfit_result): overfit_result.margin, overfit_result.summary()", LOST, "add*"),
    "through a fixture": (
        "@pytest.fixture\ndef trained(overfit):\n    try: return overfit(**MISS)\n    except AssertionError: return None\n\n"
        "def test_it(trained): assert trained is None", LOST, "let*",
    ),
    "an error that is caught": (
        "def test_it(overfit):\n    def loss(model, batch): raise ValueError('in the loss')\n"
        "    with contextlib.suppress(ValueError): overfit(loss=loss)",
        "its run ended without a verdict, and the test passed all the same: ValueError: in the loss", "let the error *",
    ),
}  # fmt: skip


def session(pytester: pytest.Pytester, body: str, *args: str, head: str = HEAD) -> pytest.RunResult:
    """A session on one test."""
    pytester.makepyfile(test_it=f"{head}\n\n{body}\n")
    return pytester.runpytest_inprocess(*args)


@pytest.mark.parametrize("how", RED)
def test_a_test_that_proves_nothing_fails(pytester: pytest.Pytester, how: str) -> None:
    """What was seen, what is allowed, the line to add."""
    body, seen, line = RED[how]
    result = session(pytester, body)
    assert {"failed": 1, "errors": 1}.items() >= result.parseoutcomes().items()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"test_it.py::*test_it*: {seen}", "  allowed: *", f"  next: {line}"])


GREEN = {
    "passes": "def test_it(overfit): overfit(**PASS)",
    "result checked": "@pytest.mark.overfit(diagnose=False)\ndef test_it(overfit_result): overfit_result.check()",
    "result that passes": "@pytest.mark.overfit(diagnose=False)\ndef test_it(overfit_result): pass",
    "expected": "def test_it(overfit):\n    with pytest.raises(AssertionError, match='objective'): overfit(**MISS)",
    "expected among others": "def test_it(overfit):\n    with pytest.raises((KeyError, AssertionError)): overfit(**MISS)",
    "expected as a call": "def test_it(overfit): pytest.raises(AssertionError, overfit, **MISS)",
    "expected by a helper": (
        "@contextlib.contextmanager\ndef red():\n    with pytest.raises(AssertionError): yield\n\n"
        "def test_it(overfit):\n    with red(): overfit(**MISS)"
    ),
    "expected on a stack": (
        "def test_it(overfit):\n    with contextlib.ExitStack() as stack:\n"
        "        stack.enter_context(pytest.raises(AssertionError))\n        overfit(**MISS)"
    ),
    "expected of a check": MISSED
    + "def test_it(overfit_result):\n    pytest.raises(AssertionError, overfit_result.check)",
    "expected by unittest": (
        "@pytest.mark.usefixtures('overfit')\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n"
        "        with self.assertRaisesRegex(AssertionError, 'objective'): self.overfit(**MISS)"
    ),
    "expected by its verdict": MISSED + "def test_it(overfit_result): assert not overfit_result.passed",
    "expected by one criterion": MISSED
    + "def test_it(overfit_result): assert overfit_result.finding('objective').missed",
    "expected by all criteria": (
        MISSED
        + "def test_it(overfit_result): assert [f.name for f in overfit_result.findings if f.missed] == ['objective']"
    ),
    "expected by the first criterion": MISSED
    + "def test_it(overfit_result): assert min(overfit_result.findings, key=lambda f: f.passed).missed",
    "expected by its text": MISSED + "def test_it(overfit_result): assert 'objective' in overfit_result.failure_text()",
    "an expected error": (
        "def test_it(overfit):\n    with pytest.raises(pytest.fail.Exception, match='objectve'): overfit(objectve=1)"
    ),
    "an expected interrupt": (
        "def test_it(overfit):\n    def loss(model, batch): raise KeyboardInterrupt\n"
        "    with pytest.raises(KeyboardInterrupt): overfit(loss=loss)"
    ),
    "only the pieces": "def test_it(overfit_model, overfit_batch): assert overfit_model(overfit_batch[0]).shape == (8, 1)",
    "a result of the team's own": (
        "from pytest_overfit import run_overfit\n\n@pytest.fixture\ndef overfit_result():\n"
        "    return run_overfit(net(), batch(), torch.nn.functional.mse_loss, **MISS)\n\n"
        "@pytest.mark.overfit\ndef test_it(overfit_result): assert not overfit_result.passed"
    ),
}


@pytest.mark.parametrize("how", GREEN)
def test_a_test_that_says_what_it_wants_passes(pytester: pytest.Pytester, how: str) -> None:
    """Green models, and misses that are meant."""
    assert session(pytester, GREEN[how]).parseoutcomes() == {"passed": 1}


@pytest.mark.parametrize("line", ["print({})", "assert {} or True", "assert not {}"])
def test_a_verdict_that_is_read_alone_is_noted(pytester: pytest.Pytester, line: str) -> None:
    """Whether the test asserts it or prints it cannot be told; in a strict session the miss has to be named."""
    body = f"{MISSED}def test_it(overfit_result): {line.format('overfit_result.passed')}"
    told = "its run misses objective, and the test has read .passed and passed all the same"
    result = session(pytester, body)
    assert result.parseoutcomes() == {"passed": 1}
    result.stdout.fnmatch_lines([f"note: {told}"])
    strict = session(pytester, body, "--overfit-strict", "--overfit-device=cpu")
    assert strict.parseoutcomes() == {"failed": 1}
    strict.stdout.fnmatch_lines([f"*test_it: {told}", "  next: *assert overfit_result.finding('objective').missed"])


@pytest.mark.parametrize(
    "body",
    [
        "def test_it(overfit, subtests):\n    with subtests.test('a'): overfit(**MISS)\n    with subtests.test('b'): pass",
        "@pytest.mark.usefixtures('overfit')\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n"
        "        with self.subTest('a'): self.overfit(**MISS)",
        MISSED + "def test_it(overfit_result, subtests):\n    with subtests.test('a'): overfit_result.check()",
    ],
)
def test_a_miss_that_a_subtest_reports_is_not_lost(pytester: pytest.Pytester, body: str) -> None:
    """The subtest has failed with it."""
    pytest.importorskip("pytest", minversion="9.0")
    result = session(pytester, body)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the test passed all the same" not in result.stdout.str()


def test_a_subtest_that_catches_its_miss_has_lost_it(pytester: pytest.Pytester) -> None:
    """An open subtest alone says nothing."""
    pytest.importorskip("pytest", minversion="9.0")
    body = (
        "def test_it(overfit, subtests):\n    with subtests.test('a'), contextlib.suppress(Exception): overfit(**MISS)"
    )
    session(pytester, body).stdout.fnmatch_lines([f"*test_it: {LOST}"])


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("@pytest.mark.overfit\ndef test_it(): pytest.skip('no weights')", {"skipped": 1}),
        ("@pytest.mark.xfail\n@pytest.mark.overfit\ndef test_it(overfit): overfit(**MISS)", {"xfailed": 1}),
        ("@pytest.mark.xfail\ndef test_it(overfit): pass", {"xfailed": 1}),
        (
            "@pytest.mark.overfit\nclass TestIt(unittest.TestCase):\n    def test_it(self): self.skipTest('')",
            {"skipped": 1},
        ),
    ],
)
def test_what_was_skipped_or_expected_to_fail_is_left_alone(
    pytester: pytest.Pytester, body: str, outcome: dict[str, int]
) -> None:
    """A strict session asks for more."""
    assert session(pytester, body).parseoutcomes() == outcome


def test_a_test_that_fails_keeps_its_own_error(pytester: pytest.Pytester) -> None:
    """Nothing of ours beside it."""
    result = session(pytester, "def test_it(overfit): assert 1 == 2")
    assert result.parseoutcomes() == {"failed": 1}
    assert "no run came to a verdict" not in result.stdout.str()


def test_one_honest_test_hides_nothing(pytester: pytest.Pytester) -> None:
    """In a strict session too: each test is judged alone."""
    body = f"def test_honest(overfit): overfit(**PASS)\n\n{RED['never called'][0]}\n\n"
    result = session(pytester, body + RED["marked alone"][0].replace("test_it", "test_marked"), "--overfit-strict",
                     "--overfit-device=cpu")  # fmt: skip
    assert result.parseoutcomes() == {"passed": 1, "failed": 2}


def test_a_marker_that_names_a_config_may_be_for_data(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """What the config builds can be looked at without a run; not in a strict session."""
    tiny()
    body = "@pytest.mark.overfit(config='tiny.yaml')\ndef test_it(overfit_batch): assert 'images' in overfit_batch"
    assert session(pytester, body, head="import pytest").parseoutcomes() == {"passed": 1}
    strict = session(pytester, body, "--overfit-strict", "--overfit-device=cpu", head="import pytest")
    assert strict.parseoutcomes() == {"failed": 1}
    strict.stdout.fnmatch_lines([f"*::test_it: {NOTHING}"])


def test_a_lost_miss_of_a_config_is_in_the_summary(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """As that of a call."""
    tiny()
    body = "def test_it(overfit_result): assert not overfit_result.passed"
    marker = "@pytest.mark.overfit(config='tiny.yaml', max_steps=20)"
    result = session(pytester, f"{marker}\n{body}", head="import pytest")
    result.stdout.fnmatch_lines(["missed * test_*::test_it: 20 of 20 steps*missed objective, camera*"])


def test_a_rerun_is_judged_alone(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The miss of the first try does not stick to the second."""
    pytest.importorskip("pytest_rerunfailures")
    monkeypatch.delenv("PYTEST_ADDOPTS")
    body = """
tries = []

def test_it(overfit):
    tries.append(1)
    overfit(**(MISS if len(tries) < 2 else PASS))
"""
    pytester.makepyfile(test_it=f"{HEAD}\n\n{body}\n")
    result = pytester.runpytest_subprocess("--reruns=1", "-p", "no:randomly")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


EXPECTED = {
    "raises": "def test_it(overfit):\n    with pytest.raises(AssertionError): overfit(**MISS)",
    "xfail": "@pytest.mark.xfail(strict=True)\ndef test_it(overfit): overfit(**MISS)",
    "unittest": "@pytest.mark.usefixtures('overfit')\nclass TestIt(unittest.TestCase):\n    @unittest.expectedFailure\n"
    "    def test_it(self): self.overfit(**MISS)",
}


@pytest.mark.parametrize("how", [*EXPECTED, "failed"])
def test_a_ci_service_hears_of_the_test_and_not_of_the_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A miss that is expected is no error of a session that exits 0."""
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = session(pytester, EXPECTED.get(how, "def test_it(overfit): overfit(**MISS)"))
    head = summary.read_text(encoding="utf-8").splitlines()[0]
    assert result.ret == int(how == "failed")
    assert ("::error" in result.stdout.str()) == (how == "failed")
    assert head == f"## pytest-overfit: {'1 of 1 run failed' if how == 'failed' else '1 run missed as expected'}"
