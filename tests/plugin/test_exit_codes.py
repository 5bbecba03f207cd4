"""What a shell or a CI job sees: the exit code, the collection, the JUnit file."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import ITEMS, outcomes

SHORT = ("--overfit-set", "overfit.budget.max_steps=40")


def test_all_green_is_0(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A gate that passes."""
    tiny()
    assert pytester.runpytest_inprocess("--overfit-config", "tiny.yaml").ret == 0


def test_a_missed_criterion_is_1(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Forty steps are too few for the camera."""
    tiny()
    assert pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", *SHORT).ret == 1


def test_problems_of_all_configs_are_told_together(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A usage error: exit 4, nearest keys named, and nothing ran."""
    tiny("a.yaml", replace=(("threads: 1", "thread: 1"), ("img_size: 56", "img_size: 57")))
    tiny("b.yaml", replace=(("max_epochs: 10", "max_epochs: -1"),))
    pytester.makepyfile(test_own="raise SystemError('was imported')")
    result = pytester.runpytest_inprocess("--overfit-config", "a.yaml", "--overfit-config", "b.yaml", ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*a.yaml: img_size: found 57, allowed: a multiple of patch_size 14*",
            "*a.yaml: overfit.thread: found an unknown key*did you mean threads?)*",
            "*b.yaml: max_epochs: found -1, allowed: *",
            "3 problems in the config",
        ]
    )
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert "was imported" not in result.stdout.str()


def test_a_missing_config_is_4(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The nearest file is named."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tyni.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*tyni.yaml: found no such file*did you mean tiny.yaml?*"])


@pytest.mark.parametrize("text", ["novalue", "=3", "overfit.budget.max_step=3", "overfit.budget.max_steps=many"])
def test_a_bad_override_is_4(pytester: pytest.Pytester, tiny: TinyConfig, text: str) -> None:
    """An override is shown with what is wrong in it."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-set", text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *tiny.yaml: *"])


def test_no_tests_at_all_is_5(pytester: pytest.Pytester) -> None:
    """The plugin alone collects nothing."""
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_everything_deselected_is_5(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A gate that judged nothing is not green."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "nothing_has_this_name")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_collect_only_trains_nothing(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Items are listed, no log folder appears."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--collect-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*<ConfigFile tiny.yaml>*", "*<ConfigItem camera>*"])
    assert not (pytester.path / "overfit_logs").exists()


def test_x_stops_at_the_first_miss(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """-x as everywhere; what was judged until then is in the table."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-x", *SHORT)
    result.assert_outcomes(passed=ITEMS.index("camera"), failed=1)
    result.stdout.fnmatch_lines(["FAILED*camera*", "40 of 40 steps*"])


def test_failed_items_alone_run_again(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """--lf picks the missed criteria; a config without any is left out and is no error."""
    tiny()
    pytester.makepyfile(test_own="def test_own(): assert not 'own'")
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "test_own.py", *SHORT)
    again = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "test_own.py", "--lf", *SHORT)
    assert outcomes(again) == {"camera": "failed", "prediction": "failed", "test_own": "failed"}
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "test_own.py")
    again = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "test_own.py", "--lf")
    assert outcomes(again) == {"test_own": "failed"}


def test_without_the_cache_plugin(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Nothing here needs it."""
    tiny()
    assert pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-p", "no:cacheprovider").ret == 0


def test_junit_has_a_testcase_per_item(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Failures carry the whole text."""
    tiny()
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--junitxml", "out.xml", *SHORT)
    cases = list(ElementTree.parse(pytester.path / "out.xml").iter("testcase"))
    assert [case.get("name") for case in cases] == list(ITEMS)
    failures = {case.get("name"): failure.text for case in cases for failure in case.iter("failure")}
    assert failures.keys() == {"camera", "prediction"}
    assert "change: " in str(failures["camera"])
    assert "step 40 of 40" in str(failures["camera"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--overfit-config", "tiny.yaml", "--overfit-set", "seed_value=0x" + "f" * 4000),
        ("--overfit-config", "tiny.yaml", "--overfit-set", "img_size=1:" + "30:" * 3000 + "30"),
        ("--overfit-config", "tiny.yaml", "--overfit-set", "a=${oc.create:${a}}"),
        ("--overfit-max-steps", "9" * 4000),
        ("--overfit-max-steps", "9" * 5000),
        ("--overfit-seeds", "9" * 5000),
        ("--overfit-config", "tiny.yaml", "-o", "overfit_max_steps=" + "9" * 5000),
        ("--overfit-report", "report", "-o", "overfit_seeds=" + "9" * 5000),
        ("--overfit-log-dir", "logs", "-o", "overfit_seeds=many"),
    ],
)
def test_what_no_setting_can_be_is_4(pytester: pytest.Pytester, tiny: TinyConfig, arguments: tuple[str, ...]) -> None:
    """Numbers of thousands of digits, and values that lead to themselves: a usage error, not an error of ours."""
    tiny()
    pytester.makepyfile(test_own="raise SystemError('was imported')")
    result = pytester.runpytest_subprocess(*arguments)  # pytest 7 warns of its own parser within a process
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
