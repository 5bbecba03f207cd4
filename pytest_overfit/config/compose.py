"""From a config file and overrides to one resolved tree of plain containers.

Hydra composes where its features are used (a ``defaults`` list, config groups, ``${hydra:...}``); a plain file needs
OmegaConf alone. The given file reaches Hydra under a fixed alias, since Hydra's own lookup knows neither ``.yml`` nor
every file name; what it includes is looked up by Hydra, next to the file and along ``hydra.searchpath``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.config.files import MAX_NODES, first_line, marked_problem, parse, read_text
from pytest_overfit.config.overrides import Override, apply, parse_override
from pytest_overfit.config.problems import Problem, Unusable

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ALIAS = "__pytest_overfit_config__"
_HYDRA_RESOLVERS = ("${hydra:", "${now:", "${python_version:")
_MAX_DEPTH = 64


class Broken:
    """Stands in the tree for a value with a problem that is already reported."""

    def __repr__(self) -> str:
        return "<unresolved>"


BROKEN = Broken()


@dataclass
class Tree:
    """A composed config: plain containers, and the problems of the values that could not be resolved."""

    values: dict[str, Any]
    origins: dict[str, str]
    problems: list[Problem] = field(default_factory=list)


def compose_tree(path: Path, texts: Sequence[str]) -> Tree:
    """Reads, composes, overrides and resolves one config file.

    Example:
        >>> compose_tree(Path("a.yaml"), ["optim.optimizer.lr=1e-3"]).values["optim"]   # doctest: +SKIP
        {'optimizer': {'lr': 0.001}}

    Raises:
        Unusable: the file cannot be read or composed, or an override is malformed. Values that cannot be
            resolved are no reason to stop: they are `BROKEN` in the tree, each with its problem.
    """
    overrides: list[Override] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            overrides.append(parse_override(text))
        except Unusable as error:
            problems.extend(error.problems)
    try:
        source = read_text(path)
        primary = parse(source)
    except Unusable as error:
        raise Unusable(*error.problems, *problems) from error
    if problems:
        raise Unusable(*problems)
    origins = {".".join(override.parts): f"override {override.text}" for override in overrides if not override.group}
    if _needs_hydra(primary, source, overrides, path.parent):
        return _compose_with_hydra(path, primary, overrides, origins)
    apply(overrides, primary)
    return _resolve(primary, origins)


def _needs_hydra(primary: DictConfig, source: str, overrides: Sequence[Override], folder: Path) -> bool:
    return (
        "defaults" in primary
        or any(name in source for name in _HYDRA_RESOLVERS)
        or any(item.group or _names_option(item, folder) for item in overrides)
    )


def _names_option(override: Override, folder: Path) -> bool:
    """Whether ``model=small`` means the config group: ``model/small.yaml`` lies next to the config."""
    if len(override.parts) != 1 or not isinstance(override.value, str) or not override.value:
        return False
    try:
        return (folder / override.key / f"{override.value.removesuffix('.yaml')}.yaml").is_file()
    except (OSError, ValueError):
        return False


def _compose_with_hydra(
    path: Path, primary: DictConfig, overrides: Sequence[Override], origins: dict[str, str]
) -> Tree:
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    _anchor_searchpath(primary, path.parent)
    with _own_hydra(primary):
        try:
            with initialize_config_dir(config_dir=str(path.parent), job_name=path.stem, version_base="1.3"):
                ours, hydras = _split(overrides)
                tree = compose(_ALIAS, overrides=hydras, return_hydra_config=True)
                HydraConfig.instance().set_config(tree)
        except Unusable:
            raise
        except RecursionError as error:
            raise Unusable(Problem("defaults", "configs that include each other", "a list without a cycle")) from error
        except Exception as error:  # Hydra, OmegaConf and YAML errors, and ValueErrors on odd defaults
            raise Unusable(_composition_problem(error, path)) from error
        OmegaConf.set_struct(tree, False)
        apply(ours, tree)
        return _resolve(tree, origins)


def _split(overrides: Sequence[Override]) -> tuple[list[Override], list[str]]:
    """Which overrides set values, and which choose config groups: those are composition, and Hydra's."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    settings = [item.text for item in overrides if item.key.startswith("hydra.")]

    def chooses_group(item: Override) -> bool:
        if item.group or len(item.parts) > 1:
            return item.group
        # Through the searchpath too; a name that is no group has no options.
        options = loader.get_group_options(item.key, config_name=_ALIAS, overrides=settings)
        chosen = item.value if isinstance(item.value, list) else [item.value]
        known = [str(name).removesuffix(".yaml") in options for name in chosen]
        return bool(options) and (item.delete or (bool(known) and all(known)))

    return (
        [item for item in overrides if not chooses_group(item)],
        [item.text for item in overrides if chooses_group(item)],
    )


def _anchor_searchpath(primary: DictConfig, folder: Path) -> None:
    """Makes relative folders of ``hydra.searchpath`` relative to the config file where they exist there."""
    from omegaconf import ListConfig, OmegaConf

    paths = OmegaConf.select(primary, "hydra.searchpath", default=None, throw_on_resolution_failure=False)
    if not isinstance(paths, ListConfig):
        return
    for index, entry in enumerate(list(paths)):
        if isinstance(entry, str) and ("://" not in entry or entry.startswith("file://")):
            nearby = folder / entry.removeprefix("file://")
            if nearby.is_dir():
                paths[index] = f"file://{nearby}"


@contextmanager
def _own_hydra(primary: DictConfig) -> Iterator[None]:
    """Gives Hydra a clean global state that knows the config by its alias, and puts the host's own state back."""
    from hydra import version
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import JobRuntime

    store = ConfigStore.instance()
    host, running = GlobalHydra.instance(), GlobalHydra.instance().hydra
    base, job, settings = version.getbase(), JobRuntime.instance().get("name"), HydraConfig.instance().cfg
    host.clear()
    store.store(name=_ALIAS, node=primary)
    try:
        with warnings.catch_warnings():  # a defaults list without _self_ is fine here: the given file wins
            warnings.simplefilter("ignore")
            yield
    finally:
        store.repo.pop(f"{_ALIAS}.yaml", None)
        HydraConfig.instance().cfg = settings
        JobRuntime.instance().set("name", job)
        version.VersionBase.instance().version_base = base
        host.hydra = running
        GlobalHydra.set_instance(host)


def _composition_problem(error: Exception, path: Path) -> Problem:
    import yaml
    from hydra.errors import MissingConfigException

    if isinstance(error, yaml.MarkedYAMLError):
        problem = marked_problem(error)
        mark = error.problem_mark or error.context_mark
        file = getattr(mark, "name", "an included file")
        return Problem("defaults", f"in {file}{problem.key} {problem.found}", problem.allowed, problem.hint)
    cause: BaseException = error
    while cause.__cause__ is not None and not str(cause).strip():
        cause = cause.__cause__
    text = str(cause).partition("Config search path")[0].replace(_ALIAS, path.name)
    found = " ".join(text.split()) or type(cause).__name__
    if isinstance(error, MissingConfigException):
        return Problem("defaults", found, "configs next to the file, or in a folder of hydra.searchpath")
    return Problem("defaults", f"a composition that fails: {found}")


def _resolve(tree: DictConfig, origins: dict[str, str]) -> Tree:
    result = Tree({}, origins)
    walker = _Walker(result.problems)
    for key in tree:
        if key != "hydra":
            result.values[str(key)] = walker.child(tree, key, str(key), 1)
    return result


@dataclass
class _Walker:
    """Turns OmegaConf nodes into plain containers, collecting what cannot be resolved instead of stopping there."""

    problems: list[Problem]
    count: int = 0

    def child(self, parent: Any, key: Any, name: str, depth: int) -> Any:
        from omegaconf import OmegaConf

        self.count += 1
        if depth > _MAX_DEPTH or self.count > MAX_NODES:
            allowed = f"at most {MAX_NODES} values, {_MAX_DEPTH} deep"
            raise Unusable(Problem(name, "values that expand without end", allowed))
        if not OmegaConf.is_interpolation(parent, key) and OmegaConf.is_missing(parent, key):
            return self.broken(Problem(name, "???, a value that has to be given", "a value here or as an override"))
        try:
            value = parent[key]
        except Exception as error:  # resolvers run arbitrary code
            return self.broken(_resolution_problem(name, error, _written(parent, key)))
        return self.plain(value, name, depth)

    def plain(self, value: Any, name: str, depth: int) -> Any:
        from omegaconf import DictConfig, ListConfig

        if isinstance(value, DictConfig):
            return {key: self.child(value, key, f"{name}.{key!s}", depth + 1) for key in value}
        if isinstance(value, ListConfig):
            return [self.child(value, index, f"{name}[{index}]", depth + 1) for index in range(len(value))]
        return value

    def broken(self, problem: Problem) -> Broken:
        self.problems.append(problem)
        return BROKEN


def _written(parent: Any, key: Any) -> str:
    """An interpolation as it stands in the file."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(parent, resolve=False)
    return str(raw[key]) if isinstance(raw, (Mapping, list)) else ""


def _resolution_problem(name: str, error: Exception, written: str) -> Problem:
    text = str(error)
    variable = re.search(r"Environment variable '(.+?)' not found", text)
    if variable:
        found = f"{written}, but the environment variable {variable[1]} is not set"
        return Problem(name, found, f"{variable[1]} set, or a default: ${{oc.env:{variable[1]},default}}")
    target = re.search(r"Interpolation key '(.+?)' not found", text)
    if target:
        return Problem(name, f"{written}, but there is no key {target[1]}", "the name of a key of this config")
    return Problem(name, f"{written}, which cannot be resolved: {first_line(error)}")
