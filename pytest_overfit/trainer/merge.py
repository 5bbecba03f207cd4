"""The plain subset of Hydra's composition: ``defaults:`` lists of files and groups, ``_self_``, overrides.

Values are written into a tree of plain containers before its ``${...}`` are resolved. It is the tree that Hydra 1.3
gives; what is beyond the subset is Hydra's own, and said so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_overfit.settings.criteria_registry import limit_aliases
from pytest_overfit.settings.overrides import Override
from pytest_overfit.settings.problems import Problem, Unusable, did_you_mean, first_line, shown
from pytest_overfit.trainer.config_file import Beyond, needs_hydra, read_include
from pytest_overfit.trainer.interpolation import KeyPath, Resolver, child

Tree = dict[Any, Any]


def merge(tree: Tree, values: Mapping[Any, Any], path: KeyPath = ()) -> None:
    """Writes values over those at a path: mappings key by key, everything else as a whole; ``???`` says nothing.

    Example:
        >>> tree = {"a": {"b": 1, "c": 2}}
        >>> merge(tree, {"a": {"b": 3}})
        >>> tree
        {'a': {'b': 3, 'c': 2}}
    """
    node = Resolver(tree).node(path)
    for key, value in values.items():
        old = _opened(tree, (*path, key)) if isinstance(value, dict) and key in node else None
        if isinstance(value, dict) and isinstance(old, dict):
            merge(tree, value, (*path, key))
        elif value != "???" or key not in node:
            node[key] = _copied(value)


def _copied(node: Any) -> Any:
    """A copy of which no part is another one, as `copy.deepcopy` may leave it."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _opened(tree: Tree, path: KeyPath) -> Any:
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
    if override.removes:
        _remove(tree, override)
        return
    path: KeyPath = ()
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
        merge(tree, override.value, path)
    else:
        Resolver(tree).node(path[:-1])[path[-1]] = _copied(override.value)


def _remove(tree: Tree, override: Override) -> None:
    """Takes a key out of its mapping; that another section names by ``${...}`` keeps its own."""
    if not _says(tree, override.parts):
        raise Unusable(Problem(override.key, f"override {shown(override.told)} of a key that is not there", "a key"))
    path: KeyPath = ()
    for part in override.parts[:-1]:
        path = _slot(tree, path, part, override)
        _opened(tree, path)
    node = Resolver(tree).node(path)
    if not isinstance(node, dict):
        raise Unusable(Problem(override.key, f"override {shown(override.told)} of a place in a list", "a key"))
    del node[child(node, override.parts[-1])]


def _slot(tree: Tree, path: KeyPath, part: str, override: Override) -> KeyPath:
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
        if override.of_hydra or override.is_group or override.removes:
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


_MAX_INCLUDES = 1000
_MAX_DEPTH = 64
WHERE = "configs next to the file, or in a folder of hydra.searchpath"


def composed(path: Path, primary: Tree, overrides: Sequence[Override]) -> tuple[Tree, list[Override]]:
    """The tree of a config and what its ``defaults`` list names, and the overrides that have to be written into it.

    Raises:
        Beyond: it asks for what only Hydra does.
        Unusable: the list is malformed, or an included file is.
    """
    walk, choices = _walked(path, primary, overrides)
    return walk.tree, [item for item in overrides if item not in choices]


def merged_files(path: Path, primary: Tree, overrides: Sequence[Override]) -> list[tuple[Path, str]]:
    """The files that make up a config, each over those before it, with the dotted key that its values go below.

    Raises:
        Beyond, Unusable: as `composed`.
    """
    return _walked(path, primary, overrides)[0].merged


def _walked(path: Path, primary: Tree, overrides: Sequence[Override]) -> tuple[_Walk, list[Override]]:
    """The way through all files, and the overrides that chose one."""
    for override in overrides:
        if override.of_hydra:
            raise needs_hydra(f"override {shown(override.told)}")
    if "hydra" in primary:
        raise needs_hydra("the key hydra")
    choices = [item for item in overrides if _names_option(item, path.parent)]
    chosen = {item.parts[0]: item for item in choices}
    walk = _Walk(path.parent, {group: str(item.value).removesuffix(".yaml") for group, item in chosen.items()})
    try:
        walk.include(primary, path, path.name, group="", package="", stack=(os.path.realpath(path),))
    except (OSError, ValueError) as error:  # a name that no file can have
        raise failed(first_line(error)) from error
    for group, item in chosen.items():
        if group not in walk.options:
            raise Beyond(*failed(f"Could not override '{item.told}'. No match in the defaults list").problems)
    return walk, choices


def _names_option(override: Override, folder: Path) -> bool:
    """Whether ``model=small`` chooses from a config group: ``model/small.yaml`` lies next to the config."""
    if override.is_group or len(override.parts) > 1 or not isinstance(override.value, str) or not override.value:
        return override.is_group
    try:
        return (folder / override.key / f"{override.value.removesuffix('.yaml')}.yaml").is_file()
    except (OSError, ValueError):
        return False


@dataclass
class _Walk:
    """Goes through the defaults lists, and merges the files in their order, the later over the earlier.

    Args:
        folder: where files are looked up.
        chosen: group -> the option that an override chooses.
        options: group -> the option that is taken.
        merged: the files so far, with the key that their values go below.
    """

    folder: Path
    chosen: dict[str, str]
    tree: Tree = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    merged: list[tuple[Path, str]] = field(default_factory=list)
    count: int = 0

    def include(
        self, values: Tree, file: Path, where: str, *, group: str, package: str, stack: tuple[str, ...]
    ) -> None:
        """Takes a file and everything that its defaults list names.

        Args:
            where: the file, for messages.
            group: the folder that its list is relative to.
            package: the dotted key that its values go below.
        """
        entries = _entries(values.get("defaults", []), where)
        for folder, option, is_choice in entries:
            if option == "_self_" and not folder:
                own: Any = {key: value for key, value in values.items() if key != "defaults"}
                for part in reversed(package.split(".") if package else []):
                    own = {part: own}
                merge(self.tree, own)
                self.merged.append((file, package))
                continue
            home = folder[1:] if folder.startswith("/") else "/".join(filter(None, (group, folder)))
            below = ".".join(filter(None, (package, folder.strip("/").replace("/", "."))))
            if is_choice:
                own_package = below == home.replace("/", ".")
                option = self.choice(home if own_package else f"{home}@{below}", option)
            self.file(home, option, where, below, stack)

    def choice(self, group: str, option: str) -> str:
        """The option of a group, with its package where that is not its own: an override's, else the list's."""
        option = self.chosen.get(group, option)
        if group in self.options:
            first = self.options[group]
            twice = f"{group} appears more than once in the final defaults list"
            found = f"Multiple values for {group}. To override a value use 'override {group}: {first}'"
            raise Beyond(*failed(twice if first == option else found).problems)
        self.options[group] = option
        return option

    def file(self, group: str, option: str, where: str, package: str, stack: tuple[str, ...]) -> None:
        name = f"{group}/{option}" if group else option
        file = self.folder / (name if name.endswith(".yaml") else f"{name}.yaml")
        if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises on names that are too long
            hint = did_you_mean(option, [item.stem for item in file.parent.glob("*.yaml")])
            raise Beyond(Problem("defaults", f"In '{where}': Could not load '{name}'.", WHERE, hint))
        real = os.path.realpath(file)
        if real in stack:
            raise Unusable(Problem("defaults", "configs that include each other", "a list without a cycle"))
        self.count += 1
        if self.count > _MAX_INCLUDES or len(stack) > _MAX_DEPTH:
            allowed = f"at most {_MAX_INCLUDES} files, {_MAX_DEPTH} deep"
            raise Unusable(Problem("defaults", "includes without end", allowed))
        values, has_header = read_include(file)
        if has_header or "hydra" in values:
            raise needs_hydra(f"{'the header' if has_header else 'the key hydra'} of {name}")
        self.include(values, file, name, group=group, package=package, stack=(*stack, real))


def _entries(written: Any, where: str) -> list[tuple[str, str, bool]]:
    """The lines of a list, as folder, name, and whether it is ``group: option``; the file itself at the end."""
    if not isinstance(written, list):
        raise failed(f"Invalid defaults list in '{where}', defaults must be a list (got {type(written).__name__})")
    entries = [_entry(item) for item in written]
    own = sum(entry[:2] == ("", "_self_") for entry in entries)
    if own > 1:
        raise failed(f"Duplicate _self_ defined in {where}")
    return entries if own else [*entries, ("", "_self_", False)]


def _entry(item: Any) -> tuple[str, str, bool]:
    name, option = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else ("", item)
    if not isinstance(option, str) or not isinstance(name, str) or not option:
        raise needs_hydra(f"{shown(item)} in a defaults list")
    if any(sign in f"{name}{option}" for sign in "@$ ?") or f"{name}{option}".lstrip("/").startswith("hydra/"):
        raise needs_hydra(f"{shown(item)} in a defaults list")
    if isinstance(item, dict):
        return name, option, True
    folder, slash, option = option.rpartition("/")
    return folder or slash, option, False


def failed(text: str) -> Unusable:
    """A composition that its own rules forbid."""
    return Unusable(Problem("defaults", f"a composition that fails: {' '.join(text.split())}"))
