"""What of a repository has the same name as something else of it: another name for it in a test, or no test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytest_overfit.commands.first_test import FirstTest
from pytest_overfit.commands.repository import Class, Function, Repository


def first_test(root: Path, output: Path | None) -> tuple[FirstTest, tuple[str, Path, str]]:
    """The first test of a repository, and what it has to say: two things of one name have two in it.

    A model is left out whose module has the name of another one's in another folder: Python imports one of them.
    """
    aliases = dict[tuple[Path, str], str]()
    without = dict[Class, str]()
    while True:
        test = FirstTest(Repository(root, aliases), output, without)
        written = test.written()
        if out := _left_out(test):
            without |= out
        elif new := _aliases(test.used):
            aliases |= new
        else:
            test.missing += without.values()
            return test, written


def _left_out(test: FirstTest) -> dict[Class, str]:
    """The first model that cannot be imported beside those before it, with the line that says so."""
    folders = dict[str, Class | Function]()  # the first part of a module -> what it is imported for
    for model, used in test.for_models:
        for each in used:
            first = folders.setdefault(each.module.partition(".")[0], each)
            own, other = (test.repository.search_path(part) for part in (each, first))
            if own != other and first not in used:
                files = f"{first.file.as_posix()} and {each.file.as_posix()}"
                why = f"{files} are both imported as {each.module.partition('.')[0]}"
                alone = f"; by itself: pytest-overfit init {own.as_posix()}" if own.parts else ""
                return {model: f"left out: {model.name} ({model.file.as_posix()}): {why}{alone}"}
    return {}


def _aliases(used: Iterable[Class | Function]) -> dict[tuple[Path, str], str]:
    """Names for what is used of two files by the same one: what their modules differ in stands behind it."""
    modules = dict[str, dict[Path, str]]()
    for each in used:
        if each.called == each.name:
            modules.setdefault(each.name.partition(".")[0], {})[each.file] = each.module
    found = dict[tuple[Path, str], str]()
    for name, files in modules.items():
        if len(files) > 1:
            parts = [module.split(".") for module in files.values()]
            telling = next((column for column in zip(*parts, strict=False) if len(set(column)) == len(files)), None)
            own = telling or map("_".join, parts)
            found |= {(file, name): f"{name}_{part}" for file, part in zip(files, own, strict=True)}
    return found
