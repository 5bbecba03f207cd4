"""From a config file and overrides to one resolved tree of plain containers.

The plain subset of composition is ours; what is beyond it is Hydra's, where that is installed: its plugins and
``${hydra:...}`` included. The given file reaches Hydra under a fixed alias, since Hydra's own lookup knows neither
``.yml`` nor every file name; what it includes is looked up by Hydra, next to the file and along ``hydra.searchpath``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.settings.overrides import Override, parse_override
from pytest_overfit.settings.problems import Problem, Unusable
from pytest_overfit.settings.secret import SHORTEST, Secret, is_from_environment, is_secret_key
from pytest_overfit.settings.section import BROKEN
from pytest_overfit.trainer.config_file import Beyond, parse, read_include, read_text
from pytest_overfit.trainer.imports import PATH_KEY
from pytest_overfit.trainer.interpolation import Resolver, Value, dotted
from pytest_overfit.trainer.merge import WHERE, apply, composed, failed, not_given

if TYPE_CHECKING:
    from pytest_overfit.settings.ladder import Layer

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
    path: Path, primary: dict[Any, Any], overrides: Sequence[Override]
) -> Iterator[tuple[dict[Any, Any], list[Override]]]:
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


def _compose(overrides: Sequence[Override]) -> tuple[dict[Any, Any], list[Override]]:
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


def _with_search_path(primary: dict[Any, Any], folder: Path) -> dict[Any, Any]:
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
def _own_hydra(primary: dict[Any, Any]) -> Iterator[None]:
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


_HYDRA_RESOLVERS = ("${hydra:", "${now:", "${python_version:")


@dataclass
class Tree:
    """A composed config: plain containers, and the problems of the values that could not be resolved.

    ``hidden`` are the keys whose values nobody is shown, ``secrets`` such values, as text; ``referred`` the keys that
    interpolations name.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    referred: set[str] = field(default_factory=set)

    def secrets_beside(self, paths: Iterable[str]) -> set[str]:
        """The values that no text may hold; of those that were read as paths, and of parts of them, texts may speak."""
        told = [*paths, *(value for key, value in _texts(self.values, "") if PATH_KEY.search(key))]
        found = {each for each in self.secrets if len(each) >= SHORTEST}
        return {each for each in found if not any(each in path for path in told)}


def compose_tree(path: Path, texts: Sequence[str], ini: Sequence[str] = (), settings: Sequence[Layer] = ()) -> Tree:
    """Reads, composes, overrides and resolves one config file: ``ini`` under it, ``texts`` and ``settings`` over it.

    Raises:
        Unusable: the file cannot be read or composed, or an override is malformed. Values that cannot be
            resolved are no reason to stop: they are `BROKEN` in the tree, each with its problem.
    """
    problems: list[Problem] = []
    overrides, weaker = _parsed(texts, problems), _parsed(ini, problems)
    try:
        source = read_text(path)
        primary = parse(source)
    except Unusable as error:
        raise Unusable(*error.problems, *problems) from error
    if problems:
        raise Unusable(*problems)

    def finish(tree: dict[Any, Any], left: Sequence[Override]) -> Tree:
        chosen = [item for item in overrides if item not in left]
        return _resolve(tree, {**_origins(chosen), **_write_layers(tree, weaker, left, settings)})

    special = any(name in text for name in _HYDRA_RESOLVERS for text in (source, *texts, *ini))
    try:
        if not (special and hydra_available()):
            return finish(*composed(path, primary, overrides))
    except Beyond:
        if not hydra_available():
            raise
    with composed_with_hydra(path, primary, overrides) as (tree, left):
        return finish(tree, left)


def _parsed(texts: Sequence[str], problems: list[Problem]) -> list[Override]:
    overrides: list[Override] = []
    for text in texts:
        try:
            overrides.append(parse_override(text))
        except Unusable as error:
            problems.extend(error.problems)
    return overrides


def _write_layers(
    tree: dict[Any, Any], weaker: Sequence[Override], overrides: Sequence[Override], settings: Sequence[Layer]
) -> dict[str, str]:
    """The ladder around the file, weakest first; gives back which key came from where."""
    origins = dict.fromkeys(_origins(apply(not_given(weaker, tree), tree)), "ini")
    given = [_origins(apply(overrides, tree))]
    for layer in settings:
        values = [
            Override(f"{layer.spoken(key)}={value}", ("overfit", *parts), value, whole=True)
            for key, parts, value in layer.leaves()
        ]
        given.append(dict.fromkeys(_origins(apply(values, tree)), layer.source))
    for stronger in given:
        for key, source in stronger.items():
            origins = {old: text for old, text in origins.items() if not old.startswith(f"{key}.")}
            origins[key] = source
    return origins


def _origins(overrides: Sequence[Override]) -> dict[str, str]:
    return {".".join(item.parts): f"override {item.told}" for item in overrides if not (item.of_hydra or item.is_group)}


def _resolve(raw: dict[Any, Any], origins: dict[str, str]) -> Tree:
    resolver = Resolver(raw)
    tree = Tree({}, origins, secrets=resolver.secrets, referred=resolver.referred)
    given = [dotted(tuple(key.split("."))) for key, source in origins.items() if source.startswith("override ")]

    def is_told_secret(text: str, name: str) -> bool:
        here = any(f"{name}.".startswith((f"{key}.", f"{key}[")) for key in given)
        return is_secret_key(name) or (here and is_from_environment(text))

    values = resolver.value(())
    for key, value in values.content.items():
        if key != "hydra":
            tree.values[str(key)] = _plain(value, str(key), tree, is_told_secret)
    return tree


def _plain(value: Value, name: str, tree: Tree, is_told_secret: Callable[[str, str], bool]) -> Any:
    """A value as plain containers; what cannot be resolved and what nobody is shown is noted."""
    content = value.content
    if value.problem:
        tree.problems.append(Problem(name, *value.problem))
        return BROKEN
    if isinstance(content, dict):
        return {key: _plain(item, f"{name}.{key}", tree, is_told_secret) for key, item in content.items()}
    if isinstance(content, list):
        return [_plain(item, f"{name}[{index}]", tree, is_told_secret) for index, item in enumerate(content)]
    if not value.secret and not (isinstance(content, str) and is_told_secret(content, name)):
        return content
    tree.hidden.add(name)
    if not isinstance(content, str):
        return content
    tree.secrets.add(content)
    return Secret(content)


def _texts(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _texts(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, str.__str__(node)
