"""What the ``${...}`` of a config come to: other values of it, and variables of the environment.

Each value is resolved once, and counted before it is built: a few lines that name each other ten times multiply to
gigabytes. What came out of the environment is marked, since nobody is shown it. Every other resolver (``${now:...}``,
one that is registered) is OmegaConf's, which comes with Hydra.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.settings.overrides import parse_value
from pytest_overfit.settings.problems import WITHIN_BITS, Problem, Unusable, first_line, is_wide, shown, wide
from pytest_overfit.trainer.config_file import INSTALL_HYDRA, MAX_NODES

MAX_TEXT = 1_000_000
_DEEPEST = 64
_BOUNDS = f"at most {MAX_NODES} values and {MAX_TEXT} signs, {_DEEPEST} deep"
_OURS = (None, "oc.env", "oc.select")
_HARMLESS = ("oc.decode", "oc.create", "hydra", "now", "python_version")  # tell nothing of anybody's own
_HYDRAS = re.compile(r"Unsupported interpolation type (hydra|now|python_version)\b|HydraConfig was not set")
KeyPath = tuple[Any, ...]


@dataclass(frozen=True)
class Interpolation:
    """The inside of one ``${...}``: text and further interpolations."""

    parts: tuple[str | Interpolation, ...]

    @property
    def resolver(self) -> str | None:
        """The name before the colon; None for a reference to another value."""
        first = self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""
        name, colon, _ = first.partition(":")
        return name.strip() if colon else None

    @property
    def arguments(self) -> tuple[str | Interpolation, ...]:
        """What follows the colon."""
        first, *rest = self.parts
        assert isinstance(first, str)
        return (first.partition(":")[2], *rest)


class Unresolved(Exception):  # noqa: N818 - never leaves this module: it carries what is wrong to the value that has it
    """A value that cannot be resolved: what was found, what is allowed, a hint."""


@dataclass(frozen=True)
class Value:
    """What one value of a config comes to.

    Args:
        content: a scalar, or a mapping or list of further values; None where there is a problem.
        secret: whether it, or something in it, came out of the environment.
        problem: why it cannot be resolved; the key is that of the place where it stands.
        values, signs: how much it is, written out.
    """

    content: Any = None
    secret: bool = False
    problem: tuple[str, ...] = ()
    values: int = 1
    signs: int = 8


def scan(text: str) -> tuple[str | Interpolation, ...]:
    r"""Text cut at its interpolations; an escaped ``\${`` is none.

    Example:
        >>> scan("a${b.${c}}d")
        ('a', Interpolation(parts=('b.', Interpolation(parts=('c',)))), 'd')

    Raises:
        Unresolved: one is never closed, or they are nested without end.
    """
    stack: list[list[str | Interpolation]] = [[]]
    at = 0

    def keep(piece: str) -> None:
        if stack[-1] and isinstance(last := stack[-1][-1], str):
            stack[-1][-1] = last + piece
        elif piece:
            stack[-1].append(piece)

    for match in re.finditer(r"(\\*)\$\{|\}", text):
        opens = match[0].endswith("{")
        if not opens and len(stack) == 1:
            continue
        keep(text[at : match.start()])
        at = match.end()
        if not opens:
            inside = stack.pop()
            stack[-1].append(Interpolation(tuple(inside)))
            continue
        count = len(match[1])
        keep("\\" * (count // 2) + ("${" if count % 2 else ""))
        if count % 2 == 0:
            stack.append([])
        if len(stack) > _DEEPEST:
            raise Unresolved(f"interpolations more than {_DEEPEST} deep in each other")
    if len(stack) > 1:
        raise Unresolved(f"{text:.60}, an interpolation that is never closed")
    keep(text[at:])
    return tuple(stack[0])


@dataclass
class Resolver:
    """Resolves the values of a tree of plain containers, each once.

    Args:
        raw: nothing in it is resolved.
        referred: the dotted keys that are named.
        secrets: what came out of the environment, as text.
    """

    raw: Mapping[Any, Any]
    referred: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    known: dict[KeyPath, Value] = field(default_factory=dict)
    inside: list[KeyPath] = field(default_factory=list)
    of_omegaconf: Any = None

    def value(self, path: KeyPath) -> Value:
        """What the value at a path comes to.

        Raises:
            Unusable: more than a config can have.
        """
        if path in self.known:
            return self.known[path]
        node = self.node(path)
        if path in self.inside:
            return Value(problem=(f"{shown(node)}, which leads to itself",))
        if len(self.inside) > _DEEPEST:
            raise Unusable(Problem(dotted(path), f"values more than {_DEEPEST} deep", _BOUNDS))
        self.inside.append(path)
        try:
            found = self._resolve(node, path)
        except Unresolved as problem:
            found = Value(problem=problem.args)
        finally:
            self.inside.pop()
        self.known[path] = found
        return found

    def _resolve(self, node: Any, path: KeyPath) -> Value:
        if isinstance(node, Mapping):
            return _container({key: self.value((*path, key)) for key in node}, path)
        if isinstance(node, list):
            return _container([self.value((*path, index)) for index in range(len(node))], path)
        if node == "???":
            raise Unresolved("???, a value that has to be given", "a value here or as an override")
        return self._of_text(node, path) if isinstance(node, str) and "${" in node else _scalar(node)

    def _of_text(self, text: str, path: KeyPath) -> Value:
        parts = scan(text)
        if any(_is_foreign(part) for part in parts):
            return self._of_omegaconf(text, parts, path)
        return self._joined(parts, path)

    def _joined(self, parts: Sequence[str | Interpolation], path: KeyPath) -> Value:
        """One value as it is; several as one text."""
        if len(parts) == 1 and isinstance(parts[0], Interpolation):
            return self._of_interpolation(parts[0], path)
        found = [_scalar(part) if isinstance(part, str) else self._of_interpolation(part, path) for part in parts]
        if any(isinstance(each.content, (dict, list)) for each in found):
            raise Unresolved(f"{self.node(path)}, which cannot be resolved: a mapping or a list inside of a text")
        _expect_bounded(1, sum(each.signs for each in found), path)
        return _scalar("".join(str(each.content) for each in found), secret=any(each.secret for each in found))

    def _of_interpolation(self, found: Interpolation, path: KeyPath) -> Value:
        if found.resolver == "oc.env":
            return self._of_environment(found, path)
        chosen = found.resolver == "oc.select"
        key = self._joined(found.arguments if chosen else found.parts, path)
        name, comma, otherwise = str(key.content).partition(",") if chosen else (str(key.content), "", "")
        target = self.locate(_unquoted(name), path)
        if target is None and not chosen:
            written = f"{self.node(path)}, but there is no key {name.strip()}"
            raise Unresolved(written, "the name of a key of this config")
        if target is None or (chosen and self.node(target) in (None, "???")):
            try:
                return _scalar(parse_value(otherwise) if comma else None)
            except ValueError as error:
                raise Unresolved(f"{self.node(path)}, whose default cannot be read: {first_line(error)}") from error
        self.referred.add(dotted(target))
        value = self.value(target)
        if value.problem:
            why = "it leads to itself" if target in self.inside else f"see {dotted(target)}"
            raise Unresolved(f"{self.node(path)}, which cannot be resolved: {why}")
        return value

    def _of_environment(self, found: Interpolation, path: KeyPath) -> Value:
        name, comma, otherwise = str(self._joined(found.arguments, path).content).partition(",")
        name, otherwise = _unquoted(name), _unquoted(otherwise)
        value = os.environ.get(name, otherwise)
        if name not in os.environ and not comma:
            written = f"{self.node(path)}, but the environment variable {name} is not set"
            raise Unresolved(written, f"{name} set, or a default: ${{oc.env:{name},default}}")
        if name not in os.environ and otherwise == "null":
            return _scalar(None)
        self.secrets.add(value)
        return _scalar(value, secret=True)

    def _of_omegaconf(self, text: str, parts: Sequence[str | Interpolation], path: KeyPath) -> Value:
        """With what is inside resolved first, since that is counted."""
        inner = list(self._inside(parts, path))
        _expect_bounded(sum(each.values for each in inner), sum(each.signs for each in inner), path)
        try:
            from omegaconf import OmegaConf

            with users_code():
                node = self.of_omegaconf = self.of_omegaconf or OmegaConf.create(self.raw)  # type: ignore[call-overload]
                for key in path[:-1]:
                    node = node[key]
                value = node[path[-1]]
                value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except ImportError:
            raise Unresolved(f"{text}, which only Hydra can resolve", "", INSTALL_HYDRA) from None
        except Refused as refused:
            if _HYDRAS.search(str(refused.error)):
                raise Unresolved(f"{text}, which only Hydra can resolve", "", INSTALL_HYDRA) from refused
            raise Unresolved(f"{text}, which cannot be resolved: {first_line(refused.error)}") from refused
        known = all(isinstance(part, str) or part.resolver in (*_HARMLESS, *_OURS) for part in parts)
        found = _foreign(value, path, secret=any(each.secret for each in inner), texts=not known)
        if found.secret and isinstance(value, str):
            self.secrets.add(value)
        return found

    def _inside(self, parts: Sequence[str | Interpolation], path: KeyPath) -> Iterator[Value]:
        """What goes into the resolvers of a text."""
        for part in parts:
            if isinstance(part, Interpolation) and _is_foreign(part):
                yield from self._inside(part.parts, path)
            elif isinstance(part, Interpolation):
                yield self._of_interpolation(part, path)

    def locate(self, key: str, path: KeyPath) -> KeyPath | None:
        """The path that a key means, ``.a`` beside the value at ``path``; None where there is nothing."""
        dots = len(key) - len(key.lstrip("."))
        names = [_unquoted(part) for part in re.split(r"[.\[\]]+", key[dots:]) if part]
        found: KeyPath = path[: max(0, len(path) - dots)] if dots else ()
        for name in names:
            base = self.followed(found)
            near = None if base is None else child(self.node(base), name)
            if base is None or near is None:
                return None
            found = (*base, near)
        return found

    def followed(self, path: KeyPath) -> KeyPath | None:
        """Where a path leads through every reference that stands there; None where that is nowhere."""
        for _ in range(_DEEPEST):
            node = self.node(path)
            if not (isinstance(node, str) and "${" in node):
                return path
            if (onward := self._onward(path)) is None:
                return None
            path = onward
        return None

    def _onward(self, path: KeyPath) -> KeyPath | None:
        """Where the one reference that stands at a path leads; None where there is anything else."""
        try:
            parts = scan(self.node(path))
            if len(parts) != 1 or isinstance(parts[0], str) or parts[0].resolver is not None or path in self.inside:
                return None
            self.inside.append(path)
            try:
                return self.locate(str(self._joined(parts[0].parts, path).content).strip(), path)
            finally:
                self.inside.pop()
        except Unresolved:
            return None

    def node(self, path: KeyPath) -> Any:
        """The raw value at a path that is there."""
        node: Any = self.raw
        for key in path:
            node = node[key]
        return node


def dotted(path: KeyPath) -> str:
    """A path as problems spell a key.

    Example:
        >>> dotted(("a", "b", 0, "c"))
        'a.b[0].c'
    """
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(map(str, path)))


def child(node: Any, name: str) -> Any:
    """The key or index of this name; None where there is none."""
    if isinstance(node, list):
        return int(name) if name.isdecimal() and len(name) < 9 and int(name) < len(node) else None
    return next((key for key in node if str(key) == name), None) if isinstance(node, Mapping) else None


def _container(content: Any, path: KeyPath) -> Value:
    each = list(content.values() if isinstance(content, dict) else content)
    values, signs = 1 + sum(value.values for value in each), sum(value.signs for value in each)
    _expect_bounded(values, signs, path)
    return Value(content, any(value.secret for value in each), values=values, signs=signs)


def _scalar(value: Any, *, secret: bool = False) -> Value:
    return Value(value, secret, signs=len(value) if isinstance(value, str) else 8)


def _foreign(value: Any, path: KeyPath, *, secret: bool, texts: bool) -> Value:
    """What a resolver gives, whose texts are somebody's own."""
    if isinstance(value, dict):
        return _container({key: _foreign(each, path, secret=secret, texts=texts) for key, each in value.items()}, path)
    if isinstance(value, list):
        return _container([_foreign(each, path, secret=secret, texts=texts) for each in value], path)
    if is_wide(value):
        raise Unresolved(wide(value), WITHIN_BITS)
    return _scalar(value, secret=secret or (texts and isinstance(value, str)))


def _expect_bounded(values: int, signs: int, path: KeyPath) -> None:
    if values > MAX_NODES or signs > MAX_TEXT:
        much = f"{values} values" if values > MAX_NODES else f"{signs} signs"
        raise Unusable(Problem(dotted(path), f"values that expand to {much}", _BOUNDS))


def _is_foreign(part: str | Interpolation) -> bool:
    """Whether a resolver in here is neither ``oc.env`` nor ``oc.select``."""
    if isinstance(part, str):
        return False
    return part.resolver not in _OURS or any(map(_is_foreign, part.parts))


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
