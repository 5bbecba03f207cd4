"""Where Hydra is installed it composes, and the host's own use of it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer import with_hydra
from pytest_overfit.trainer.loading import load_config

from .helpers import load, problems, write

pytest.importorskip("hydra")


def test_host_hydra_survives(tmp_path: Path) -> None:
    """A process that uses Hydra itself finds its own state untouched, also after a failed composition."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    write(tmp_path, "host: 1\n", "host/conf.yaml")
    write(tmp_path, "img_size: 112\n", "base.yaml")
    path = write(tmp_path, "defaults: [base, _self_]\nexp_name: '${hydra:job.name}'\n", "mine.yaml")
    bad = write(tmp_path, "defaults: [nothing]\n", "bad.yaml")
    with initialize_config_dir(config_dir=str(tmp_path / "host"), job_name="host_job", version_base="1.2"):
        hydra, stored = GlobalHydra.instance().hydra, set(ConfigStore.instance().repo)
        assert load_config(path).exp_name == "mine"
        assert len(problems(bad)) == 1
        assert GlobalHydra.instance().hydra is hydra
        assert set(ConfigStore.instance().repo) == stored
        assert not HydraConfig.initialized()
        composed = compose("conf", return_hydra_config=True)
        assert (composed.host, composed.hydra.job.name, composed.hydra.runtime.version_base) == (1, "host_job", "1.2")
    assert load_config(path).img_size == 112
    assert not GlobalHydra.instance().is_initialized()


def test_now_without_a_defaults_list(tmp_path: Path) -> None:
    """Hydra's own resolvers work in a plain file too."""
    assert load(tmp_path, "exp_name: run_${now:%Y}\n").exp_name.startswith("run_2")


def test_hydra_section_and_launcher(tmp_path: Path) -> None:
    """What only Hydra knows, such as its launchers, is its business, and does not reach the config."""
    text = "defaults: [_self_, {override hydra/launcher: basic}]\nhydra: {run: {dir: x}}\nexp_name: g\n"
    assert "hydra" not in load(tmp_path, text, ["hydra.job.name=y"]).resolved


def test_reading_of_files_is_put_back(tmp_path: Path) -> None:
    """Includes are read by our bounded reader during a composition only."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra._internal.sources_registry import SourcesRegistry

    write(tmp_path, "x: 1\n", "base.yaml")
    load(tmp_path, "defaults: [base]\n")
    assert SourcesRegistry.instance().types["file"] is FileConfigSource


@pytest.mark.parametrize(
    ("installed", "expected"), [("1.3.2", True), ("1.4.0.dev1", True), ("1.2.0", False), ("x", False)]
)
def test_which_hydra_counts(monkeypatch: pytest.MonkeyPatch, installed: str, expected: bool) -> None:
    """Hydra 1.3 or newer composes; an older one, which composes differently, is left alone."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: installed)
    assert with_hydra.hydra_available() is expected
