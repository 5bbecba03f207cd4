"""The one error root of the package, and the three parts that every message has."""

from __future__ import annotations

from collections.abc import Sequence


class OverfitError(Exception):
    """Something the user gave cannot be used.

    Example:
        >>> raise OverfitError("12 of 64 depths are NaN", where="0001/a.exr", allowed="finite metres, 0 = invalid")
        Traceback (most recent call last):
        ...
        pytest_overfit.errors.OverfitError: 0001/a.exr: 12 of 64 depths are NaN
          allowed: finite metres, 0 = invalid

    Args:
        found: what was seen, with the offending value.
        where: the file, key, module or step it was seen in.
        allowed: what would have been accepted.
        hint: what to try next.
    """

    def __init__(
        self, found: str, *, where: object = None, allowed: str | None = None, hint: str | None = None
    ) -> None:
        self.found = found
        self.where = None if where is None else str(where)
        self.allowed = allowed
        self.hint = hint
        super().__init__(found)

    def __str__(self) -> str:
        head = self.found if self.where is None else f"{self.where}: {self.found}"
        lines = [head]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return "\n".join(lines)

    def at(self, where: object, *, hint: str | None = None) -> OverfitError:
        """The same, seen at another place; ``hint``: what to try where it says nothing of that.

        Example:
            >>> print(OverfitError("12 of 64 depths are NaN").at("0001/a.exr"))
            0001/a.exr: 12 of 64 depths are NaN
        """
        return type(self)(self.found, where=where, allowed=self.allowed, hint=self.hint or hint)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive BaseException's pickling, and DataLoader workers pickle errors.
        return _rebuild, (type(self), self.found, self.where, self.allowed, self.hint)


class ConfigError(OverfitError):
    """A config file, option or marker is wrong: a usage error, reported before anything runs."""


class PairError(OverfitError):
    """A file of the pair or of its source is missing, unreadable or inconsistent."""


class ProblemsError(OverfitError):
    """What was found wrong independently of each other, told at once; ``parts`` are the single errors."""

    parts: tuple[OverfitError, ...] = ()


def together(errors: Sequence[OverfitError]) -> OverfitError:
    """One error for all; of a single one that itself.

    Example:
        >>> print(together([OverfitError("no such folder", where="ROOT"), OverfitError("no module", where="model")]))
        2 problems: ROOT, model
          next: ROOT
                  no such folder
                model
                  no module
    """
    parts = list({str(error): error for error in errors}.values())
    if len(parts) == 1:
        return parts[0]
    told = (f"{part.where}\n  {part.found}{f'; {part.hint}' if part.hint else ''}" for part in parts)
    lines = [line for each in told for line in each.splitlines()]
    places = ", ".join(str(part.where).removeprefix("--overfit-set ").partition(" ")[0] for part in parts)
    found = ProblemsError(f"{len(parts)} problems: {places}", hint="\n        ".join(lines))
    found.parts = tuple(parts)
    return found


def _rebuild(
    kind: type[OverfitError], found: str, where: str | None, allowed: str | None, hint: str | None
) -> OverfitError:
    return kind(found, where=where, allowed=allowed, hint=hint)
