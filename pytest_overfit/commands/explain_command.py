"""`pytest-overfit explain`: what the docs say of a cause or of a setting, without a network."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points

from pytest_overfit.diagnose.catalogue import FAMILIES, by_group
from pytest_overfit.diagnose.custom_rules import GROUP
from pytest_overfit.diagnose.family import HEADING, Family
from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.keywords import keys_of_a_config, table_of_settings
from pytest_overfit.settings.problems import did_you_mean
from pytest_overfit.text.failure import clipped

WIDEST = 100
VERBATIM = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def add_arguments(explain: argparse.ArgumentParser) -> None:
    """The arguments of ``pytest-overfit explain``."""
    about = "ids of causes, such as lr-low, or settings, such as max_steps (default: list all causes)"
    explain.add_argument("cause", nargs="*", metavar="NAME", help=about)
    explain.set_defaults(run=_explain)


def _explain(options: argparse.Namespace, _: argparse.ArgumentParser) -> int:
    families = (*FAMILIES, *_of_others())
    width = min(WIDEST, shutil.get_terminal_size().columns)
    if options.cause:
        print("\n\n".join(filled(explained(each, families), width) for each in options.cause))
    else:
        lines = listed(families)
        print("\n".join(clipped(line, width) if sys.stdout.isatty() else line for line in lines))
    return 0


def _of_others() -> list[Family]:
    from pytest_overfit.two_view.diagnose.view_causes import FAMILY as TWO_VIEW

    loaded = [point.load() for point in entry_points(group=GROUP)]
    return [TWO_VIEW, *(each for each in loaded if isinstance(each, Family))]


def explained(cause: str, families: Iterable[Family]) -> str:
    """The section of one cause, or of one setting by its keyword or its key, as Markdown.

    Example:
        >>> print(explained("shop.rare-class", [Family("data", docs="### shop.rare-class\\n\\nA class is rare.")]))
        ### shop.rare-class
        <BLANKLINE>
        A class is rare.

    Raises:
        OverfitError: there is no such thing; the nearest one is named.
    """
    sections = {**settings_sections(), **sections_of(families)}
    if cause not in sections:
        found = f"there is no cause and no setting {cause!r}"
        allowed = "one that `pytest-overfit explain` lists, or a keyword of `overfit(...)`"
        raise OverfitError(found, allowed=allowed, hint=did_you_mean(cause, sections))
    return sections[cause]


def settings_sections() -> Mapping[str, str]:
    """What each setting takes, by its keyword and by its key in a config."""
    sections: dict[str, str] = {}
    for row in (*table_of_settings(), *keys_of_a_config()):
        ways = [f"`{row.name}=`" if row.name else "", f"`overfit.{row.key}` in a config", f"`{row.option}`"]
        told = "\n".join([
            f"- **Takes**: {row.kind}",
            f"- **Default**: {row.default}; under a config {row.in_config}",
            f"- **Set by**: {', '.join(way for way in ways if way.strip('`'))}",
        ])  # fmt: skip
        for name in filter(None, (row.name, row.key)):
            sections.setdefault(name, f"### {name}\n\n{row.help[:1].upper()}{row.help[1:]}.\n\n{told}")
    return sections


def sections_of(families: Iterable[Family]) -> Mapping[str, str]:
    """The Markdown of every cause by its id, in the order of the docs."""
    sections: dict[str, str] = {}
    for members in by_group(families).values():
        for family in members:
            _, *parts = HEADING.split(family.docs)
            for cause, text in zip(parts[::2], parts[1::2], strict=True):
                sections[cause] = f"### {cause}\n\n{text.strip()}"
    return sections


def listed(families: Iterable[Family]) -> list[str]:
    """A line per cause, its id and its first sentence, group by group."""
    families = list(families)
    sections, lines = sections_of(families), list[str]()
    widest = max(map(len, sections), default=0)
    for group, members in by_group(families).items():
        lines += [*([""] if lines else []), group]
        for cause in (cause for family in members for cause in family.ids):
            sentence = " ".join(sections[cause].split("\n\n")[1].split())
            lines.append(f"  {cause.ljust(widest)}  {sentence}")
    return lines


def filled(markdown: str, width: int) -> str:
    """Paragraphs and list items as wide as the terminal; code as it is."""
    return "".join(
        part if part.startswith("```") else "\n\n".join(_paragraph(each, width) for each in part.split("\n\n"))
        for part in VERBATIM.split(markdown)
    )


def _paragraph(text: str, width: int) -> str:
    if not text.strip():
        return text
    lines = re.split(r"\n(?=- )", text.strip("\n"))
    wrapped = [textwrap.fill(" ".join(each.split()), width, subsequent_indent="  " * each.startswith("- "),
                             break_long_words=False, break_on_hyphens=False) for each in lines]  # fmt: skip
    before, after = "\n" * text.startswith("\n"), "\n" * text.endswith("\n")
    return before + "\n".join(wrapped) + after
