"""A session with runs in it leaves the process, and the other tests, as they were."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import run_folders


def test_random_state_and_threads_are_as_before(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Python, NumPy and torch draw the same numbers as if no run had happened between two tests."""
    tiny()
    pytester.makepyfile(
        test_a="""
        import random, numpy as np, torch

        def state():
            return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                    torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()]

        kept = []

        def test_before():
            kept.append(state())
        """,
        test_z="""
        import test_a

        def test_after():
            assert test_a.state() == test_a.kept[0]
        """,
    )
    result = pytester.runpytest_inprocess("test_a.py", "tiny.yaml", "test_z.py", "--overfit-set", "overfit.threads=2")
    result.assert_outcomes(passed=17)
    result.stdout.fnmatch_lines(["* 2 threads, *"])


def test_one_process_needs_no_launcher(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No RANK or MASTER_* variable, and no process group afterwards."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    tiny()
    pytester.makepyfile(
        """
        import os, torch

        def test_after():
            assert not torch.distributed.is_initialized()
            assert not {"RANK", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()
        """
    )
    result = pytester.runpytest_inprocess("tiny.yaml", "test_one_process_needs_no_launcher.py", "-k", "camera or after")
    result.assert_outcomes(passed=2, deselected=14)


def test_odd_names_become_plain_folders(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """An experiment's name cannot leave the log folder."""
    tiny(replace=(("exp_name: tiny", "exp_name: '../a b/<c>:*?'"),))
    pytester.runpytest_inprocess("tiny.yaml", "-k", "camera", "--overfit-set", "overfit.budget.max_steps=5")
    assert [*run_folders(pytester.path / "overfit_logs")] == ["a_b_c"]


def test_the_plugin_can_be_blocked(pytester: pytest.Pytester) -> None:
    """-p no:overfit takes options, marker and fixtures away."""
    pytester.makepyfile("def test_own(): pass")
    result = pytester.runpytest_inprocess("-p", "no:overfit", "--help")
    assert "--overfit" not in result.stdout.str()
    pytester.runpytest_inprocess("-p", "no:overfit").assert_outcomes(passed=1)
    assert "overfit" not in pytester.runpytest_inprocess("-p", "no:overfit", "--markers").stdout.str()


def test_without_the_terminal_plugin(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Nobody watches, and the exit code is what counts."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-p", "no:terminal")
    assert result.ret == 0


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_every_import_mode_works(pytester: pytest.Pytester, tiny: TinyConfig, mode: str) -> None:
    """A config imports nothing by its own name; what it names is looked up beside it."""
    tiny(replace=(("tests.support.tiny.Memoriser", "beside.Mine"),))
    pytester.makepyfile(beside="from tests.support.tiny import Memoriser\n\nclass Mine(Memoriser): pass\n")
    pytester.makeconftest("")
    result = pytester.runpytest_inprocess("--import-mode", mode, "tiny.yaml", "-k", "camera or config")
    result.assert_outcomes(passed=2, deselected=13)
    pytester.syspathinsert()
