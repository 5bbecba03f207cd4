"""A config file as a test file: its items, their verdicts, and which files are collected."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import ITEMS, outcomes


def test_every_item_of_the_design_is_a_green_test(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """One config, fifteen tests, one run behind them, one table at the end."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-v")
    assert outcomes(result) == dict.fromkeys(ITEMS, "passed")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "*overfit tiny.yaml*",
            "verdict*criterion*observed*allowed*margin*since step",
            "ok*camera*loss_camera 0.000*< 0.001     *[0-9]",
            "*1 thread, seed 0*",
            "tensorboard --logdir *overfit_logs/tiny",
        ]
    )


def test_a_config_given_as_a_plain_path_is_collected(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A config is a test file too."""
    tiny()
    result = pytester.runpytest_inprocess("tiny.yaml", "--collect-only", "-q")
    assert [line for line in result.outlines if "::" in line] == [f"tiny.yaml::{name}" for name in ITEMS]


def test_one_item_of_a_plain_path_can_be_named(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A node id works, and its item is judged on its own."""
    tiny()
    result = pytester.runpytest_inprocess("tiny.yaml::camera", "-v")
    assert outcomes(result) == {"camera": "passed"}


def test_without_paths_only_the_configs_run(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The repository's own tests stay out of a config gate."""
    tiny()
    pytester.makepyfile(test_own="def test_own(): pass")
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--collect-only", "-q")
    assert not [line for line in result.outlines if "test_own" in line]


@pytest.mark.parametrize("paths", [["."], ["sub"], ["sub", "."], ["test_own.py", "sub/tiny.yaml"], ["test_own.py"]])
def test_overlapping_paths_collect_everything_once(
    pytester: pytest.Pytester, tiny: TinyConfig, paths: list[str]
) -> None:
    """A config inside a given folder is collected once, and beside it whatever pytest collects without the config.

    (Of `pytest sub .` pytest 8 itself drops what is not in sub.)
    """
    sub = pytester.mkdir("sub")
    tiny().rename(sub / "tiny.yaml")
    (sub / "test_sub.py").write_text("def test_sub(): pass\n", encoding="utf-8")
    pytester.makepyfile(test_own="def test_own(): pass")

    def collected(*args: str) -> list[str]:
        result = pytester.runpytest_inprocess(*paths, "--collect-only", "-q", *args)
        return [line for line in result.outlines if "::" in line]

    given = collected("--overfit-config", "sub/tiny.yaml")
    assert [line for line in given if "tiny.yaml" in line] == [f"sub/tiny.yaml::{name}" for name in ITEMS]
    own = [line for line in collected() if "tiny.yaml" not in line]
    assert own
    assert [line for line in given if "tiny.yaml" not in line] == own


def test_other_yaml_files_are_left_alone(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A folder full of YAML collects nothing unless a config is named."""
    tiny()
    pytester.makepyfile(test_own="def test_own(): pass")
    result = pytester.runpytest_inprocess(".", "-q")
    result.assert_outcomes(passed=1)


def test_two_configs_run_one_after_the_other(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """--overfit-config may be repeated; each has its own table."""
    tiny("a.yaml")
    tiny("b.yaml")
    result = pytester.runpytest_inprocess("--overfit-config", "a.yaml", "--overfit-config", "b.yaml")
    result.assert_outcomes(passed=2 * len(ITEMS))
    result.stdout.fnmatch_lines(["*overfit a.yaml*", "*overfit b.yaml*"])


def test_a_criterion_that_is_off_is_not_collected(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Off means absent, not passed."""
    tiny()
    result = pytester.runpytest_inprocess(
        "tiny.yaml", "--collect-only", "-q", "--overfit-set", "overfit.criteria.prediction=false"
    )
    assert [line for line in result.outlines if "::" in line] == [
        f"tiny.yaml::{name}" for name in ITEMS if name != "prediction"
    ]


def test_a_limit_on_another_term_is_an_item(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Any term that the loss gives can have a limit."""
    tiny()
    asked = ["tiny.yaml", "-v", "-k", "loss_T or loss_nothing", "--overfit-set", "overfit.criteria.loss_T=0.5"]
    assert outcomes(pytester.runpytest_inprocess(*asked)) == {"loss_T": "passed"}
    result = pytester.runpytest_inprocess(*asked, "--overfit-set", "overfit.criteria.loss_nothing=0.5")
    assert outcomes(result) == {"loss_T": "failed", "loss_nothing": "skipped"}  # the first one tells it
    result.stdout.fnmatch_lines(["*the loss gives no term 'loss_nothing', allowed one of the terms*: objective, *"])


def test_a_config_that_pytest_never_reaches_is_an_error(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A config in an ignored folder must not vanish in silence."""
    hidden = pytester.mkdir("build")
    tiny().rename(hidden / "tiny.yaml")
    pytester.makepyfile(test_own="def test_own(): pass")
    result = pytester.runpytest_inprocess(".", "--overfit-config", "build/tiny.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*tiny.yaml: no test was collected from this config*"])


def test_deselecting_one_item_still_runs_it(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """-k picks criteria; the run behind them happens all the same."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "camera", "-v")
    assert outcomes(result) == {"camera": "passed"}
