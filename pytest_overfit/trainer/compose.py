"""From a config file and overrides to one resolved tree of plain containers.

A plain file needs OmegaConf alone. A ``defaults`` list and config groups are composed by Hydra where it is installed,
else by ``without_hydra``; ``${hydra:...}`` and its like are Hydra's alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.settings.overrides import Override, apply, not_given, parse_override
from pytest_overfit.settings.problems import WITHIN_BITS, Problem, Unusable, is_wide, wide
from pytest_overfit.settings.secret import Secret, is_from_environment, is_secret_key
from pytest_overfit.trainer.config_file import MAX_NODES, first_line, parse, read_text
from pytest_overfit.trainer.defaults import INSTALL_HYDRA
from pytest_overfit.trainer.interpolation import Survey, dotted, expect_bounded
from pytest_overfit.trainer.with_hydra import composed_with_hydra, hydra_available
from pytest_overfit.trainer.without_hydra import composed_without_hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pytest_overfit.settings.ladder import Layer

_HYDRA_RESOLVERS = ("${hydra:", "${now:", "${python_version:")
_MAX_DEPTH = 64


class Broken:
    """Stands in the tree for a value with a problem that is already reported."""

    def __repr__(self) -> str:
        return "<unresolved>"


BROKEN = Broken()


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


def compose_tree(path: Path, texts: Sequence[str], ini: Sequence[str] = (), settings: Sequence[Layer] = ()) -> Tree:
    """Reads, composes, overrides and resolves one config file: ``ini`` under it, ``texts`` and ``settings`` over it.

    Example:
        >>> compose_tree(Path("a.yaml"), ["optim.optimizer.lr=1e-3"]).values["optim"]   # doctest: +SKIP
        {'optimizer': {'lr': 0.001}}

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
    lists = "defaults" in primary or any(item.group or _names_option(item, path.parent) for item in overrides)
    special = any(name in text for name in _HYDRA_RESOLVERS for text in (source, *texts, *ini))
    expect_bounded(primary)
    if (lists or special) and hydra_available():
        with composed_with_hydra(path, primary, overrides) as (tree, left):
            chosen = [item for item in overrides if item not in left]
            return _resolve(tree, {**_origins(chosen), **_write_layers(tree, weaker, left, settings)})
    left = overrides
    if lists:
        primary, left = composed_without_hydra(path, primary, overrides)
    chosen = [item for item in overrides if item not in left]
    return _resolve(primary, {**_origins(chosen), **_write_layers(primary, weaker, left, settings)})


def _parsed(texts: Sequence[str], problems: list[Problem]) -> list[Override]:
    overrides: list[Override] = []
    for text in texts:
        try:
            overrides.append(parse_override(text))
        except Unusable as error:
            problems.extend(error.problems)
    return overrides


def _write_layers(
    tree: DictConfig, weaker: Sequence[Override], overrides: Sequence[Override], settings: Sequence[Layer]
) -> dict[str, str]:
    """The ladder around the file, weakest first; gives back which key came from where."""
    expect_bounded(tree)
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
    return {".".join(override.parts): f"override {override.told}" for override in overrides if not override.group}


def _names_option(override: Override, folder: Path) -> bool:
    """Whether ``model=small`` means the config group: ``model/small.yaml`` lies next to the config."""
    if len(override.parts) != 1 or not isinstance(override.value, str) or not override.value:
        return False
    try:
        return (folder / override.key / f"{override.value.removesuffix('.yaml')}.yaml").is_file()
    except (OSError, ValueError):
        return False


def _resolve(tree: DictConfig, origins: dict[str, str]) -> Tree:
    survey = expect_bounded(tree)
    result = Tree({}, origins, secrets=survey.secrets, referred=survey.referred)
    given = {dotted(tuple(key.split("."))) for key, source in origins.items() if source.startswith("override ")}
    walker = _Walker(result, survey, given)
    for key in tree:
        if key != "hydra":
            result.values[str(key)] = walker.child(tree, key, str(key), 1)
    return result


@dataclass
class _Walker:
    """Turns OmegaConf nodes into plain containers, collecting what cannot be resolved instead of stopping there.

    Args:
        given: the keys that overrides set.
    """

    result: Tree
    survey: Survey
    given: set[str]
    count: int = 0

    def child(self, parent: Any, key: Any, name: str, depth: int, *, secret: bool = False) -> Any:
        from omegaconf import OmegaConf

        self.count += 1
        if depth > _MAX_DEPTH or self.count > MAX_NODES:
            allowed = f"at most {MAX_NODES} values, {_MAX_DEPTH} deep"
            raise Unusable(Problem(name, "values that expand without end", allowed))
        referring = OmegaConf.is_interpolation(parent, key)
        if not referring and OmegaConf.is_missing(parent, key):
            return self.broken(Problem(name, "???, a value that has to be given", "a value here or as an override"))
        written = _written(parent, key) if referring else ""
        origin = self.survey.of_text(written, _path(parent, key)).origin if referring else ""
        try:
            with users_code():  # of a resolver
                value = parent[key]
        except Refused as refused:
            return self.broken(_resolution_problem(name, refused.error, written))
        secret = secret or origin == "environment" or (origin == "resolver" and isinstance(value, str))
        return self.plain(value, name, depth, secret=secret)

    def plain(self, value: Any, name: str, depth: int, *, secret: bool) -> Any:
        from omegaconf import DictConfig, ListConfig

        for number in value if isinstance(value, DictConfig) else (value,):  # out of a resolver: the rest was measured
            if is_wide(number):
                return self.broken(Problem(name, wide(number), WITHIN_BITS))
        if isinstance(value, DictConfig):
            return {key: self.child(value, key, f"{name}.{key!s}", depth + 1, secret=secret) for key in value}
        if isinstance(value, ListConfig):
            indices = range(len(value))
            return [self.child(value, index, f"{name}[{index}]", depth + 1, secret=secret) for index in indices]
        return self.hidden(value, name) if secret or self.is_told_secret(value, name) else value

    def is_told_secret(self, value: Any, name: str) -> bool:
        return isinstance(value, str) and (is_secret_key(name) or (self.is_given(name) and is_from_environment(value)))

    def is_given(self, name: str) -> bool:
        return any(f"{name}.".startswith((f"{key}.", f"{key}[")) for key in self.given)

    def hidden(self, value: Any, name: str) -> Any:
        self.result.hidden.add(name)
        if not isinstance(value, str):
            return value
        self.result.secrets.add(value)
        return Secret(value)

    def broken(self, problem: Problem) -> Broken:
        self.result.problems.append(problem)
        return BROKEN


def _path(parent: Any, key: Any) -> tuple[str, ...]:
    full = parent._get_full_key(key)
    return tuple(part for part in re.split(r"[.\[\]]+", full) if part)


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
    if re.search(r"Unsupported interpolation type (hydra|now|python_version)\b|HydraConfig was not set", text):
        return Problem(name, f"{written}, which only Hydra can resolve", hint=INSTALL_HYDRA)
    return Problem(name, f"{written}, which cannot be resolved: {first_line(error)}")
