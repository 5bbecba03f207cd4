"""``--overfit-set key=value``: any key, existing or new, list indices included; values as in a config file."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_overfit.settings.criteria_registry import limit_aliases
from pytest_overfit.settings.problems import Problem, Unusable, shown
from pytest_overfit.settings.secret import told_override
from pytest_overfit.settings.values import parse_value
from pytest_overfit.trainer.config_file import MAX_INTERPOLATIONS, first_line
from pytest_overfit.trainer.interpolation import expect_bounded

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FORM = "key=value (a list is key=[1,2]; a mapping key={a: 1}; text with a comma in quotes)"
_PART = r"[^\s.\[\]=@/{}'\"]+(\[\d+\])*"
_KEY = re.compile(rf"{_PART}(\.{_PART})*")


@dataclass(frozen=True)
class Override:
    """One parsed override.

    Example:
        >>> parse_override("data.train.dataset.dataset_configs[0].ROOT=/data").parts[-2:]
        ('0', 'ROOT')

    Args:
        text: as it was given.
        parts: the key, list indices as digits.
        value: plain; text may hold ``${...}``, which is resolved with the rest of the config.
        group: certainly about composition: ``group/sub=option``, ``group@package=option`` or ``hydra.*=...``.
        whole: a mapping replaces what is there, where it would otherwise be merged with it.
    """

    text: str
    parts: tuple[str, ...]
    value: Any = None
    delete: bool = False
    group: bool = False
    whole: bool = False

    @property
    def told(self) -> str:
        """The text as a message may show it."""
        return told_override(self.text)

    @property
    def key(self) -> str:
        """The dotted key, as `Section.path` spells it."""
        return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(self.parts))


def parse_override(text: str) -> Override:
    """Reads one override.

    Raises:
        Unusable: it is malformed, or a sweep over several values.
    """
    name, equals, value = text.partition("=")
    delete = name.startswith("~")
    key = name.lstrip("+~").strip()
    if not (equals or delete):
        raise _malformed(text, "no `=`")
    if text.count("${") > MAX_INTERPOLATIONS:
        raise _malformed(text, f"more than {MAX_INTERPOLATIONS} interpolations")
    if "/" in key or "@" in key or key.split(".")[0] == "hydra":
        return Override(text, (key,), _value(text, value), delete, group=True)
    if not _KEY.fullmatch(key):
        raise _malformed(text, f"the key {shown(key)}")
    parts = tuple(part for part in re.split(r"[.\[\]]+", key) if part)
    return Override(text, parts, _value(text, value), delete)


def split_choices(
    overrides: Sequence[Override], options: Callable[[str], Collection[str]]
) -> tuple[list[Override], list[Override]]:
    """Which overrides set values, and which choose config groups: those are part of the composition.

    Args:
        options: the names that can be chosen in a group; none where there is no such group.
    """

    def chooses(item: Override) -> bool:
        if item.group or len(item.parts) > 1:
            return item.group
        known = options(item.key)
        chosen = item.value if isinstance(item.value, list) else [item.value]
        named = bool(chosen) and all(str(name).removesuffix(".yaml") in known for name in chosen)
        return bool(known) and (item.delete or named)

    choices = [chooses(item) for item in overrides]
    values = [item for item, chosen in zip(overrides, choices, strict=True) if not chosen]
    return values, [item for item, chosen in zip(overrides, choices, strict=True) if chosen]


def apply(overrides: Sequence[Override], tree: DictConfig) -> list[Override]:
    """Writes overrides into a composed tree, before its interpolations are resolved.

    Gives them back as they were written: a limit under the name that the tree has for it.

    Raises:
        Unusable: a list index out of range, or a key below something that is not a mapping.
    """
    written = []
    for given in overrides:
        override = replace(given, parts=_spelt_as_in(tree, given.parts))
        try:
            _write(tree, override)
        except Unusable:
            raise
        except Exception as error:  # OmegaConf's own, on an arbitrary key and value
            raise Unusable(
                Problem(override.key, f"override {shown(override.told)}, which does not fit: {_why(override, error)}")
            ) from error
        if "${" in override.text:  # OmegaConf resolves what it is asked for: nothing that was not measured
            expect_bounded(tree)
        written.append(override)
    return written


def not_given(overrides: Sequence[Override], tree: DictConfig) -> list[Override]:
    """What is left of weaker settings than those of the tree: single keys that the tree says nothing about.

    Raises:
        Unusable: one removes a key or chooses a config group, which is no setting.
    """
    for override in overrides:
        if override.delete or override.group:
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


def _says(tree: DictConfig, parts: Sequence[str]) -> bool:
    """Whether the tree has a value here, or one further up that leaves no room for it."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    node: Any = tree
    for part in parts:
        if not isinstance(node, (DictConfig, ListConfig)):
            return node is not None
        key: Any = part
        if isinstance(node, ListConfig):
            if not part.isdecimal() or int(part) >= len(node):
                return False
            key = int(part)
        elif part not in node and not OmegaConf.is_interpolation(node, part):
            return False
        if OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            return False
        node = _child(node, key)
    return True


def _spelt_as_in(tree: DictConfig, parts: tuple[str, ...]) -> tuple[str, ...]:
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


def _value(text: str, value: str) -> Any:
    try:
        return parse_value(value)
    except ValueError as error:
        raise _malformed(text, str(error) if told_override(text) == text else "a value that cannot be read") from error


def _why(override: Override, error: Exception) -> str:
    return first_line(error) if override.told == override.text else type(error).__name__


def _malformed(text: str, found: str) -> Unusable:
    return Unusable(Problem("", f"override {shown(told_override(text))} with {found}", _FORM))


def _write(tree: DictConfig, override: Override) -> None:
    from omegaconf import DictConfig, ListConfig, OmegaConf

    node: Any = tree
    for part, following in zip(override.parts[:-1], override.parts[1:], strict=True):
        key = _slot(node, part, override)
        child = _child(node, key)
        if not isinstance(child, (DictConfig, ListConfig)):
            if override.delete:
                raise Unusable(Problem(override.key, f"override {shown(override.told)} of a key that is not there"))
            if child is not None:
                found = f"override {shown(override.told)} below {part}, which is {shown(child)}"
                raise Unusable(Problem(override.key, found, f"a key below a mapping, or {part} itself"))
            _put(node, key, [] if following.isdecimal() else {})
        elif OmegaConf.is_interpolation(node, key):  # write into a copy, not into what it points at
            _put(node, key, copy.deepcopy(child))
        node = _child(node, key)
    key = _slot(node, override.parts[-1], override)
    if override.delete:
        if isinstance(key, int) or key not in node:
            raise Unusable(Problem(override.key, f"override {shown(override.told)} of a key that is not there"))
        del node[key]
        return
    old = _child(node, key)
    if isinstance(override.value, dict) and isinstance(old, DictConfig) and not override.whole:
        _put(node, key, OmegaConf.merge(old, override.value))
    else:
        _put(node, key, override.value)


def _slot(node: Any, part: str, override: Override) -> Any:
    """The part of a key as its container wants it: an index for a list, text or a number for a mapping."""
    from omegaconf import ListConfig

    if not isinstance(node, ListConfig):
        return int(part) if part.isdecimal() and part not in node and int(part) in node else part
    if not (part.isascii() and part.isdecimal() and int(part) <= len(node)):
        allowed = f"an index from 0 to {len(node)}, which appends"
        raise Unusable(Problem(override.key, f"override {shown(override.told)} with the index {part}", allowed))
    return int(part)


def _child(node: Any, key: Any) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(key, int) and not hasattr(node, "keys"):
        if key >= len(node):
            return None
    elif key not in node and not OmegaConf.is_interpolation(node, key):
        return None
    try:
        return None if OmegaConf.is_missing(node, key) else node[key]
    except OmegaConfBaseException:
        return None  # an interpolation that leads nowhere: what is written replaces it


def _put(node: Any, key: Any, value: Any) -> None:
    if isinstance(key, int) and not hasattr(node, "keys") and key == len(node):
        node.append(value)
    else:
        node[key] = value
