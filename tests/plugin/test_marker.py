"""Ordinary tests under a config: the marker and the fixtures."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import run_folders


def test_a_marked_test_gets_the_verdict_of_its_config(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Function, class and parametrized; the path is relative to the test file, not to the rootdir."""
    sub = pytester.mkdir("sub")
    tiny().rename(sub / "tiny.yaml")
    (sub / "test_marked.py").write_text(
        """
import pytest

@pytest.mark.overfit(config="tiny.yaml")
def test_function(overfit_result, overfit_batch, overfit_config):
    overfit_result.check()
    assert overfit_config.exp_name == "tiny"
    assert overfit_batch["images"].shape == (1, 2, 3, 42, 56)

@pytest.mark.overfit(config="tiny.yaml")
class TestClass:
    def test_batch(self, overfit_batch):
        assert float(overfit_batch["avg_scale"][0]) > 1

@pytest.mark.overfit(config="tiny.yaml")
@pytest.mark.parametrize("key", ["images", "depths"])
def test_keys(overfit_batch, key):
    assert key in overfit_batch
""",
        encoding="utf-8",
    )
    result = pytester.runpytest_inprocess("--strict-markers", "sub")
    result.assert_outcomes(passed=4)
    assert [*run_folders(pytester.path / "overfit_logs")] == ["sub_test_marked.py_test_function"]


def test_a_missed_criterion_fails_a_marked_test(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """check() names all of them at once."""
    tiny()
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.overfit(config="tiny.yaml")
        def test_learns(overfit_result):
            overfit_result.check()
        """
    )
    result = pytester.runpytest_inprocess("--overfit-set", "overfit.budget.max_steps=40")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: loss_camera *, allowed < 0.001: *",
            "*2 of 11 criteria missed",
            "*camera: loss_camera*",
            "*prediction: *",
        ]
    )


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("overfit(confg='tiny.yaml')", ["*@pytest.mark.overfit: argument confg*", "*did you mean 'config'?*"]),
        ("overfit('tiny.yaml')", ["*@pytest.mark.overfit: argument 'tiny.yaml'*", "*allowed: config=*"]),
        ("overfit(config='no.yaml')", ["*no.yaml: found no such file*"]),
        ("overfit", ["*0 configs to choose from*", "*next: name it: @pytest.mark.overfit(config=*"]),
    ],
)
def test_a_wrong_marker_is_an_error_of_its_test(
    pytester: pytest.Pytester, tiny: TinyConfig, mark: str, says: list[str]
) -> None:
    """The other tests of the session go on, and no frame of ours is shown."""
    tiny()
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.{mark}
        def test_marked(overfit_config): pass

        def test_other(): pass
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(says)
    assert "fixtures.py" not in result.stdout.str()


def test_one_config_of_the_session_serves_unmarked_tests(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """With two there would be a choice to make."""
    tiny("a.yaml")
    tiny("b.yaml")
    pytester.makepyfile("def test_name(overfit_config): assert overfit_config.path.name == 'a.yaml'")
    one = pytester.runpytest_inprocess(".", "--overfit-config", "a.yaml", "-k", "name")
    one.assert_outcomes(passed=1, deselected=15)
    two = pytester.runpytest_inprocess(".", "--overfit-config", "a.yaml", "--overfit-config", "b.yaml", "-k", "name")
    two.assert_outcomes(errors=1, deselected=30)
    two.stdout.fnmatch_lines(["*2 configs to choose from*"])


def test_the_marker_and_the_fixtures_are_documented(pytester: pytest.Pytester) -> None:
    """--markers, --fixtures and --help show what there is."""
    pytester.runpytest_inprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.overfit(config=..., max_steps=..., *"]
    )
    shown = pytester.runpytest_inprocess("--fixtures").stdout.str()
    for name in ("config", "pair", "dataset", "loader", "batch", "val_batch", "model", "loss", "result"):
        assert f"overfit_{name} " in shown
    options = ("config=FILE", "set=KEY=VALUE", "device=DEVICE", "require-gpu", "log-dir=DIR")
    helped = pytester.runpytest_inprocess("--help").stdout.str()
    for option in options:
        assert f"--overfit-{option}" in helped
    for name in ("config", "set", "device", "require_gpu", "log_dir"):
        assert f"overfit_{name} (" in helped
