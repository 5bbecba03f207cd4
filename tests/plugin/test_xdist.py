"""Under pytest-xdist: one training run per config, and one table by the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.run.cores import available_cores
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import ITEMS, run_folders

pytest.importorskip("xdist")
SHORT = "--overfit-set=overfit.budget.max_steps=40"


@pytest.mark.parametrize("mode", ["load", "worksteal", "loadscope", "loadgroup"])
def test_a_config_is_trained_once(pytester: pytest.Pytester, tiny: TinyConfig, mode: str) -> None:
    """Two configs and ordinary tests over two workers: one run folder per config, every item reported once."""
    for name in ("a", "b"):
        tiny(f"{name}.yaml", replace=(("exp_name: tiny", f"exp_name: {name}"),))
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("i", range(8))
        def test_own(i): pass
        """
    )
    result = pytester.runpytest_subprocess(
        ".", "--overfit-config", "a.yaml", "--overfit-config", "b.yaml", "-n", "2", "--dist", mode, SHORT
    )
    result.assert_outcomes(passed=8 + 2 * (len(ITEMS) - 2), failed=4)
    assert run_folders(pytester.path / "overfit_logs") == {"a": 1, "b": 1}
    for name in ("a.yaml", "b.yaml"):
        assert sum(f" overfit {name} " in line for line in result.outlines) == 1
    assert sum(line.startswith("40 of 40 steps") for line in result.outlines) == 2
    rows = [line.split()[1] for line in result.outlines if line.startswith(("ok ", "FAILED  "))]
    assert rows == [*ITEMS, *ITEMS]


def test_workers_beyond_the_cores_take_turns(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Two workers, each run as wide as the machine: the log of one is written to its end before the other's begins."""
    wide = available_cores()
    for name in ("a", "b"):
        tiny(f"{name}.yaml", replace=(("exp_name: tiny", f"exp_name: {name}"),))
    pytester.makeconftest(
        """
        import time
        import pytest

        @pytest.fixture
        def overfit_loss(overfit_config):
            from pytest_overfit.trainer.build import build_loss
            loss = build_loss(overfit_config)

            def timed(predictions, batch):
                with open(f"{overfit_config.exp_name}.times", "a") as file:
                    print(time.monotonic(), file=file)
                return loss(predictions, batch)

            return timed
        """
    )
    configs = ("--overfit-config", "a.yaml", "--overfit-config", "b.yaml")
    pytester.runpytest_subprocess(*configs, "-n", "2", SHORT, f"--overfit-set=overfit.threads={wide}")
    first, second = sorted(
        [float(line) for line in (pytester.path / f"{name}.times").read_text().split()] for name in "ab"
    )
    assert len(first) > 40
    assert len(second) > 40
    assert first[-1] < second[0]


def test_configs_outside_the_rootdir_are_told_apart(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """pytest has empty ids for such files: xdist would take two configs for one."""
    project = pytester.mkdir("project")
    (project / "pytest.ini").touch()
    paths: list[Path] = [tiny(f"{name}.yaml") for name in ("a", "b")]
    result = pytester.runpytest_subprocess(
        *(f"--overfit-config={path}" for path in paths), "-n", "2", "-k", "finite", "-v", SHORT, "--rootdir", project
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines_random(["*PASSED *../a.yaml::finite*", "*PASSED *../b.yaml::finite*"])


def test_a_config_that_no_worker_reaches_fails(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Not in silence, and not as a crash of the workers."""
    hidden = pytester.mkdir("build")
    tiny().rename(hidden / "tiny.yaml")
    pytester.makepyfile("def test_own(): pass")
    result = pytester.runpytest_subprocess(".", "--overfit-config", "build/tiny.yaml", "-n", "2", "-k", "own")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*tiny.yaml: no test was collected from this config*"])


def test_a_config_error_stops_before_any_worker(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Exit 4 from the controller."""
    tiny(replace=(("threads: 1", "thread: 1"),))
    result = pytester.runpytest_subprocess("--overfit-config", "tiny.yaml", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*did you mean threads?*"])
