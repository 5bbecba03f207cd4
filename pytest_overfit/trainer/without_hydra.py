"""Composition without Hydra: defaults lists, config groups and their choice by override, with Hydra 1.3's outcome.

First the defaults lists are walked, the last line first, since what a later line overrides holds for the earlier ones;
this gives the files in their order. Then these are merged, each below its package. What only Hydra can do is refused
with the command that installs it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.settings.overrides import Override, split_choices
from pytest_overfit.settings.problems import Problem, Unusable, shown
from pytest_overfit.trainer import defaults
from pytest_overfit.trainer.config_file import first_line, read_include
from pytest_overfit.trainer.defaults import Entry, failed, missing, needs_hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig

_MAX_INCLUDES = 1000
_MAX_DEPTH = 64


def composed_without_hydra(
    path: Path, primary: DictConfig, overrides: Sequence[Override]
) -> tuple[DictConfig, list[Override]]:
    """The composed tree, and the overrides that still have to be written into it.

    Raises:
        Unusable: the composition fails, or asks for what only Hydra can do.
    """
    walk = _Walk(_folders(primary, path.parent, overrides))
    try:
        ours, choices = split_choices([item for item in overrides if not _is_setting(item)], walk.options)
        added = [entry for item in choices if (entry := walk.choose(item)) is not None]
        walk.include(primary, path.name, stack=(os.path.realpath(path),), added=added)
        walk.expect_used()
        return _merged(walk.found), ours
    except (OSError, ValueError) as error:  # a folder that cannot be listed, a name that no file can have
        raise failed(first_line(error)) from error


def _is_setting(override: Override) -> bool:
    return override.key == "hydra.searchpath"


def _folders(primary: DictConfig, folder: Path, overrides: Sequence[Override]) -> list[str]:
    """Where files are looked up: next to the config, then along the search path."""
    given = [  # Hydra looks along a search path that is set, not along one that is added with a plus
        defaults.checked_folders(item.value)
        for item in overrides
        if _is_setting(item) and not item.text.startswith("+")
    ]
    paths = given[0] if given else defaults.search_folders(primary, folder) or []
    for path in paths:
        if "://" in path and not path.startswith("file://"):
            raise needs_hydra(f"the search path {shown(path)}")
    return [str(folder), *(path.removeprefix("file://") for path in paths)]


@dataclass
class _Part:
    """A file in its place: its name, its package, its values."""

    where: str
    package: str
    values: DictConfig


@dataclass
class _Choice:
    """What an override, on the command line or in a list, chooses for a key."""

    option: str | tuple[str, ...] | None
    where: str | None = None
    used: bool = False


@dataclass
class _Walk:
    """Goes through the defaults lists, and collects the files, the last to be merged first."""

    folders: list[str]
    found: list[_Part] = field(default_factory=list)
    chosen: dict[str, _Choice] = field(default_factory=dict)
    removed: dict[str, _Choice] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)  # of each group: with every package that it is used at
    leaves: set[str] = field(default_factory=set)

    def options(self, group: str) -> list[str]:
        """The names that can be chosen in a group."""
        names: set[str] = set()
        for folder in self.folders:
            if _is_folder(place := Path(folder, group)):
                names |= {item.stem for item in place.iterdir() if item.suffix == ".yaml"}
        return sorted(names)

    def file(self, name: str) -> Path | None:
        """The file of this name, with or without suffix, in the first folder that has it."""
        files = (Path(folder, name if name.endswith(".yaml") else f"{name}.yaml") for folder in self.folders)
        return next((file for file in files if os.path.isfile(file)), None)  # noqa: PTH113 - see _is_folder

    def choose(self, override: Override) -> Entry | None:
        """Notes a choice by override; the line that it adds to the list, where it starts with a ``+``."""
        key = override.text.partition("=")[0].lstrip("+~").strip()
        if key.partition("/")[0].partition(".")[0] == "hydra":
            raise needs_hydra(f"override {shown(override.told)}")
        group = key.partition("@")[0]
        value = override.value
        if not any(_is_folder(Path(folder, group)) for folder in self.folders):
            raise failed(f"Could not override '{key}'. There is no config group '{group}'")
        if override.text.startswith("++"):
            raise failed(f"force-add of config groups is not supported: '{override.told}'")
        if override.delete:
            self.removed[key] = _Choice(value or None)
            return None
        if not isinstance(value, (str, list)):
            raise failed(f"Config group override must be a string or a list. Got {type(value).__name__}")
        entry = defaults.read_choice(key, value)
        if override.text.startswith("+"):
            return entry
        self.chosen[key] = _Choice(entry.option)
        return None

    def include(
        self,
        config: DictConfig,
        where: str,
        *,
        base: str = "",
        package: str = "",
        stack: tuple[str, ...],
        added: Sequence[Entry] = (),
    ) -> bool:
        """Takes a file and everything that its defaults list names; whether it has such a list."""
        from omegaconf import OmegaConf

        raw = OmegaConf.to_container(config, resolve=False)
        assert isinstance(raw, dict)
        written = defaults.read_entries(raw.get("defaults", []), where, base, package)
        if "defaults" in raw:
            del config["defaults"]
        entries = defaults.with_self(written, where)
        self.note_overrides(entries, where)
        for entry in reversed((*entries, *added)):
            if entry.is_self:
                self.found.append(_Part(where, package, config))
            elif not entry.override:
                for one in reversed(self.decided(entry).files()):
                    self.expand(one, where, stack)
        return any(not entry.override for entry in (*written, *added))

    def note_overrides(self, entries: Sequence[Entry], where: str) -> None:
        """Notes what this list overrides: what was noted before, on the command line or further out, wins."""
        last: Entry | None = None
        for entry in entries:
            if entry.is_self:
                continue
            if entry.override:
                last = entry
                _expect_plain(entry)
                self.chosen.setdefault(entry.key, _Choice(entry.option, where))
            elif last:
                raise failed(
                    f"In {where}: Override '{last.key} : {last.option}' is defined before '{entry.key}:"
                    f" {entry.option}'. Overrides must be at the end of the defaults list"
                )

    def decided(self, entry: Entry) -> Entry:
        """The line with the option that overrides choose for it."""
        choice = self.chosen.get(entry.key) if entry.choice else None
        if choice is None:
            return entry
        choice.used = True
        return replace(entry, option=choice.option)

    def expand(self, entry: Entry, parent: str, stack: tuple[str, ...]) -> None:
        if self.skips(entry):
            return
        if entry.option == "???" and not entry.choice:
            raise failed(f"Missing ConfigDefault is not supported : {entry.path}")
        if entry.option == "???":
            options = " ".join(self.options(entry.folder))
            raise failed(f"You must specify '{entry.key}', e.g, {entry.key}=<OPTION> Available options: {options}")
        _expect_plain(entry)
        file = self.file(entry.path)
        if file is None:
            if entry.optional:
                return
            raise self.missing(entry, parent)
        real = os.path.realpath(file)
        if real in stack:
            raise Unusable(Problem("defaults", "configs that include each other", "a list without a cycle"))
        if len(self.found) > _MAX_INCLUDES or len(stack) > _MAX_DEPTH:
            allowed = f"at most {_MAX_INCLUDES} files, {_MAX_DEPTH} deep"
            raise Unusable(Problem("defaults", "includes without end", allowed))
        config, header = read_include(file)
        package = entry.lands_at(header)
        _expect_no_search_path(config, entry.path, package)
        includes = self.include(config, entry.path, base=entry.folder, package=package, stack=(*stack, real))
        if entry.choice and not includes:
            if entry.key in self.leaves:
                raise failed(f"{entry.key} appears more than once in the final defaults list")
            self.leaves.add(entry.key)

    def skips(self, entry: Entry) -> bool:
        """Notes a group's choice; whether it is removed, or nothing is chosen."""
        if not entry.choice:
            return False
        key, removed = entry.key, self.removed.get(entry.key)
        if removed and removed.option in (None, entry.option):
            removed.used = True
            return True
        self.keys.setdefault(entry.folder, set()).add(key)
        if self.known.setdefault(key, entry.option) != entry.option:
            raise failed(f"Multiple values for {key}. To override a value use 'override {key}: {self.known[key]}'")
        return entry.option is None

    def missing(self, entry: Entry, parent: str) -> Unusable:
        if not entry.choice:
            return missing(f"In '{parent}': Could not load '{entry.path}'.")
        options = self.options(entry.folder)
        shown_options = f" Available options in '{entry.folder}': {' '.join(options)}" if options else ""
        return missing(f"In '{parent}': Could not find '{entry.path}'{shown_options}")

    def expect_used(self) -> None:
        """Every override of a choice has met the line that it is for."""
        for key, choice in self.chosen.items():
            if choice.used:
                continue
            meant = ", ".join(sorted(self.keys.get(key.partition("@")[0], ())))
            among = "one of " if "," in meant else ""
            text = f"Did you mean to override {among}{meant}?" if meant else "No match in the defaults list."
            text = f"Could not override '{key}'. {text}"
            if choice.where is None:
                option = list(choice.option) if isinstance(choice.option, tuple) else choice.option
                text += f" To append to your default list use +{key}={option}"
            raise failed(text if choice.where is None else f"In '{choice.where}': {text}")
        for key, removed in self.removed.items():
            if not removed.used:
                name = f"{key}={removed.option}" if removed.option else key
                raise failed(f"Could not delete '{name}'. No match in the defaults list")


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises on names that are too long


def _expect_plain(entry: Entry) -> None:
    written = f"{entry.key}: {entry.option}" if entry.choice else entry.path
    if "${" in written or entry.folder.partition("/")[0] == "hydra":
        raise needs_hydra(f"{written} in a defaults list")


def _expect_no_search_path(config: DictConfig, where: str, package: str) -> None:
    from omegaconf import DictConfig

    settings = None if package else config.get("hydra")
    if isinstance(settings, DictConfig) and settings.get("searchpath") is not None:
        raise failed(f"In '{where}': Overriding hydra.searchpath is only supported from the primary config")


def _merged(parts: Sequence[_Part]) -> DictConfig:
    """Merges the files in their order, each below its package; the last one wins."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    tree = OmegaConf.create({})
    for part in reversed(parts):
        try:
            values = part.values
            if part.package:
                values = OmegaConf.create({})
                OmegaConf.update(values, part.package, part.values, merge=False)
            tree.merge_with(values)
        except OmegaConfBaseException as error:
            text = f"In '{part.where}': {type(error).__name__} raised while composing config: {error}"
            raise failed(text) from error
    return tree
