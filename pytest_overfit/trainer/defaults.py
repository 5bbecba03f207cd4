"""A ``defaults`` list as records: which file each line names, and at which key of the tree that file lands.

The rules are those of Hydra 1.3 (hydra.cc/docs/advanced/defaults_list and .../overriding_packages), and so are the
words of the problems, so that a config gives the same tree or the same message with and without Hydra.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.settings.problems import Problem, Unusable
from pytest_overfit.trainer.config_file import first_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

INSTALL_HYDRA = 'next: pip install "pytest-overfit[hydra]"'
_WHERE = "configs next to the file, or in a folder of hydra.searchpath"


@dataclass(frozen=True)
class Entry:
    """One line of a defaults list.

    Example:
        >>> entry = Entry("optim/optimizer", "sgd", choice=True)
        >>> entry.path, entry.key, entry.lands_at(None), entry.lands_at("_global_.opt")
        ('optim/optimizer/sgd', 'optim/optimizer', 'optim.optimizer', 'opt')

    Args:
        group: folder of the file as written, without a leading slash.
        option: name of the file; None: no file; several names give several files.
        choice: written ``group: option``, so that another option can be chosen; not a plain ``group/name``.
        package: what follows the ``@``.
        absolute: written with a leading slash: ``group`` is not below ``base``.
        base, parent: group and package of the file that holds the list.
    """

    group: str
    option: str | tuple[str, ...] | None
    choice: bool = False
    package: str | None = None
    absolute: bool = False
    optional: bool = False
    override: bool = False
    base: str = ""
    parent: str = ""

    @property
    def is_self(self) -> bool:
        return self.option == "_self_" and not self.choice

    @property
    def folder(self) -> str:
        """The group's path from the top."""
        return self.group if self.absolute else "/".join(filter(None, (self.base, self.group)))

    @property
    def path(self) -> str:
        """The file's path from the top, as messages name it."""
        return f"{self.folder}/{self.option}" if self.folder else str(self.option)

    @property
    def key(self) -> str:
        """What an override names the choice by: the group, and the package where that is not the group's own."""
        package = self.lands_at(None)
        return self.folder if package == self.folder.replace("/", ".") else f"{self.folder}@{package or '_global_'}"

    def lands_at(self, header: str | None) -> str:
        """The dotted key that the file's values go below.

        Args:
            header: the package that the file itself names, absolute; ``@`` in the list wins over it.
        """
        package = self.group.replace("/", ".")
        if self.package is not None:
            package = self.package
            if "_group_" in package:
                package = "_global_." + package.replace("_group_", self.folder.replace("/", "."))
        elif header is not None:
            package = f"_global_.{header}"
        package = ".".join(filter(None, (self.parent, package)))
        return package.rpartition("_global_")[2].removeprefix(".")

    def files(self) -> list[Entry]:
        """This line, or a line per file where it names several."""
        if not isinstance(self.option, tuple):
            return [self]
        paths = [f"{self.group}/{name}".rpartition("/") for name in self.option]
        return [replace(self, group=group, option=name, choice=False) for group, _, name in paths]


def read_entries(written: object, where: str, base: str, parent: str) -> list[Entry]:
    """The lines of a defaults list.

    Args:
        written: what stands under ``defaults``, as a plain container.
        where: the config it stands in, for messages.
        base, parent: see `Entry`.

    Raises:
        Unusable: it is not a list, or a line is neither a name nor one ``group: option``.
    """
    if not isinstance(written, list):
        kind = "mapping" if isinstance(written, dict) else type(written).__name__
        raise failed(f"Invalid defaults list in '{where}', defaults must be a list (got {kind})")
    return [replace(_read_entry(item, where), base=base, parent=parent) for item in written]


def _read_entry(item: Any, where: str) -> Entry:
    if isinstance(item, str):
        path, package = _split_package(item)
        group, _, name = path.removeprefix("/").rpartition("/")
        return Entry(group, name, package=package, absolute=path.startswith("/"))
    if not isinstance(item, dict):
        kind = "ListConfig" if isinstance(item, list) else type(item).__name__
        raise failed(f"Unsupported type in defaults : {kind}")
    if len(item) > 1:
        raise failed(f"In {where}: Too many keys in default item {item}")
    key, option = next(iter(item.items()), ("", None))
    if not isinstance(key, str) or not key.split(" ")[-1].strip("/"):
        raise failed(f"In {where}: Missing group name in {item}")
    *words, group = key.split(" ")
    return read_choice(group, option, optional="optional" in words, override="override" in words)


def read_choice(key: str, option: object, *, optional: bool = False, override: bool = False) -> Entry:
    """``group@package`` and what is chosen for it, in a list or by an override."""
    group, package = _split_package(key)
    if isinstance(option, list):
        odd = [type(name).__name__ for name in option if not isinstance(name, str)]
        if odd:
            raise failed(f"Unsupported item value in defaults : {odd[0]}, nested list items must be strings")
    elif option is not None and not isinstance(option, str):
        raise failed(f"Unsupported item value in defaults : {type(option).__name__}. Supported: string or list")
    return Entry(
        group.removeprefix("/"),
        tuple(option) if isinstance(option, list) else option,
        choice=True,
        package=package,
        absolute=group.startswith("/"),
        optional=optional,
        override=override,
    )


def _split_package(text: str) -> tuple[str, str | None]:
    path, at, package = text.partition("@")
    package = package.partition(":")[0]
    return path, ("" if package == "_here_" else package) if at else None


def with_self(entries: list[Entry], where: str) -> list[Entry]:
    """The list with the file itself in it: at the end, where it wins, unless it says otherwise."""
    count = sum(entry.is_self for entry in entries)
    if count > 1:
        raise failed(f"Duplicate _self_ defined in {where}")
    return entries if count else [*entries, Entry("", "_self_")]


def search_folders(primary: DictConfig, folder: Path) -> list[str] | None:
    """``hydra.searchpath`` of a config, folders that lie next to the config as absolute ones; None where it has none.

    Raises:
        Unusable: it is not a list of texts, or cannot be resolved.
    """
    from omegaconf import OmegaConf

    try:
        written = OmegaConf.select(primary, "hydra.searchpath")
        paths = list(written) if OmegaConf.is_list(written) else written
    except Exception as error:  # an interpolation: resolvers run arbitrary code
        found = f"a list that cannot be resolved: {first_line(error)}"
        raise Unusable(Problem("hydra.searchpath", found, "folders")) from error
    if paths is None:
        return None
    return [_anchored(path, folder) for path in checked_folders(paths)]


def checked_folders(paths: Any) -> list[str]:
    """A search path that is a list of texts."""
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise failed(f"hydra.searchpath must be a list of strings. Got: {paths}")
    return paths


def _anchored(path: str, folder: Path) -> str:
    if "://" in path and not path.startswith("file://"):
        return path
    nearby = folder / path.removeprefix("file://")
    return f"file://{nearby}" if nearby.is_dir() else path


def failed(text: str) -> Unusable:
    """A composition that its own rules forbid."""
    return Unusable(Problem("defaults", f"a composition that fails: {' '.join(text.split())}"))


def missing(text: str) -> Unusable:
    """An include that is not there."""
    return Unusable(Problem("defaults", " ".join(text.split()), _WHERE))


def needs_hydra(what: str) -> Unusable:
    """Something that Hydra does and this package does not."""
    return Unusable(Problem("defaults", f"{what}, which only Hydra can compose", hint=INSTALL_HYDRA))
