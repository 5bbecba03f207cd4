"""A cursor over one section of a composed config: reads values of a kind, and collects problems instead of raising."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_overfit.errors.suggest import nearest, some_of
from pytest_overfit.settings.problems import Problem, did_you_mean, shown
from pytest_overfit.settings.secret import plain
from pytest_overfit.untrusted.files import expect_name


def as_number(value: Any, whole: bool) -> float | None:
    """A number, also where it is text; an int where it has to be whole. None: it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = value if isinstance(value, (int, float)) else float(value)
        if not math.isfinite(number):
            return None if whole else number
        if whole:
            return int(number) if number == int(number) else None
        return float(number)
    except (ValueError, OverflowError):
        return None


def number_words(
    whole: bool = False,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    under: float | None = None,
) -> str:
    """What a number within these bounds is called.

    Example:
        >>> number_words(True, at_least=1), number_words(above=0, at_most=86400)
        ('a whole number of at least 1', 'a number above 0, at most 86400')
    """
    words = ["a whole number" if whole else "a number"]
    if above is not None:
        words.append(f"above {above}" if at_most is None else f"above {above}, at most {at_most}")
    if at_least is not None:
        words.append(f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}")
    if at_most is not None and len(words) == 1:
        words.append(f"up to {at_most}")
    if under is not None:
        words.append(f"and below {under}" if len(words) > 1 else f"below {under}")
    return " ".join(words)


_WORDS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


class Broken:
    """Stands in a tree for a value with a problem that is already reported."""

    def __repr__(self) -> str:
        return "<unresolved>"


BROKEN = Broken()


@dataclass
class Reads:
    """The keys that were asked for while a config was read, there or not: what else it says, nothing here reads.

    Args:
        asked: dotted key of a section -> the names that were asked of it.
        handed: sections whose keys go to a class, which reads them.
        paths: values that were read as paths.
    """

    asked: dict[str, dict[str, None]] = field(default_factory=dict)
    handed: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)

    def note(self, section: str, name: Any) -> None:
        self.asked.setdefault(section, {})[str(name)] = None

    def names(self, section: str) -> list[str]:
        """What was asked of a section, without the places of a list."""
        return [name for name in self.asked.get(section, ()) if not name.endswith("]")]

    def every_key(self) -> list[str]:
        """Every dotted key that was asked for."""
        return [f"{section}.{name}" if section else name for section in self.asked for name in self.names(section)]


@dataclass(frozen=True)
class Section:
    """One mapping of the config, with its dotted key and the list that all problems go to.

    A value that is absent or null reads as its default; a value of the wrong kind is a problem, and reads as its
    default too. Text that spells a number or a switch is read as one, and written back: environment variables are text.

    Example:
        >>> problems = []
        >>> optimizer = Section({"lr": "1e-4", "weight_decay": "none"}, "optim.optimizer", problems)
        >>> optimizer.number("lr", None, at_least=0), optimizer.number("weight_decay", 0.0)
        (0.0001, 0.0)
        >>> problems[0].line("a.yaml")
        "a.yaml: optim.optimizer.weight_decay: found 'none', allowed: a number"
    """

    values: dict[Any, Any]
    key: str
    problems: list[Problem]
    reads: Reads = field(default_factory=Reads, repr=False, compare=False)

    def silent(self) -> Section:
        """The same section for a second look: its problems are reported already."""
        return replace(self, problems=[])

    def path(self, name: str) -> str:
        """The full dotted key of one of this section's keys."""
        return f"{self.key}.{name}" if self.key and name else self.key or name

    def problem(self, name: str, found: str, allowed: str = "", hint: str = "") -> None:
        self.problems.append(Problem(self.path(name), found, allowed, hint))

    def refuse(self, name: str, allowed: str, found: Any = None) -> None:
        """The value itself is the problem."""
        self.problem(name, shown(self.get(name) if found is None else found), allowed)

    def as_switch(self, name: str) -> Any:
        """The raw value, text such as ``off`` as a boolean."""
        return as_switch(self.get(name))

    def reword(self, before: int, allowed: str) -> None:
        """Says what else is allowed in the problem, if any, that was added since there were ``before``."""
        if len(self.problems) > before:
            self.problems[-1] = replace(self.problems[-1], allowed=allowed)

    def given(self, name: str) -> bool:
        """Whether the config says something else than null here."""
        return self.values.get(name) is not None

    def get(self, name: str) -> Any:
        """The raw value; None where it is absent, null, or broken and reported already."""
        self.reads.note(self.key, name)
        value = self.values.get(name)
        return None if value is BROKEN else value

    def section(self, name: str) -> Section:
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            self.problem(name, shown(value), "a mapping")
            value = None
        return replace(self, values=value if isinstance(value, dict) else {}, key=self.path(name))

    def sections(self, name: str) -> list[Section]:
        """A list of mappings."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.problem(name, shown(value), "a list of mappings")
            return []
        items = replace(self, values={f"{name}[{index}]": item for index, item in enumerate(value)})
        return [items.section(index) for index in items.values]

    def number(
        self,
        name: str,
        default: Any,
        *,
        at_least: float | None = None,
        above: float | None = None,
        at_most: float | None = None,
        under: float | None = None,
        whole: bool = False,
        infinite: bool = False,
    ) -> Any:
        """A finite number (or infinity, where allowed) within its bounds; an int where it has to be whole."""
        value = self.get(name)
        if value is None:
            return default
        number = as_number(value, whole)
        fits = number is not None and not math.isnan(number) and (infinite or math.isfinite(number))
        if fits and number is not None:
            fits = (
                (at_least is None or number >= at_least)
                and (above is None or number > above)
                and (at_most is None or number <= at_most)
                and (under is None or number < under)
            )
        if not fits:
            words = number_words(whole, at_least=at_least, above=above, at_most=at_most, under=under)
            self.problem(name, shown(value), words)
            return default
        self.values[name] = number
        return number

    def numbers(self, name: str, count: int | None = None, **bounds: Any) -> tuple[Any, ...] | None:
        """A list of numbers within the same bounds, of this length; None where there is none."""
        value = self.get(name)
        if value is None:
            return None
        items = Section({str(at): item for at, item in enumerate(value if isinstance(value, list) else ())}, "", [])
        read = tuple(items.number(at, None, **bounds) for at in tuple(items.values))
        if not read or None in read or (count is not None and len(read) != count):
            words = number_words(**bounds)
            self.problem(name, shown(value), f"{'a list of' if count is None else count} numbers, each {words}")
            return None
        return read

    def switch(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        value = as_switch(value)
        if not isinstance(value, bool):
            self.problem(name, shown(value), "true or false")
            return default
        self.values[name] = value
        return value

    def text(self, name: str, default: str | None) -> Any:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip():
            self.problem(name, shown(value), "text")
            return default
        return plain(value)

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> Any:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
            self.problem(name, shown(value), " | ".join(allowed), hint)
            return default
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of text, or one text on its own."""
        value = self.get(name)
        items = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
            self.problem(name, shown(value), "a list of text")
            return ()
        return tuple(map(plain, items))

    def file(self, name: str, folder: Path) -> Path | None:
        """A path, absolute: relative ones are relative to the config file's folder, ``~`` is the home folder."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, (str, Path)) or not str(value).strip() or "\0" in str(value):
            self.problem(name, shown(value), "a path")
            return None
        self.reads.paths.add(str(value))
        try:
            found = folder / Path(value).expanduser()
            expect_name(found)
            return found
        except (RuntimeError, OSError, ValueError) as error:  # no home; too long; a zero byte
            self.problem(name, f"{shown(value)}: {getattr(error, 'strerror', None) or error}", "a path")
            return None

    def target(self, name: str, default: str) -> dict[str, Any]:
        """A section that names a Python object in ``_target_``: a copy with the default filled in."""
        section = self.section(name)
        target = section.text("_target_", default)
        if not all(part.isidentifier() for part in target.split(".")) or "." not in target:
            section.problem("_target_", shown(target), "a dotted Python name, such as package.module.Name")
        section.hand_over()
        return plain({**section.values, "_target_": target})  # type: ignore[no-any-return]

    def hand_over(self) -> None:
        """What is in here is for a class, which reads it."""
        self.reads.handed.add(self.key)

    def only(self, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> None:
        """Every other key is a problem: for this plugin's own section.

        Args:
            elsewhere: what people write here -> the dotted key, below this section, where it stands.
        """
        names = list(known)
        places = {**(elsewhere or {}), **{name: name for name in names}}
        for name in self.values:
            if name not in names:
                near = nearest(str(name), places)
                hint = f"did you mean {places[near]}?" if near else ""
                self.problem(str(name), "an unknown key", some_of(str(name), names, "docs/settings.md"), hint)


def as_switch(value: Any) -> Any:
    """Text such as ``off`` (how an override or an environment variable says false) as a boolean; the rest unchanged."""
    return _WORDS.get(value.casefold(), value) if isinstance(value, str) else value
