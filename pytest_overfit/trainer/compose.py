"""From a config file and overrides to one resolved tree of plain containers.

The plain subset of composition is ours; what is beyond it is Hydra's, where that is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.settings.overrides import Override, parse_override
from pytest_overfit.settings.problems import Problem, Unusable
from pytest_overfit.settings.secret import SHORTEST, Secret, is_from_environment, is_secret_key
from pytest_overfit.settings.section import BROKEN
from pytest_overfit.trainer.config_file import Beyond, parse, read_text
from pytest_overfit.trainer.defaults import composed
from pytest_overfit.trainer.import_roots import PATH_KEY
from pytest_overfit.trainer.interpolation import Resolver, Value, dotted
from pytest_overfit.trainer.merge import apply, not_given
from pytest_overfit.trainer.with_hydra import composed_with_hydra, hydra_available

if TYPE_CHECKING:
    from pytest_overfit.settings.ladder import Layer

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
