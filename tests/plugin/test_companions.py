"""Marked tests beside the plugins that teams have: xdist, randomly, timeout, rerunfailures."""

from __future__ import annotations

import pytest

from tests.plugin.test_overfit_fixture import PRELUDE
from tests.support.sessions import run_folders

LEARNS = """
from prelude import *

@pytest.mark.overfit(objective=0.05)
@pytest.mark.parametrize("width", [8, 16, 32])
def test_learns(overfit, width):
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))
    overfit(model, pair(), F.cross_entropy, optimizer=fast)

@pytest.mark.overfit(objective=0.05, max_steps=9)
def test_too_short(overfit):
    overfit(net(), pair(), F.cross_entropy, optimizer=fast)
"""
HANGS = """
from prelude import *
import time

@pytest.mark.timeout(3)
def test_hangs(overfit):
    model = net()
    before = torch.get_rng_state(), model[0].weight.detach().clone()
    calls = []

    def loss(model, batch):
        calls.append(1)
        if len(calls) == 20:
            time.sleep(60)
        return F.cross_entropy(model(batch[0]), batch[1])

    try:
        overfit(model, pair(), loss)
    finally:
        assert torch.equal(before[0], torch.get_rng_state()) and torch.equal(before[1], model[0].weight)
        print("RESTORED")

def test_after(): pass
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of tests with the prelude; every installed plugin is on."""
    pytester.makepyfile(prelude=PRELUDE)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=":")
    monkeypatch.delenv("PYTEST_ADDOPTS")
    return pytester


def test_xdist_sends_the_calls_to_the_controller(session: pytest.Pytester) -> None:
    """Workers show nothing; the summary has one line per call."""
    pytest.importorskip("xdist")
    session.makepyfile(LEARNS)
    result = session.runpytest_subprocess("-n", "2", "-p", "no:randomly")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*- overfit: 3 of 4 memorised -*"])
    assert sum("test_learns[" in line and line.startswith("ok ") for line in result.outlines) == 3


def test_randomly_changes_neither_verdicts_nor_curves(session: pytest.Pytester) -> None:
    """Every call seeds itself, and leaves the seeds of others alone."""
    pytest.importorskip("pytest_randomly")
    session.makepyfile(LEARNS)
    lines = set()
    for seed in ("1", "2"):
        result = session.runpytest_subprocess(f"--randomly-seed={seed}")
        result.assert_outcomes(passed=3, failed=1)
        called = [line for line in result.outlines if "test_too_short: " in line]
        lines.add(called[0].partition(";")[2])
    assert len(lines) == 1


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_a_timeout_ends_a_run(session: pytest.Pytester, method: str) -> None:
    """By signal the test fails, everything is restored, and the session goes on; by thread the process ends."""
    pytest.importorskip("pytest_timeout")
    session.makepyfile(HANGS)
    result = session.runpytest_subprocess("-s", "-p", "no:randomly", "--timeout-method", method)
    if method == "signal":
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*RESTORED*", "*Timeout*3*"])
    else:
        assert result.ret != 0
        assert "Timeout" in result.stdout.str() + result.stderr.str()


def test_reruns_train_again(session: pytest.Pytester) -> None:
    """A rerun is a run of its own, with one line in the summary for the one that counted."""
    pytest.importorskip("pytest_rerunfailures")
    session.makepyfile(
        """
        from prelude import *

        tries = []

        def test_flaky(overfit):
            tries.append(1)
            overfit(net(), pair(), F.cross_entropy, optimizer=fast, max_steps=10 if len(tries) < 3 else 500)
            assert len(tries) == 3
        """
    )
    result = session.runpytest_subprocess("--reruns", "2", "-p", "no:randomly")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*2 rerun*"])


def test_reruns_of_config_items_share_their_run(session: pytest.Pytester, tiny: object) -> None:
    """The verdict of a config does not change by asking again."""
    pytest.importorskip("pytest_rerunfailures")
    assert callable(tiny)
    tiny()
    result = session.runpytest_subprocess(
        "--overfit-config", "tiny.yaml", "--reruns", "1", "-k", "camera", "-p", "no:randomly",
        "--overfit-set", "overfit.budget.max_steps=20",
    )  # fmt: skip
    result.assert_outcomes(failed=1, deselected=14)
    result.stdout.fnmatch_lines(["*20 of 20 steps*"])


def test_a_timeout_of_a_config_ends_its_one_run(session: pytest.Pytester, tiny: object) -> None:
    """The item that trains is told; the others point there and do not train again."""
    pytest.importorskip("pytest_timeout")
    assert callable(tiny)
    tiny()
    result = session.runpytest_subprocess(
        "--overfit-config", "tiny.yaml", "-p", "no:randomly", "--timeout", "20", "--timeout-method", "signal",
        "--overfit-set", "overfit.criteria.camera=1e-12", "--overfit-max-steps", "10000000",
    )  # fmt: skip
    result.assert_outcomes(passed=3, failed=1, skipped=11)
    assert run_folders(session.path / "overfit_logs") == {"tiny": 1}
    result.stdout.fnmatch_lines(["FAILED   run *Timeout*20*", "skipped *: not judged: ::run failed*"])
