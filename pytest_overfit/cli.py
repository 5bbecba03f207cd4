"""The command `pytest-overfit`. Each of its verbs is a module of its own, imported where it is asked for."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points, version

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import nearest

ABOUT = "A first test, what a cause means, what this machine has; two-view pairs; reports written again."
GROUP = "pytest_overfit.commands"  # entry points of other packages: verb = module
# Verb -> (module, help). The module has ``add_arguments(parser)``, which sets the default ``run(options, parser)``.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("pytest_overfit.commands.init_command", "write a first test for the models of this repository"),
    "explain": ("pytest_overfit.commands.explain_command", "what a cause means, with an example and the fix"),
    "doctor": ("pytest_overfit.commands.doctor_command", "what this machine and this folder have for a run"),
    "pair": ("pytest_overfit.two_view.pair_command", "a two-view pair on disk"),
    "report": ("pytest_overfit.report.report_command", "write every form of a report again"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments).

    Example:
        >>> main(["pair", "create", "--render", "--output-root", "single_pair_data"])  # doctest: +SKIP
        0

    Returns:
        0 for success, 1 where a pair has a problem or cannot be read or written; usage errors exit with 2.
    """
    arguments = [_dashed(word) for word in (sys.argv[1:] if argv is None else argv)]
    parser = _parser(arguments)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options, parser))
    except OverfitError as error:
        print(f"pytest-overfit: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dashed(word: str) -> str:
    """`--source_root=x` as `--source-root=x`: both spellings are accepted."""
    return re.sub(r"^--[a-z][a-z_]*", lambda match: match[0].replace("_", "-"), word)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """All verbs by name and help; the arguments of the one that is asked for. A misspelt one ends here."""
    asked = next(iter(arguments), "-h")
    parser = argparse.ArgumentParser(prog="pytest-overfit", description=ABOUT, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pytest-overfit {version('pytest-overfit')}")
    theirs = entry_points(group=GROUP)
    commands = {**COMMANDS, **{point.name: (point.value, "") for point in theirs if point.name not in COMMANDS}}
    verbs = parser.add_subparsers(required=True, metavar="|".join(commands))
    if not asked.startswith("-") and asked not in commands and (meant := nearest(asked, commands)):
        line = shlex.join(["pytest-overfit", meant, *arguments[1:]])
        parser.error(f"invalid choice: {asked!r}; did you mean {meant}?\n  next: {line}")
    for name, (module, text) in commands.items():
        verb = verbs.add_parser(name, help=text or f"of {module.partition('.')[0]}", allow_abbrev=False)
        if name == asked:
            import_module(module).add_arguments(verb)
    return parser


if __name__ == "__main__":
    sys.exit(main())
