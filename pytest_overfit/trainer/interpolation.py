"""What the ``${...}`` of a config expand to, counted before anything is expanded: how much, and whose secrets.

A few lines that name each other ten times multiply to gigabytes; and what came out of the environment is shown to
nobody. Both follow the same references, so one survey answers both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_overfit.settings.problems import WITHIN_BITS, Problem, Unusable, is_wide, wide
from pytest_overfit.trainer.config_file import MAX_NODES

MAX_TEXT = 1_000_000
_DEEPEST = 64
_LONGEST_KEY = 10_000
_ALLOWED = f"at most {MAX_NODES} values and {MAX_TEXT} signs, {_DEEPEST} deep"
# Resolvers whose argument is the key of another value, and those that tell nothing that is anybody's own.
_SELECTING = frozenset({"oc.select", "oc.dict.keys", "oc.dict.values", "oc.deprecated"})
_ENVIRONMENT = frozenset({"oc.env", "env"})
_READING = frozenset({"oc.decode", "oc.create"})
_HARMLESS = frozenset({"hydra", "now", "python_version"})
Origin = Literal["", "resolver", "environment"]
Path = tuple[str, ...]


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


@dataclass(frozen=True)
class Cost:
    """What a value expands to: letters, values, and where it has them from."""

    signs: int
    values: int
    origin: Origin = ""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.signs + other.signs, self.values + other.values, _worse(self.origin, other.origin))


def scan(text: str) -> tuple[str | Interpolation, ...]:
    r"""Text cut at its interpolations; an escaped ``\${`` is none.

    Example:
        >>> scan("a${b.${c}}d")
        ('a', Interpolation(parts=('b.', Interpolation(parts=('c',)))), 'd')

    Raises:
        Unusable: they are nested without end.
    """
    stack: list[list[str | Interpolation]] = [[]]
    at = start = 0

    def keep(end: int) -> None:
        if end > start:
            stack[-1].append(text[start:end])

    for match in re.finditer(r"(\\*)\$\{|\{|\}", text):
        at = match.end()
        if match[0] == "}" and len(stack) > 1:
            keep(match.start())
            inside = stack.pop()
            stack[-1].append(Interpolation(tuple(inside)))
            start = at
        elif match[0].endswith("${") and len(match[1]) % 2 == 0:
            keep(at - 2)
            stack.append([])
            start = at
            if len(stack) > _DEEPEST:
                raise Unusable(Problem("", "interpolations nested without end", f"at most {_DEEPEST} in each other"))
    keep(len(text))
    while len(stack) > 1:  # never closed: text, to whoever reads it next
        inside = stack.pop()
        stack[-1].extend(["${", *inside])
    return tuple(stack[0])


def expect_bounded(tree: Any) -> Survey:
    """The survey of a composed tree, before any of it is resolved; its integers can be written.

    Example:
        >>> from omegaconf import OmegaConf
        >>> lines = {"a0": "x" * 20, **{f"a{i}": f"${{a{i - 1}}}" * 10 for i in range(1, 9)}}
        >>> expect_bounded(OmegaConf.create(lines))
        Traceback (most recent call last):
        ...
        pytest_overfit.settings.problems.Unusable: ...

    Raises:
        Unusable: its interpolations expand to more than a config can have, or an integer is too wide.
    """
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(raw, dict)
    _expect_narrow(raw, ())
    survey = Survey(raw)
    total = Cost(0, 0)
    for path, text in _texts(raw, ()):
        if "${" in text:
            total += survey.cost(path)
            survey.expect(total, path)
    return survey


def _expect_narrow(node: Any, path: Path) -> None:
    if isinstance(node, (Mapping, list)):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            _expect_narrow(key, path)
            _expect_narrow(value, (*path, str(key)))
    elif is_wide(node):
        raise Unusable(Problem(dotted(path), wide(node), WITHIN_BITS))


def _texts(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, (*path, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, (*path, str(index)))


@dataclass
class Survey:
    """Follows the interpolations of a tree of plain containers, each once.

    Args:
        raw: nothing in it is resolved.
        referred: the dotted keys that are named.
        secrets: what came out of the environment.
    """

    raw: Mapping[Any, Any]
    referred: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    known: dict[Path, Cost] = field(default_factory=dict)
    inside: list[Path] = field(default_factory=list)
    read: list[Path] = field(default_factory=list)  # whose text is looked at, to find the key that it names
    measured: dict[tuple[Interpolation, Path], Cost] = field(default_factory=dict)
    told: dict[tuple[Interpolation, Path], str | None] = field(default_factory=dict)
    again: int = 0  # how often text that came out of interpolations is read as text with some

    def expect(self, cost: Cost, path: Path) -> Cost:
        if cost.values > MAX_NODES or cost.signs > MAX_TEXT:
            much = f"{cost.values} values" if cost.values > MAX_NODES else f"{cost.signs} signs"
            raise Unusable(Problem(dotted(path), f"interpolations that expand to {much}", _ALLOWED))
        return cost

    def cost(self, path: Path) -> Cost:
        """What the value at a path expands to."""
        if path not in self.known:
            if path in self.inside:  # a cycle: OmegaConf says so
                return Cost(0, 1)
            if len(self.inside) > _DEEPEST:
                raise Unusable(Problem(dotted(path), "interpolations that lead to each other without end", _ALLOWED))
            self.inside.append(path)
            self.known[path] = self.expect(self._cost(self.node(path), path), path)
            self.inside.pop()
        return self.known[path]

    def _cost(self, node: Any, path: Path) -> Cost:
        if isinstance(node, (Mapping, list)):
            keys = node if isinstance(node, Mapping) else range(len(node))
            total = Cost(0, 1)
            for key in keys:
                total = self.expect(total + self.cost((*path, str(key))), path)
            return Cost(total.signs, total.values)  # each value in it has its own origin
        return self.of_text(node, path) if isinstance(node, str) else Cost(8, 1)

    def of_text(self, text: str, path: Path) -> Cost:
        """What a text at this path expands to."""
        return self._of_parts(scan(text), path) + Cost(0, 1)

    def _of_parts(self, parts: Sequence[str | Interpolation], path: Path) -> Cost:
        total = Cost(0, 0)
        for part in parts:
            cost = Cost(len(part), 0) if isinstance(part, str) else self._of_interpolation(part, path)
            total = self.expect(total + cost, path)
        return total

    def _of_interpolation(self, found: Interpolation, path: Path) -> Cost:
        if (found, path) not in self.measured:  # one in another is asked for twice at every level
            self.measured[found, path] = self._measure(found, path)
        return self.measured[found, path]

    def _measure(self, found: Interpolation, path: Path) -> Cost:
        name = found.resolver
        if name is None:
            return self._of_reference(found.parts, path)
        inner = self._of_parts(found.arguments, path)
        written = self._text(found.arguments, path)
        if name in _ENVIRONMENT:
            value = os.environ.get(_first(written or ""), "")
            self.secrets.add(value)
            self.secrets.update([_rest(written)] if written and not value else [])
            return inner + Cost(len(value), 1, "environment")
        if name in _SELECTING:
            return inner + self._of_reference((_first(written or ""),), path)
        if name in _READING:
            again = Cost(0, 0) if written is None or "${" not in written else self._of_read(_unquoted(written), path)
            return inner + again + Cost(inner.signs, 1 + inner.signs // 2)
        return inner + Cost(1, 1, "" if name in _HARMLESS else "resolver")

    def _of_read(self, text: str, path: Path) -> Cost:
        if self.again > _DEEPEST:  # a variable that holds `${oc.decode:${oc.env:ITSELF}}`
            raise Unusable(Problem(dotted(path), "interpolations that lead to each other without end", _ALLOWED))
        self.again += 1
        try:
            return self.of_text(text, path)
        finally:
            self.again -= 1

    def _of_reference(self, parts: Sequence[str | Interpolation], path: Path) -> Cost:
        inner = self._of_parts([part for part in parts if not isinstance(part, str)], path)
        key = self._text(parts, path)
        target = None if key is None else self._target(key, path)
        if target is None:
            return inner + Cost(0, 1)
        self.referred.add(dotted(target))
        return Cost(0, inner.values) + Cost(inner.signs, 1) + self.cost(target)

    def _target(self, key: str, path: Path) -> Path | None:
        """The path that a key means, ``.a`` beside the one at ``path``; None where there is nothing."""
        key = key.strip()
        dots = len(key) - len(key.lstrip("."))
        base = path[: max(0, len(path) - dots)] if dots else ()
        names = [part.strip("'\" ") for part in re.split(r"[.\[\]]+", key[dots:]) if part]
        return self._walk((*base, *names))

    def _walk(self, names: Path, hops: int = 0) -> Path | None:
        """The path of a value, through every interpolation on the way to it."""
        path: Path = ()
        for count, name in enumerate(names):
            node = self.node(path)
            if isinstance(node, str):  # `${a.b}`, where a is itself `${c}`
                parts = scan(node)
                if len(parts) != 1 or isinstance(parts[0], str) or parts[0].resolver is not None or hops > _DEEPEST:
                    return path if count else None
                onward = self._onward(parts[0].parts, path)
                return None if onward is None else self._walk((*onward, *names[count:]), hops + 1)
            if isinstance(node, Mapping) and not any(str(each) == name for each in node):
                return None
            if isinstance(node, list) and not (name.isdecimal() and len(name) < 9 and int(name) < len(node)):
                return None
            if not isinstance(node, (Mapping, list)):
                return None
            path = (*path, name)
        return path

    def _onward(self, parts: Sequence[str | Interpolation], path: Path) -> Path | None:
        """Where the one reference at a path leads; None where that is to itself."""
        if path in self.read:
            return None
        self.read.append(path)
        try:
            key = self._text(parts, path)
            return None if key is None else self._target(key, path)
        finally:
            self.read.pop()

    def node(self, path: Path) -> Any:
        """The raw value at a path that is there."""
        node: Any = self.raw
        for name in path:
            if isinstance(node, list):
                node = node[int(name)]
            else:
                node = node[name] if name in node else next(node[key] for key in node if str(key) == name)
        return node

    def _text(self, parts: Sequence[str | Interpolation], path: Path) -> str | None:
        """What parts come to as text; None where only resolving tells. Small, since it was measured before."""
        if self._of_parts([part for part in parts if not isinstance(part, str)], path).signs > _LONGEST_KEY:
            return None
        told = [part if isinstance(part, str) else self._text_of(part, path) for part in parts]
        return None if None in told else "".join(map(str, told))

    def _text_of(self, found: Interpolation, path: Path) -> str | None:
        if (found, path) not in self.told:
            self.told[found, path] = self._tell(found, path)
        return self.told[found, path]

    def _tell(self, found: Interpolation, path: Path) -> str | None:
        name = found.resolver
        inner = self._text(found.parts if name is None else found.arguments, path)
        if inner is None or (name is not None and name not in _ENVIRONMENT | _SELECTING | _READING):
            return None
        if name in _READING:
            return _unquoted(inner)
        if name in _ENVIRONMENT:
            return os.environ.get(_first(inner), _rest(inner))
        target = self._target(inner if name is None else _first(inner), path)
        if target is None or target in self.inside or target in self.read:
            return _rest(inner) if name else None
        node = self.node(target)
        if isinstance(node, (Mapping, list)):
            return None
        if not isinstance(node, str):
            return str(node)
        self.read.append(target)
        try:
            return self._text(scan(node), target)
        finally:
            self.read.pop()


def dotted(path: Path) -> str:
    """A path as problems spell a key.

    Example:
        >>> dotted(("a", "b", "0", "c"))
        'a.b[0].c'
    """
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(path))


def _worse(one: Origin, other: Origin) -> Origin:
    order: tuple[Origin, ...] = ("", "resolver", "environment")
    return max(one, other, key=order.index)


def _first(arguments: str) -> str:
    return _unquoted(arguments.partition(",")[0])


def _rest(arguments: str) -> str:
    return _unquoted(arguments.partition(",")[2])


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
