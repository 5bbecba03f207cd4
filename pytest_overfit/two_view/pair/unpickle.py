"""Reads the pickles that numpy writes for object arrays of strings and numbers, and can do nothing else.

This is an interpreter of its own and not a subclass of `pickle.Unpickler`: there is no import, no call of a foreign
function and no attribute that a pickle could set. A GLOBAL yields one of five words; REDUCE and BUILD know what each of
them means. It also bounds memory and time, where the C unpickler allocates whatever a memo index or a length asks for:
every step, value and copy is paid for out of one `Budget`.

Numpy 1 and 2, pickle protocols 0 to 5: https://github.com/python/cpython/blob/main/Lib/pickletools.py has the opcodes.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_overfit.errors import PairError

Value: TypeAlias = Any  # None, bool, int, float, str, bytes, list, tuple or one of the records below

_GLOBALS = {
    "numpy.core.multiarray _reconstruct": "reconstruct", "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.multiarray scalar": "scalar", "numpy._core.multiarray scalar": "scalar",
    "numpy ndarray": "ndarray", "numpy dtype": "dtype", "_codecs encode": "encode",
}  # fmt: skip
_ALLOWED = "None, strings, numbers, and lists, tuples or numpy arrays of them"
_LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS: dict[str, tuple[Callable[[list[Value]], Value], int | None]] = {  # of the top values, None: since MARK
    "EMPTY_LIST": (list, 0), "LIST": (list, None), "EMPTY_TUPLE": (tuple, 0), "TUPLE": (tuple, None),
    "TUPLE1": (tuple, 1), "TUPLE2": (tuple, 2), "TUPLE3": (tuple, 3),
}  # fmt: skip
_MARK = object()
# 132,000 names and scenes take some 60 MiB, a pair as a row of four objects 280 bytes. A step takes half a microsecond.
UNFOLDED_BYTES = 384 * 2**20
_STEP_BYTES, _MEMO_BYTES, _CONTAINER_BYTES = 64, 128, 64


@dataclass(frozen=True)
class Word:
    """An allowed GLOBAL: only its name, never the object that the name stands for."""

    name: str


@dataclass
class DType:
    """A dtype under construction: a plain kind and size, then (BUILD) its byte order."""

    code: str
    order: str = "<"


@dataclass
class Array:
    """An array under construction: empty until BUILD brings its state."""

    value: npt.NDArray[Any] | None = None


@dataclass
class Budget:
    """What is left of the bytes that all pickles of one file may unfold to."""

    left: int = UNFOLDED_BYTES

    def charge(self, size: int) -> None:
        """Takes from it.

        Raises:
            PairError: it is used up.
        """
        self.left -= size
        if self.left < 0:
            raise PairError(f"the pickle unfolds to more than {UNFOLDED_BYTES >> 20} MiB", allowed=_ALLOWED)


@dataclass
class _Machine:
    """Stack and memo, and who pays for them."""

    budget: Budget
    stack: list[Value] = field(default_factory=list)
    memo: dict[int, Value] = field(default_factory=dict)

    def charge(self, size: int) -> None:
        self.budget.charge(size)

    def since_mark(self) -> list[Value]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise PairError("the pickle is damaged (no MARK)", allowed=_ALLOWED)

    def top(self, count: int) -> list[Value]:
        start = len(self.stack) - count
        if start < 0:
            raise PairError("the pickle is damaged (too few values)", allowed=_ALLOWED)
        items = self.stack[start:]
        del self.stack[start:]
        return items


def load_array(data: bytes, budget: Budget | None = None) -> npt.NDArray[Any]:
    """The numpy array in the pickle `data`, at the cost of `budget`.

    Example:
        >>> load_array(pickle.dumps(np.array(["a", None], dtype=object))).tolist()
        ['a', None]

    Raises:
        PairError: the pickle asks for anything else, is damaged, or unfolds to more than the budget has.
    """
    machine = _Machine(Budget() if budget is None else budget)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.charge(_STEP_BYTES + (len(argument) if isinstance(argument, (str, bytes)) else 0))
            if opcode.name == "STOP":
                break
            _step(machine, opcode.name, argument)
        (top,) = machine.stack
    except PairError:
        raise
    except Exception as error:  # whatever damaged bytes make of the stack
        raise PairError(f"the pickle is damaged ({type(error).__name__})", allowed=_ALLOWED) from error
    if not isinstance(top, Array) or top.value is None:
        raise PairError(f"the pickle holds {kind_of(top)}, not an array", allowed=_ALLOWED)
    return top.value


def kind_of(value: Value) -> str:
    """A short word for a value that may be huge, nested or recursive: its type, never its contents."""
    return value.name if isinstance(value, Word) else type(value).__name__


def _step(machine: _Machine, name: str, argument: Value) -> None:
    """One opcode; MEMOIZE is a PUT under the next free number, APPEND one of the APPENDS without a MARK."""
    stack, memo = machine.stack, machine.memo
    if name in _LITERALS:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _CONTAINERS:
        make, count = _CONTAINERS[name]
        items = machine.since_mark() if count is None else machine.top(count)
        machine.charge(_CONTAINER_BYTES + 8 * len(items))
        stack.append(make(items))
    elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
        machine.charge(_MEMO_BYTES)
        memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else machine.since_mark()
        _list(stack[-1]).extend(items)
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        last = "" if name == "GLOBAL" else _text(stack.pop())
        stack.append(_word(argument if name == "GLOBAL" else f"{_text(stack.pop())} {last}"))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_called(machine, function, arguments))
    elif name == "BUILD":
        state = stack.pop()
        _build(machine, stack[-1], state)
    elif name not in ("PROTO", "FRAME"):
        raise PairError(f"the pickle uses the opcode {name}", allowed=_ALLOWED)


def _word(dotted: str) -> Word:
    if dotted not in _GLOBALS:
        found = f"the pickle asks for {dotted.replace(' ', '.')[:120]!r}"
        raise PairError(found, allowed=_ALLOWED, hint="this file may want to run code: do not load it")
    return Word(_GLOBALS[dotted])


def _called(machine: _Machine, function: Value, arguments: Value) -> Value:
    if not isinstance(function, Word) or not isinstance(arguments, tuple):
        raise PairError(f"the pickle calls {kind_of(function)}", allowed=_ALLOWED)
    if function.name == "reconstruct" and arguments[0] == Word("ndarray"):
        return Array()
    if function.name == "dtype" and re.fullmatch(r"[|<>=]?(?:O8?|[biuf][1-8]|[SU][1-9][0-9]{0,3})", arguments[0]):
        return DType(arguments[0].lstrip("|<>="))
    if function.name == "scalar" and isinstance(arguments[0], DType):
        return _plain(machine, arguments[0], (), arguments[1]).item()
    if function.name == "encode" and arguments[1] == "latin1":
        machine.charge(len(_text(arguments[0])))
        return arguments[0].encode("latin-1")
    raise PairError(f"the pickle calls {function.name} on {kind_of(arguments[0])}", allowed=_ALLOWED)


def _build(machine: _Machine, target: Value, state: Value) -> None:
    if isinstance(target, DType):
        version, order, *rest = state
        if version not in (3, 4) or order not in ("<", ">", "|", "=") or any(rest[:3]) or len(rest) > 6:
            raise PairError("the pickle builds a dtype that is not plain", allowed=_ALLOWED)
        target.order = "<" if order in "|=" else order
    elif isinstance(target, Array) and target.value is None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, DType):
            raise PairError(f"the pickle builds an array of {kind_of(dtype)}", allowed=_ALLOWED)
        if dtype.code[0] == "O":  # a list in C order, whatever the order of the array was
            target.value = _objects(machine, shape, content)
        else:
            target.value = _plain(machine, dtype, shape[::-1] if fortran else shape, content)
            target.value = target.value.T if fortran else target.value
    else:
        raise PairError(f"the pickle sets the state of {kind_of(target)}", allowed=_ALLOWED)


def _plain(machine: _Machine, dtype: DType, shape: tuple[int, ...], content: Value) -> npt.NDArray[Any]:
    """An array of numbers or fixed-width strings from raw bytes (a Python 2 pickle has them as a latin-1 string)."""
    raw = content.encode("latin-1") if isinstance(content, str) else content
    plain = np.dtype(dtype.order + dtype.code)
    if not isinstance(raw, bytes) or plain.hasobject or _count(shape) * plain.itemsize != len(raw):
        raise PairError(f"the pickle has {kind_of(content)} for an array of {plain}", allowed=_ALLOWED)
    machine.charge(len(raw) + 128)
    return np.frombuffer(raw, dtype=plain).reshape(shape)


def _objects(machine: _Machine, shape: tuple[int, ...], content: Value) -> npt.NDArray[Any]:
    """An object array whose items are what the pickle built before: nothing but plain values and arrays of them."""
    items = _list(content)
    if _count(shape) != len(items):
        raise PairError(f"the pickle has {len(items)} items for an array of shape {shape!r:.60}", allowed=_ALLOWED)
    machine.charge(8 * len(items) + 128)
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        if isinstance(item, (Word, DType)) or item is _MARK:
            raise PairError(f"item {index} of the pickle is {kind_of(item)}", allowed=_ALLOWED)
        array[index] = item.value if isinstance(item, Array) else item
    return array.reshape(shape)


def _count(shape: Value) -> int:
    """The number of items of a shape of at most 4 axes below 2**31 each."""
    if not isinstance(shape, tuple) or len(shape) > 4 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise PairError("the pickle has an array without a sensible shape", allowed=_ALLOWED)
    count = 1
    for size in shape:
        count *= size
    return count


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise PairError(f"the pickle has {kind_of(value)} in place of a string", allowed=_ALLOWED)
    return value


def _list(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise PairError(f"the pickle has {kind_of(value)} in place of a list", allowed=_ALLOWED)
    return value
