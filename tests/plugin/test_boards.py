"""TensorBoard files of whole sessions: one folder per test and seed, each with its verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import read_scalars

QUICK = ("threads: 1", "threads: 1\n  diagnose: false\n  budget: {max_steps: 12}")


def folders_of(log_dir: Path) -> list[Path]:
    """The folders that hold event files."""
    return sorted({path.parent for path in log_dir.rglob("events.*")})


def test_every_seed_has_its_folder_and_its_verdict(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Each run ends with its own verdict, its limits beside its curves."""
    tiny(replace=(QUICK,))
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "objective", "--overfit-seeds", "3,4")
    folders = folders_of(pytester.path / "overfit_logs")
    assert len(folders) == 2
    for folder in folders:
        assert len(list(folder.iterdir())) == 1
        rows = read_scalars(folder)
        assert rows["verdict/passed"] == [(12, 0.0)]
        assert [rows["watch/limits/camera"][end][0] for end in (0, -1)] == [1, 12]
        assert rows["train/loss_objective"][-1][0] == 12


def test_a_marked_test_has_a_folder_of_its_id(pytester: pytest.Pytester) -> None:
    """Any model: the limits of the marker, updates per module, and the verdict."""
    pytester.makepyfile(
        """
        import pytest, torch

        @pytest.mark.overfit(objective=0.5, max_steps=200)
        def test_it(overfit):
            torch.manual_seed(0)
            x = torch.rand(4, 3)
            overfit(torch.nn.Sequential(torch.nn.Linear(3, 1)), (x, x.sum(1, keepdim=True)), torch.nn.MSELoss())
        """
    )
    pytester.runpytest_inprocess("--overfit-log-dir", "boards")
    (folder,) = folders_of(pytester.path / "boards")
    assert folder.parent.name.endswith("py_test_it")
    rows = read_scalars(folder)
    assert len(rows["verdict/passed"]) == 1
    assert {"train/loss_objective", "watch/limits/objective", "watch/grad_norm/0", "watch/update_norm/0"} <= rows.keys()
