"""The plain subset of Hydra's composition: ``defaults:`` lists of files and groups, ``_self_``, a choice by override.

The tree is the one that Hydra 1.3 gives. What is beyond the subset is Hydra's own, and said so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_overfit.settings.overrides import Override
from pytest_overfit.settings.problems import Problem, Unusable, did_you_mean, first_line, shown
from pytest_overfit.trainer.config_file import Beyond, needs_hydra, read_include
from pytest_overfit.trainer.merge import Tree, merge

_MAX_INCLUDES = 1000
_MAX_DEPTH = 64
WHERE = "configs next to the file, or in a folder of hydra.searchpath"


def composed(path: Path, primary: Tree, overrides: Sequence[Override]) -> tuple[Tree, list[Override]]:
    """The tree of a config and what its ``defaults`` list names, and the overrides that have to be written into it.

    Raises:
        Beyond: it asks for what only Hydra does.
        Unusable: the list is malformed, or an included file is.
    """
    for override in overrides:
        if override.of_hydra:
            raise needs_hydra(f"override {shown(override.told)}")
    if "hydra" in primary:
        raise needs_hydra("the key hydra")
    choices = [item for item in overrides if _names_option(item, path.parent)]
    chosen = {item.parts[0]: item for item in choices}
    walk = _Walk(path.parent, {group: str(item.value).removesuffix(".yaml") for group, item in chosen.items()})
    try:
        walk.include(primary, path.name, group="", package="", stack=(os.path.realpath(path),))
    except (OSError, ValueError) as error:  # a name that no file can have
        raise failed(first_line(error)) from error
    for group, item in chosen.items():
        if group not in walk.options:
            raise Beyond(*failed(f"Could not override '{item.told}'. No match in the defaults list").problems)
    return walk.tree, [item for item in overrides if item not in choices]


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
    """

    folder: Path
    chosen: dict[str, str]
    tree: Tree = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def include(self, values: Tree, where: str, *, group: str, package: str, stack: tuple[str, ...]) -> None:
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
        self.include(values, name, group=group, package=package, stack=(*stack, real))


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
