"""Values written into a composed tree of plain containers, before its ``${...}`` are resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_overfit.settings.criteria_registry import limit_aliases
from pytest_overfit.settings.overrides import Override
from pytest_overfit.settings.problems import Problem, Unusable, shown
from pytest_overfit.trainer.interpolation import Path, Resolver, child

Tree = dict[Any, Any]


def merge(tree: Tree, values: Mapping[Any, Any]) -> None:
    """Writes values over those of a tree: mappings key by key, everything else as a whole; ``???`` says nothing.

    Example:
        >>> tree = {"a": {"b": 1, "c": 2}}
        >>> merge(tree, {"a": {"b": 3}})
        >>> tree
        {'a': {'b': 3, 'c': 2}}
    """
    _merge(tree, (), values)


def _merge(tree: Tree, path: Path, values: Mapping[Any, Any]) -> None:
    node = Resolver(tree).node(path)
    for key, value in values.items():
        old = _opened(tree, (*path, key)) if isinstance(value, dict) and key in node else None
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(tree, (*path, key), value)
        elif value != "???" or key not in node:
            node[key] = _copied(value)


def _copied(node: Any) -> Any:
    """A copy of which no part is another one, as `copy.deepcopy` may leave it."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _opened(tree: Tree, path: Path) -> Any:
    """What stands at a path; a section that ``${...}`` names is copied there, so that what it names stays as it is."""
    resolver = Resolver(tree)
    target = resolver.followed(path)
    node = None if target is None else resolver.node(target)
    if target != path and isinstance(node, (dict, list)):
        node = resolver.node(path[:-1])[path[-1]] = _copied(node)
    return None if node == "???" else node


def apply(overrides: Sequence[Override], tree: Tree) -> list[Override]:
    """Writes overrides into a tree.

    Gives them back as they were written: a limit under the name that the tree has for it.

    Raises:
        Unusable: a list index out of range, or a key below something that is not a mapping.
    """
    written = [replace(override, parts=_spelt_as_in(tree, override.parts)) for override in overrides]
    for override in written:
        _write(tree, override)
    return written


def _write(tree: Tree, override: Override) -> None:
    path: Path = ()
    for part, following in zip(override.parts[:-1], override.parts[1:], strict=True):
        path = _slot(tree, path, part, override)
        if (node := _opened(tree, path)) is None:
            Resolver(tree).node(path[:-1])[path[-1]] = [] if following.isdecimal() else {}
        elif not isinstance(node, (dict, list)):
            found = f"override {shown(override.told)} below {part}, which is {shown(node)}"
            raise Unusable(Problem(override.key, found, f"a key below a mapping, or {part} itself"))
    path = _slot(tree, path, override.parts[-1], override)
    old = _opened(tree, path) if isinstance(override.value, dict) and not override.whole else None
    if isinstance(old, dict):
        _merge(tree, path, override.value)
    else:
        Resolver(tree).node(path[:-1])[path[-1]] = _copied(override.value)


def _slot(tree: Tree, path: Path, part: str, override: Override) -> Path:
    """The path one part further; the part as its container wants it, and there."""
    node = Resolver(tree).node(path)
    if isinstance(node, dict):
        known = child(node, part)
        key = part if known is None else known
        node.setdefault(key, None)
        return (*path, key)
    if not (part.isascii() and part.isdecimal() and len(part) < 9 and int(part) <= len(node)):
        allowed = f"an index from 0 to {len(node)}, which appends"
        raise Unusable(Problem(override.key, f"override {shown(override.told)} with the index {part}", allowed))
    node += [None] if int(part) == len(node) else []
    return (*path, int(part))


def not_given(overrides: Sequence[Override], tree: Tree) -> list[Override]:
    """What is left of weaker settings than those of the tree: single keys that the tree says nothing about.

    Raises:
        Unusable: one is no setting, but something that Hydra composes.
    """
    for override in overrides:
        if override.of_hydra or override.is_group:
            found = f"override {shown(override.told)} of the ini file"
            raise Unusable(Problem(override.key, found, "key=value there; this in the config or on the command line"))
    single = [item for override in overrides for item in _singles(override)]
    return [item for item in single if not _says(tree, _spelt_as_in(tree, item.parts))]


def _singles(override: Override) -> Iterator[Override]:
    """A mapping key by key."""
    if not isinstance(override.value, dict) or not override.value:
        yield override
        return
    for key, value in override.value.items():
        yield from _singles(replace(override, parts=(*override.parts, str(key)), value=value))


def _says(tree: Tree, parts: Sequence[str]) -> bool:
    """Whether the tree has a value here, or one further up that leaves no room for it."""
    resolver, path = Resolver(tree), ()
    for part in parts:
        base = resolver.followed(path)
        node = None if base is None else resolver.node(base)
        if base is None or not isinstance(node, (dict, list)):
            return node is not None
        if (key := child(node, part)) is None:
            return False
        path = (*base, key)
        if resolver.node(path) == "???":
            return False
    return True


def _spelt_as_in(tree: Tree, parts: tuple[str, ...]) -> tuple[str, ...]:
    """A limit has two names, ``camera`` and ``loss_camera``, ``loss_T`` and ``terms.loss_T``: that of the tree."""
    before = ("overfit", "criteria")
    if parts[:2] != before or len(parts) < 3:
        return parts
    other, rest = _second_name(parts[2:])
    second = (*before, *other)
    return (*second, *rest) if other and _says(tree, second) else parts


def _second_name(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The other name of a limit below ``criteria``, if it has one, and what stands behind the limit's name."""
    first, rest = parts[0], parts[1:]
    names = {**limit_aliases(), **{name: alias for alias, name in limit_aliases().items()}}
    if first in names:
        return (names[first],), rest
    if first == "terms" and rest and rest[0].startswith("loss_"):
        return (rest[0],), rest[1:]
    return (("terms", first), rest) if first.startswith("loss_") else ((), rest)
