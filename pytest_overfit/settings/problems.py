"""A problem of a config, and the one error that reports every problem of every config."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_overfit.errors import ConfigError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings import plain_yaml
from pytest_overfit.settings.secret import hide, told_override

MOST_BITS = 64
WITHIN_BITS = f"whole numbers of at most {MOST_BITS} bits"
_LONGEST_VALUE = 120
_TYPO_RATIO = 0.85


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one key.

    Example:
        >>> Problem("img_size", "225", "a multiple of patch_size 14").line("a.yaml")
        'a.yaml: img_size: found 225, allowed: a multiple of patch_size 14'

    Args:
        key: full dotted key; "" when the file itself is the problem; ":3:7" for a line and column of it.
    """

    key: str
    found: str
    allowed: str = ""
    hint: str = ""

    def hiding(self, secrets: Iterable[str]) -> Problem:
        """The same problem without the values that nobody is shown."""
        texts = (hide(text, secrets) for text in (self.found, self.allowed, self.hint))
        return Problem(self.key, *texts)

    def line(self, file: str) -> str:
        """The problem as one line of text."""
        separator = "" if not self.key or self.key.startswith(":") else ": "
        allowed = f", allowed: {self.allowed}" if self.allowed else ""
        hint = f" ({self.hint})" if self.hint else ""
        parts = (hint, allowed) if self.hint.startswith("did you mean") else (allowed, hint)  # before a long list
        return f"{file}{separator}{self.key}: found {self.found}{''.join(parts)}"


class Unusable(Exception):  # noqa: N818 - never leaves the package: it carries problems to the place that reports all
    """Carries the problems of one config to where the problems of all configs are reported."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


def report(problems: Sequence[tuple[str, Problem]], overrides: Sequence[str] = ()) -> ConfigError:
    """One error for all (file, problem) pairs.

    Args:
        overrides: those of the command line, whose keys may be misspelt too.

    Example:
        >>> print(report([("a.yaml", Problem("img_size", "225"))]))
        a.yaml: img_size: found 225
    """
    lines = [line for file, problem in problems for line in (problem.line(file), *_as_meant(file, problem, overrides))]
    counted = [f"{len(problems)} problems in the config"] if len(problems) > 1 else []
    return ConfigError("\n".join(["\n  ".join(lines), *counted]))


def _as_meant(file: str, problem: Problem, overrides: Sequence[str]) -> list[str]:
    """The line or the override of a misspelt key as it was probably meant, to be pasted."""
    meant, key = re.fullmatch(r"did you mean ([\w.]+)\?", problem.hint), problem.key.rpartition(".")[2]
    if meant is None or not problem.found.startswith("an unknown key") or not key.isidentifier():
        return []
    above = problem.key.removesuffix(key)
    for text in overrides:
        if re.match(rf"{re.escape(problem.key)}\s*[.=\[]", text):
            told = told_override(f"{above}{meant[1]}{text[len(problem.key) :]}")
            return [f"  change: --overfit-set {shlex.quote(told)}"]
    if "." in meant[1]:  # another section's, which is no line to paste here
        return []
    try:
        text = Path(file).read_text(encoding="utf-8")
        number = plain_yaml.key_lines(text)[problem.key]
    except (OSError, ValueError, KeyError, RecursionError):
        return []
    line = re.sub(rf"\b{re.escape(key)}\b", meant[1], text.splitlines()[number - 1], count=1)
    return [f"  change: {file}:{number}: {line.strip()}"]


def shown(value: object) -> str:
    """A value as it is quoted in a message: text in quotes, None as null, long ones cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = (
            wide(value) if isinstance(value, int) else f"a {type(value).__name__} with a number of thousands of digits"
        )
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def is_wide(value: object) -> bool:
    """Whether a value is an integer that no setting can have, and that Python may refuse to write."""
    return isinstance(value, int) and value.bit_length() > MOST_BITS


def wide(value: Any) -> str:
    """How a message calls such an integer.

    Example:
        >>> wide(2**64)
        'a whole number of 65 bits'
    """
    return f"a whole number of {value.bit_length()} bits"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """``did you mean objective?``, or nothing when no choice is near."""
    match = nearest(name, choices)
    return f"did you mean {match}?" if match else ""


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` is almost certainly a misspelling of, or None: other keys are none of our business.

    Example:
        >>> misspelt("max_epoch", ["max_epochs", "img_size"])
        'max_epochs'
        >>> misspelt("train2", ["train"]) is None
        True
        >>> misspelt("trian", ["train", "val"])
        'train'
    """
    names = list(known)
    swapped = next((each for each in names if len(each) > 2 and _is_swapped(name, each)), None)  # a ratio misses these
    if swapped:
        return swapped
    best: tuple[float, str | None] = (0.0, None)
    for candidate in names:
        numbered = name.startswith(candidate) and name[len(candidate) :].strip("_").isdecimal()
        ratio = difflib.SequenceMatcher(None, name.casefold(), candidate.casefold()).ratio()
        if not numbered and ratio >= _TYPO_RATIO and ratio > best[0]:
            best = (ratio, candidate)
    return best[1]


def one_letter_off(name: str, known: str) -> bool:
    """Whether one letter is missing, doubled, wrong, or has changed places with its neighbour.

    Example:
        >>> [one_letter_off(name, "lr") for name in ("l", "lrr", "lx", "rl", "loss")]
        [True, True, True, True, False]
    """
    if name == known or abs(len(name) - len(known)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(name, known, strict=False)) if a != b), min(len(name), len(known)))
    rest, other = name[start:], known[start:]
    return rest[1:] == other[1:] or rest[1:] == other or rest == other[1:] or _is_swapped(name, known)


def _is_swapped(name: str, known: str) -> bool:
    """Whether two neighbouring letters have changed places."""
    differ = [at for at, (a, b) in enumerate(zip(name, known, strict=False)) if a != b]
    if len(name) != len(known) or len(differ) != 2 or differ[1] != differ[0] + 1:
        return False
    first, second = differ
    return name[first] == known[second] and name[second] == known[first]
