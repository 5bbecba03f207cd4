"""Composition by Hydra, for teams that have it: its plugins, config store and ``${hydra:...}`` included.

The given file reaches Hydra under a fixed alias, since Hydra's own lookup knows neither ``.yml`` nor every file name;
what it includes is looked up by Hydra, next to the file and along ``hydra.searchpath``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_overfit.settings.overrides import Override
from pytest_overfit.settings.problems import Problem, Unusable
from pytest_overfit.trainer.config_file import read_include
from pytest_overfit.trainer.defaults import WHERE, failed
from pytest_overfit.trainer.merge import Tree

_ALIAS = "__pytest_overfit_config__"
_OLDEST = (1, 3)


def hydra_available() -> bool:
    """Whether Hydra 1.3 or newer is installed; a folder that happens to be called ``hydra`` is not Hydra."""
    try:
        installed = importlib.metadata.version("hydra-core").split(".")
        return importlib.util.find_spec("hydra") is not None and tuple(map(int, installed[:2])) >= _OLDEST
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


@contextmanager
def composed_with_hydra(
    path: Path, primary: Tree, overrides: Sequence[Override]
) -> Iterator[tuple[Tree, list[Override]]]:
    """The composed tree, and the overrides that still have to be written into it; ``${hydra:...}`` works inside.

    Raises:
        Unusable: the composition fails.
    """
    from hydra import initialize_config_dir

    with _own_hydra(_with_search_path(primary, path.parent)):
        with _as_problems(path):
            directory = initialize_config_dir(config_dir=str(path.parent), job_name=path.stem, version_base="1.3")
        with directory:
            with _as_problems(path):
                tree, ours = _compose(overrides)
            yield tree, ours


def _compose(overrides: Sequence[Override]) -> tuple[Tree, list[Override]]:
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    loader = GlobalHydra.instance().config_loader()
    settings = [item.text for item in overrides if item.key.startswith("hydra.")]

    def is_hydras(item: Override) -> bool:
        """What only Hydra reads, and the choice of an option that there is."""
        if item.of_hydra or item.is_group or len(item.parts) > 1:
            return item.of_hydra or item.is_group
        known = loader.get_group_options(item.key, config_name=_ALIAS, overrides=settings)
        return bool(known) and str(item.value).removesuffix(".yaml") in known

    theirs = [item for item in overrides if is_hydras(item)]
    config = compose(_ALIAS, overrides=[item.text for item in theirs], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    tree: Any = OmegaConf.to_container(config, resolve=False)
    return tree, [item for item in overrides if item not in theirs]


def _with_search_path(primary: Tree, folder: Path) -> Tree:
    """The config with the folders of ``hydra.searchpath`` that lie next to it as absolute ones."""
    settings = primary.get("hydra")
    written = settings.get("searchpath") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(written, list):
        return primary
    paths = [_anchored(path, folder) if isinstance(path, str) else path for path in written]
    return {**primary, "hydra": {**settings, "searchpath": paths}}


def _anchored(path: str, folder: Path) -> str:
    nearby = folder / path.removeprefix("file://")
    return f"file://{nearby}" if "://" not in path.removeprefix("file://") and nearby.is_dir() else path


@contextmanager
def _own_hydra(primary: Tree) -> Iterator[None]:
    """Gives Hydra a clean global state that knows the config by its alias, and puts the host's own state back."""
    from hydra import version
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobRuntime

    Plugins.instance()  # registers Hydra's own sources, which would collide with ours
    store, sources = ConfigStore.instance(), SourcesRegistry.instance().types
    host, running, files = GlobalHydra.instance(), GlobalHydra.instance().hydra, sources["file"]
    base, job, settings = version.getbase(), JobRuntime.instance().get("name"), HydraConfig.instance().cfg
    host.clear()
    store.store(name=_ALIAS, node=primary)
    sources["file"] = _bounded_source()
    try:
        with warnings.catch_warnings():  # a defaults list without _self_ is fine here: the given file wins
            warnings.simplefilter("ignore")
            yield
    finally:
        sources["file"] = files
        store.repo.pop(f"{_ALIAS}.yaml", None)
        HydraConfig.instance().cfg = settings
        JobRuntime.instance().set("name", job)
        version.VersionBase.instance().version_base = base
        host.hydra = running
        GlobalHydra.set_instance(host)


def _bounded_source() -> type:
    """Hydra's file source, reading after this package has: bounded, and with lines and columns in messages."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    class BoundedSource(FileConfigSource):
        def load_config(self, config_path: str) -> Any:
            read_include(Path(self.path) / self._normalize_file_name(config_path))
            return super().load_config(config_path)

    return BoundedSource


@contextmanager
def _as_problems(path: Path) -> Iterator[None]:
    from hydra.errors import MissingConfigException

    try:
        yield
    except Unusable:
        raise
    except RecursionError as error:
        raise Unusable(Problem("defaults", "configs that include each other", "a list without a cycle")) from error
    except Exception as error:  # Hydra, OmegaConf and YAML errors, and ValueErrors on odd defaults
        cause: BaseException = error
        while cause.__cause__ is not None and not str(cause).strip():
            cause = cause.__cause__
        text = str(cause).partition("Config search path")[0].replace(_ALIAS, path.name)
        found = " ".join(text.split()) or type(cause).__name__
        if isinstance(error, MissingConfigException):
            raise Unusable(Problem("defaults", found, WHERE)) from error
        raise failed(found) from error
