"""Every example repository passes its own tests, run as its users would run them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.sessions import HANGS
from tests.support.warm import warm_python

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LEFTOVERS = ("__pycache__", ".*_cache", "overfit_logs")
PASSED = {
    "cnn_batchnorm": 3,
    "diffusion": 3,
    "gpt": 3,
    "huggingface_encoder": 3,
    "hydra_trainer": 17,  # fifteen items of its config among them
    "huggingface_trainer": 6,
    "lightning": 7,
    "mlp": 2,
    "monorepo": 4,
    "multitask": 2,
    "two_view": 17,  # fifteen items of its config among them
}
NEEDS = {
    "huggingface_encoder": "transformers",
    "huggingface_trainer": "accelerate",
    "hydra_trainer": "hydra",
    "lightning": "pytorch_lightning",
}
NO_REPOSITORY = {"ci"}
TIMEOUT = HANGS  # each takes a few seconds


def test_no_example_is_left_out() -> None:
    """A folder of examples/ that the test below does not run is found here."""
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - NO_REPOSITORY == PASSED.keys()


@pytest.mark.parametrize("name", PASSED)
def test_example_passes(name: str, tmp_path: Path) -> None:
    """In a copy of its folder, in a process of its own: exit code 0, and as many tests as there are."""
    needed = NEEDS.get(name)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(*LEFTOVERS))
    run = subprocess.run(
        [*warm_python(), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    assert re.findall(r"(\d+) (passed|failed|skipped|error)", run.stdout) == [(str(PASSED[name]), "passed")], run.stdout


@pytest.mark.parametrize("name", PASSED)
def test_readme_names_the_test_that_shows_a_failure(name: str) -> None:
    """Every example shows a broken variant failing, in a test that its README names."""
    named = re.findall(r"`(test_\w+_found)`", (EXAMPLES / name / "README.md").read_text())
    source = "\n".join(path.read_text() for path in (EXAMPLES / name).rglob("test_*.py"))
    assert len(named) == 1
    body = source.partition(f"def {named[0]}(")[2].partition("\ndef ")[0]
    assert "pytest.raises(" in body
    assert "AssertionError, match=" in body
