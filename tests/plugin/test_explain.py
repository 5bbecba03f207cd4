"""--overfit-explain."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig

TESTS = """
import pytest

@pytest.mark.overfit(max_steps=50, accuracy={"above": 0.9})
class TestOwn:
    @pytest.mark.overfit(seeds=(0, 1), max_steps=60)
    def test_any(self): pytest.skip("only shown")

    def test_class(self): pytest.skip("only shown")

@pytest.mark.overfit(config="tiny.yaml", objective=0.5)
def test_config(): pytest.skip("only shown")

@pytest.mark.overfit(max_step=50)
def test_typo(): pytest.skip("only shown")

@pytest.mark.overfit(max_steps="many")
def test_wrong(): pytest.skip("only shown")

def test_unmarked(): pass
"""


@pytest.mark.parametrize("extra", [["--collect-only"], ["-q"], []])
def test_every_value_and_its_source(pytester: pytest.Pytester, tiny: TinyConfig, extra: list[str]) -> None:
    """A table per config and per marked test, whether or not anything runs; a wrong marker is a line of its table."""
    tiny()
    pytester.makeini("[pytest]\noverfit_max_steps = 70\noverfit_device = cpu\n")
    pytester.makepyfile(test_own=TESTS)
    args = ["--overfit-config", "tiny.yaml", "--overfit-explain", "--overfit-set", "overfit.threads=2"]
    result = pytester.runpytest_inprocess("test_own.py", *args, *extra, "-k", "test_own")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "overfit settings of tiny.yaml",
            "  optim.optimizer.lr * 0.05 * tiny.yaml",
            "  overfit.budget.max_steps * 70 * ini",
            "  overfit.device * cpu * ini",
            "  overfit.threads * 2 * command line",
            "overfit settings of test_own.py::TestOwn::test_any",
            "  max_steps * 60 * @pytest.mark.overfit",
            "  seeds * 0, 1 * @pytest.mark.overfit",
            "  device * cpu * ini",
            "  threads * 2 * command line",
            "  deterministic * on * default",
            "  accuracy * > 0.9 * @pytest.mark.overfit",
            "overfit settings of test_own.py::TestOwn::test_class",
            "  max_steps * 50 * @pytest.mark.overfit",
            "overfit settings of test_own.py::test_config",
            "  overfit.criteria.objective * < 0.5 * @pytest.mark.overfit",
            "overfit settings of test_own.py::test_typo",
            "  @pytest.mark.overfit: argument max_step",
            "    next: did you mean 'max_steps'? pytest-overfit explain max_steps",
            "overfit settings of test_own.py::test_wrong",
            "    @pytest.mark.overfit: max_steps: found 'many', allowed: a whole number of at least 1",
        ]
    )
    assert sum("overfit settings of" in line for line in result.outlines) == 6


def test_without_it_nothing_is_shown(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The tables are asked for."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--collect-only")
    result.stdout.no_fnmatch_line("*overfit settings of*")


def test_without_any_config(pytester: pytest.Pytester) -> None:
    """A session that has only tests of its own."""
    pytester.makepyfile(test_own=TESTS.replace('config="tiny.yaml", ', ""))
    result = pytester.runpytest_inprocess("--overfit-explain", "-k", "any")
    result.assert_outcomes(deselected=5)
    assert sum("overfit settings of" in line for line in result.outlines) == 1


@pytest.mark.parametrize("extra", [[], ["-n", "1"], ["--overfit-strict"]])
def test_no_test_is_run(pytester: pytest.Pytester, extra: list[str]) -> None:
    """Whoever asks what is set does not wait for the whole suite; a strict session has judged nothing, and fails."""
    pytester.makepyfile(
        test_own="""
        import pathlib, pytest

        def test_unmarked(): pathlib.Path("ran").touch()

        @pytest.mark.overfit(max_steps=5)
        def test_marked(overfit): pathlib.Path("ran").touch()
        """
    )
    result = pytester.runpytest_subprocess("--overfit-explain", *extra)
    assert not (pytester.path / "ran").exists()
    assert result.ret == (extra == ["--overfit-strict"])
    assert extra == ["-n", "1"] or "overfit settings of test_own.py::test_marked" in result.stdout.str()


def test_the_controller_shows_the_configs(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Under pytest-xdist, once."""
    pytest.importorskip("xdist")
    tiny()
    pytester.makepyfile("def test_own(): pass")
    args = ["--overfit-config", "tiny.yaml", "--overfit-explain", "-k", "test_own", "-n", "1", "."]
    result = pytester.runpytest_subprocess(*args)
    assert result.ret == 0
    assert sum("overfit settings of tiny.yaml" in line for line in result.outlines) == 1
