"""Objects that others have written, looked at without running a line of theirs.

An attribute may be a property with an effect, ``__getattr__`` may answer every name or raise what it likes, ``len()``
may not be allowed: so it is the type that is asked, and the state that every object of Python keeps in the same way.
"""

from __future__ import annotations

import types
from collections import OrderedDict, UserDict, deque
from collections.abc import Iterator
from typing import Any

from pytest_overfit.errors.asking import Refused, users_code

CONTAINERS: tuple[type, ...] = (OrderedDict, dict, list, tuple, set, frozenset, deque)
_MISSING = object()
_HEAP_TYPE = 1 << 9  # of ``__flags__``: a class that is written in Python (and a few of C's)


def is_a(thing: Any, *kinds: type) -> bool:
    """``isinstance`` by the type alone: an object may lie about its ``__class__``, or have an effect there.

    Example:
        >>> from unittest.mock import Mock
        >>> isinstance(Mock(spec=dict), dict), is_a(Mock(spec=dict), dict)
        (True, False)
    """
    return issubclass(type(thing), kinds)


def defines(thing: Any, *names: str) -> bool:
    """Whether the class of an object has methods of these names.

    Example:
        >>> from unittest.mock import Mock
        >>> defines({}, "keys", "items"), defines(Mock(), "items")
        (True, False)
    """
    return all(_is_method(_of_class(type(thing), name)) for name in names)


def attributes(thing: Any) -> dict[str, Any]:
    """What an object keeps in its ``__dict__``, itself and not a copy; an empty mapping where it has none.

    Example:
        >>> from types import SimpleNamespace
        >>> attributes(SimpleNamespace(a=1)), attributes(1)
        ({'a': 1}, {})
    """
    found = _of_class(type(thing), "__dict__")
    if not isinstance(found, (types.GetSetDescriptorType, types.MemberDescriptorType)):  # none, or a computed one
        return {}
    held = found.__get__(thing)
    return held if type(held) is dict else {}


def state(thing: Any) -> dict[str, Any]:
    """What an object keeps in its slots and in its ``__dict__``.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(slots=True)
        ... class Point:
        ...     x: int
        >>> state(Point(1))
        {'x': 1}
    """
    found = {}
    for name, slot in _slots(type(thing)):
        try:
            found[name] = slot.__get__(thing)
        except AttributeError:  # it was never filled
            continue
    return {**found, **attributes(thing)}


def contents(thing: Any) -> list[Any]:
    """What a container holds, the values of a mapping; nothing of what is no list, tuple, set, deque or dict.

    Example:
        >>> class Rows(tuple):
        ...     def __len__(self):
        ...         raise NotImplementedError
        >>> contents({"a": 1}), contents(Rows("xy")), contents("xy")
        ([1], ['x', 'y'], [])
    """
    if type(thing) in (tuple, list):  # a batch, at every step
        return list(thing)
    if not issubclass(type(thing), CONTAINERS):
        return []
    for kind in CONTAINERS:
        if is_a(thing, kind):
            return list(kind.values(thing)) if issubclass(kind, dict) else list(kind.__iter__(thing))  # type: ignore[attr-defined]
    return []


def items_of(mapping: Any) -> list[tuple[Any, Any]]:
    """The items of a mapping of any class; of one that refuses to tell them, what it keeps as attributes.

    Example:
        >>> class Reading(dict):
        ...     def items(self):
        ...         raise NotImplementedError
        >>> items_of(Reading(a=1))
        [('a', 1)]
    """
    held: Any = attributes(mapping).get("data") if is_a(mapping, UserDict) else mapping
    if is_a(held, dict):
        return list(OrderedDict.items(held) if is_a(held, OrderedDict) else dict.items(held))
    try:
        with users_code():  # where it keeps them is its own affair: it has to be asked
            return [(key, mapping[key]) for key in mapping]
    except Refused:
        return list(state(mapping).items())


def text_of(key: Any) -> str:
    """A key as text; of one whose ``str`` raises, its class.

    Example:
        >>> class Key:
        ...     def __str__(self):
        ...         raise ValueError
        >>> text_of(1), text_of(Key())
        ('1', 'Key')
    """
    if type(key) is str:
        return key
    try:
        with users_code():
            return str(key)
    except Refused:
        return type(key).__name__


def twin_of(thing: Any) -> Any:
    """A new and empty object of the same class, made without its constructor; None where the class allows none.

    A subclass of ``dict`` or ``list`` comes without items, any other without attributes: see ``fill``.
    """
    base: Any = next(kind for kind in type(thing).__mro__ if not kind.__flags__ & _HEAP_TYPE)
    if base is tuple:
        return None
    try:
        return base.__new__(type(thing))
    except TypeError:  # an abstract class, or one of C's
        return None


def fill(twin: Any, values: dict[str, Any]) -> None:
    """Gives an object that ``twin_of`` made its slots and attributes."""
    slots = dict(_slots(type(twin)))
    for name, value in values.items():
        if name in slots:
            slots[name].__set__(twin, value)
        else:
            attributes(twin)[name] = value


def _of_class(kind: type, name: str) -> Any:
    for each in kind.__mro__:
        held = vars(each)
        if name in held:
            return held[name]
    return _MISSING


def _is_method(found: Any) -> bool:
    return found is not _MISSING and (callable(found) or isinstance(found, classmethod))


def _slots(kind: type) -> Iterator[tuple[str, Any]]:
    for each in reversed(kind.__mro__):
        if each.__flags__ & _HEAP_TYPE:
            for name, value in vars(each).items():
                if isinstance(value, types.MemberDescriptorType) and not name.startswith("__"):
                    yield name, value
