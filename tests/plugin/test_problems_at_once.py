"""What is wrong with a config in several places is told by one run."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig

MISSING, CLASS, ARGUMENT, KEY = "/no/such/root", "no_such.Class", "optim.optimizer.lrr=1", "img_sise=112"
ON_DISK = (
    ("fix_aspect_ratio: 0.92}", f"fix_aspect_ratio: 0.92}}\n    dataset: {{dataset_configs: [{{ROOT: {MISSING}}}]}}"),
    ("{source: render, width: 160, height: 120}", "{source: dataset}"),
)


@pytest.fixture
def options(tiny: TinyConfig) -> tuple[str, ...]:
    """Of a session whose config is wrong in three places."""
    tiny(replace=ON_DISK)
    return ("--overfit-config=tiny.yaml", f"--overfit-set=model._target_={CLASS}", f"--overfit-set={ARGUMENT}")


def test_paths_classes_and_arguments_are_one_failure(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    """Of one item; no other item tells one of them again."""
    result = pytester.runpytest_inprocess("-q", *options)
    result.assert_outcomes(failed=1, skipped=14)
    text = result.stdout.str().partition("--- overfit tiny.yaml")[0]
    assert "config: 3 problems: data.train.dataset.dataset_configs.0.ROOT, model._target_, optim.optimizer.lrr" in text
    for told in (MISSING, CLASS, "--overfit-set optim.optimizer.lr=1"):
        assert text.count(told) == 1, told


def test_beside_a_misspelt_key_they_are_one_usage_error(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    """Before anything is collected."""
    result = pytester.runpytest_inprocess("-q", *options, f"--overfit-set={KEY}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.errlines)
    for told in (MISSING, CLASS, "--overfit-set optim.optimizer.lr=1", "--overfit-set img_size=112"):
        assert told in text
    assert "4 problems in the config" in text


def test_what_a_team_gives_itself_is_no_problem(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    """Their fixture stands in for the class that is not there."""
    pytester.makeconftest(
        "import pytest, torch\n@pytest.fixture\ndef overfit_model():\n    return torch.nn.Linear(3, 1)\n"
    )
    result = pytester.runpytest_inprocess("-q", *options)
    assert "config: 2 problems: data.train.dataset.dataset_configs.0.ROOT, optim.optimizer" in result.stdout.str()
