"""Where Hydra is installed it composes, and the host's own use of it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer import compose
from pytest_overfit.trainer.loading import load_config

from .helpers import load, problems, problems_in, write

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


def test_what_is_beyond_the_plain_subset(tmp_path: Path) -> None:
    """Packages, headers, choices of several, the override keyword, added and removed keys are composed by Hydra."""
    write(tmp_path, "x: 1\n", "m/small.yaml")
    write(tmp_path, "# @package _global_\nimg_size: 28\n", "m/large.yaml")
    text = "defaults: [{m: small}, {m@k: [small, large]}, _self_, {override m: large}]\nexp_name: g\n"
    values = load(tmp_path, text, ["+new=1", "~exp_name", "m@k=[small]", "model.width=*agg*"]).resolved
    assert values == {"img_size": 28, "k": {"x": 1}, "new": 1, "model": {"width": "*agg*"}}


def test_search_path_next_to_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative search path is relative to the config, wherever pytest runs."""
    write(tmp_path, "max_epochs: 6\n", "proj/shared/common.yaml")
    path = write(tmp_path, "hydra: {searchpath: ['file://shared']}\ndefaults: [common, _self_]\n", "proj/a.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(path).max_epochs == 6


@pytest.mark.parametrize(
    ("defaults", "overrides", "found"),
    [
        ("[{m: nope}]", [], "In 'a.yaml': Could not find 'm/nope' Available options in 'm': large small, allowed:"
         " configs next to the file, or in a folder of hydra.searchpath"),
        ("[{m: '???'}]", [], "a composition that fails: You must specify 'm', e.g, m=<OPTION> Available options: large"
         " small"),
        ("[{m: small}, {m: large}]", [], "a composition that fails: Multiple values for m. To override a value use"
         " 'override m: large'"),
        ("[{override m: large}]", [], "a composition that fails: In 'a.yaml': Could not override 'm'. No match in the"
         " defaults list."),
        ("[{override m: large}, {m: small}]", [], "a composition that fails: In a.yaml: Override 'm : large' is defined"
         " before 'm: small'. Overrides must be at the end of the defaults list"),
        ("[_self_, _self_]", [], "a composition that fails: Duplicate _self_ defined in a.yaml"),
        ("[]", ["m=small"], "a composition that fails: Could not override 'm'. No match in the defaults list. To append"
         " to your default list use +m=small"),
        ("[{m@k: small}]", ["m=large"], "a composition that fails: Could not override 'm'. Did you mean to override"
         " m@k? To append to your default list use +m=large"),
        ("[{m: small}]", ["~m=large"], "a composition that fails: Could not delete 'm=large'. No match in the defaults"
         " list"),
        ("[{m: 3}]", [], "a composition that fails: Unsupported item value in defaults : int. Supported: string or"
         " list"),
    ],
)  # fmt: skip
def test_choices_that_fail(tmp_path: Path, defaults: str, overrides: list[str], found: str) -> None:
    """A choice that cannot be made says why, in Hydra's words."""
    write(tmp_path, "x: 1\n", "m/small.yaml")
    write(tmp_path, "x: 2\n", "m/large.yaml")
    text = f"defaults: {defaults}\nexp_name: x\n"
    assert problems_in(tmp_path, text, overrides) == [f"a.yaml: defaults: found {found}"]


def test_search_path_from_a_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search path that cannot be resolved is named with its variable."""
    monkeypatch.delenv("OVERFIT_NOT_SET", raising=False)
    write(tmp_path, "x: 1\n", "base.yaml")
    text = "hydra: {searchpath: ['${oc.env:OVERFIT_NOT_SET}']}\ndefaults: [base]\n"
    (line,) = problems_in(tmp_path, text)
    assert line.startswith("a.yaml: defaults: found a composition that fails: ")
    assert "OVERFIT_NOT_SET" in line


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
    assert compose.hydra_available() is expected
