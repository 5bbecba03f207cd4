"""Where a setting may be written, and that a typo in any of these places stops the session with the nearest name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.conftest import TinyConfig

# pytest 7.4 has a wrapper of the old style around the parsing of options, about which newer pluggy warns.
pytestmark = pytest.mark.filterwarnings("ignore:A plugin raised an exception during an old-style:UserWarning")

MAKE: dict[str, Callable[[pytest.Pytester, str], object]] = {
    "pytest.ini": lambda pytester, line: pytester.makefile(".ini", pytest=f"[pytest]\n{line}\n"),
    "tox.ini": lambda pytester, line: pytester.makefile(".ini", tox=f"[pytest]\n{line}\n"),
    "setup.cfg": lambda pytester, line: pytester.makefile(".cfg", setup=f"[tool:pytest]\n{line}\n"),
    "pyproject.toml": lambda pytester, line: pytester.makefile(
        ".toml", pyproject="[tool.pytest.ini_options]\n{} = '{}'\n".format(*line.split(" = "))
    ),
}
USAGE = pytest.ExitCode.USAGE_ERROR


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_own="def test_own(): pass")
    return pytester.runpytest_inprocess("test_own.py", *args)


@pytest.mark.parametrize("place", MAKE)
def test_a_misspelt_ini_key_is_4(pytester: pytest.Pytester, place: str) -> None:
    """Whichever file it stands in: every one of them in one error, and nothing runs."""
    MAKE[place](pytester, "overfit_max_stepz = 3")
    result = run(pytester, "-o", "overfit_sedes=1")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [
            f"ERROR: {place}: overfit_max_stepz: found an unknown ini key; did you mean overfit_max_steps? allowed: *",
            f"{place}: overfit_sedes: found an unknown ini key; did you mean overfit_seeds? *",
        ]
    )
    assert "passed" not in result.stdout.str()


@pytest.mark.parametrize("place", MAKE)
def test_a_right_ini_key_is_none_of_that(pytester: pytest.Pytester, place: str) -> None:
    """The same file without the typo."""
    MAKE[place](pytester, "overfit_max_steps = 3")
    assert run(pytester).ret == 0


@pytest.mark.parametrize(
    ("args", "near"),
    [
        (["--overfit-max-stepz", "5"], "--overfit-max-steps"),
        (["--overfit-max-stepz=5"], "--overfit-max-steps"),
        (["--overfit_seeds=1"], "--overfit-seeds"),
        (["--overfit-explian"], "--overfit-explain"),
    ],
)
def test_a_misspelt_option_is_4(pytester: pytest.Pytester, args: list[str], near: str) -> None:
    """One message, which names the nearest option."""
    result = run(pytester, *args)
    assert result.ret == USAGE
    name = args[0].partition("=")[0]
    result.stderr.fnmatch_lines([f"ERROR: {name}: found an unknown option; did you mean {near}? allowed: *"])
    assert "unrecognized" not in result.stderr.str()


def test_options_and_ini_keys_of_others_are_welcome(pytester: pytest.Pytester) -> None:
    """A conftest may have an option and an ini key that begin like ours; after ``--`` there are no options."""
    pytester.makeconftest(
        """
        def pytest_addoption(parser):
            parser.addoption("--overfit-own")
            parser.addini("overfit_own", "own")
        """
    )
    pytester.makeini("[pytest]\noverfit_own = 1\n")
    assert run(pytester, "--overfit-own", "1").ret == 0
    result = run(pytester, "--", "--overfit-nothing")
    assert "unknown option" not in result.stderr.str()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--overfit-max-steps=many", "found 'many', allowed: a whole number of at least 1"),
        ("--overfit-max-steps=0", "found '0', allowed: a whole number of at least 1"),
        ("--overfit-max-seconds=nan", "found 'nan', allowed: a number above 0"),
        ("--overfit-max-seconds=-1", "found '-1', allowed: a number above 0"),
        ("--overfit-seeds=0,x", "found '0,x', allowed: distinct whole numbers from 0 to 4294967295, such as 0,1,2"),
        ("--overfit-seeds=1,1", "found '1,1', allowed: distinct whole numbers*"),
    ],
)
def test_a_wrong_value_is_4(pytester: pytest.Pytester, tiny: TinyConfig, option: str, says: str) -> None:
    """On the command line and in the ini file alike."""
    name, _, value = option.partition("=")
    result = run(pytester, option)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"*argument {name}: {says}"])
    tiny()
    ini = name[2:].replace("-", "_")
    result = run(pytester, "-o", f"{ini}={value}", "--overfit-config", "tiny.yaml")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: {ini} in the ini file: {says}"])


def test_a_misspelt_key_of_a_config_is_4(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """In the file, and in an override."""
    tiny(replace=(("threads: 1", "sedes: 1"),))
    result = run(pytester, "--overfit-config", "tiny.yaml", "--overfit-set", "overfit.budget.max_step=1")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["*overfit.sedes: *did you mean seeds?)*", "*.max_step: *did you mean max_steps?)*"])


def test_a_misspelt_keyword_of_a_marker_fails_its_test(pytester: pytest.Pytester) -> None:
    """And no other: the exit code is 1."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.overfit(max_step=5)
        def test_marked(overfit_config): pass

        def test_other(): pass
        """
    )
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.overfit: argument max_step", "*did you mean 'max_steps'?*"])


def test_the_marker_lists_every_setting(pytester: pytest.Pytester) -> None:
    """--markers is rendered from the table of settings."""
    from pytest_overfit.settings.keywords import table_of_settings

    shown = pytester.runpytest_inprocess("--markers").stdout
    shown.fnmatch_lines(["@pytest.mark.overfit(config=..., max_steps=..., TERM=limit, ...): settings of*"])
    shown.fnmatch_lines([f"  {setting.name} *: {setting.kind}".replace("[", "[[]") for setting in table_of_settings()])


def test_every_option_has_its_ini_twin(pytester: pytest.Pytester) -> None:
    """But for the one that only shows, and the one that only writes; two ini keys are for whole repositories."""
    from pytest_overfit.plugin.options import INI, OPTIONS

    twins = {name[2:].replace("-", "_") for name in OPTIONS} - {"overfit_explain", "overfit_save"}
    assert twins == INI.keys() - {"overfit_storage", "overfit_properties", "overfit_keep"}
    helped = pytester.runpytest_inprocess("--help").stdout.str()
    assert all(f"{name}" in helped for name in [*OPTIONS, *(f"{name} (" for name in INI)])
