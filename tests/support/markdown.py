"""Markdown as a viewer reads it: tables as cells, and a check that nothing in it does more than show text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

ALLOWED = {
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "fence"),
    *("bullet_list_open", "bullet_list_close", "ordered_list_open", "ordered_list_close"),
    *("list_item_open", "list_item_close", "text", "text_special", "softbreak", "code_inline", "strong_open"),
    *("strong_close", "table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close"),
    *("tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close"),
}


FOLDED = re.compile(r"<details><summary>\d+ of \d+ criteria hold</summary>\n|</details>\n")


def parse(source: str) -> list[Token]:
    """Tokens of GitHub's dialect, HTML and strikethrough included."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(source)


def shown(token: Token) -> str:
    """What an inline token shows."""
    return "".join("\n" if child.type == "softbreak" else child.content for child in token.children or ())


def headings(source: str) -> list[str]:
    """All headings, each with its level: ``## Loss``."""
    tokens = parse(source)
    return [
        f"{token.markup} {shown(tokens[place + 1])}"
        for place, token in enumerate(tokens)
        if token.type == "heading_open"
    ]


def items(source: str) -> list[str]:
    """The lines of all lists."""
    tokens = parse(source)
    return [shown(tokens[place + 2]) for place, token in enumerate(tokens) if token.type == "list_item_open"]


def blocks(source: str) -> list[tuple[str, str]]:
    """Language and text of all code blocks."""
    return [(token.info, token.content) for token in parse(source) if token.type == "fence"]


def tables(source: str) -> list[list[list[str]]]:
    """All tables as rows of what their cells show, the header first."""
    found: list[list[list[str]]] = []
    tokens = parse(source)
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(shown(tokens[place + 1]))
    return found


def assert_well_formed(source: str) -> None:
    """Every table row has as many cells as its header, and there is no HTML, link or picture."""
    lines, tokens = source.split("\n"), parse(source)
    folds = {id(token) for token in tokens if token.type == "html_block" and FOLDED.fullmatch(token.content)}
    used = {token.type for token in tokens if id(token) not in folds} | {
        child.type for token in tokens for child in token.children or ()
    }
    assert used <= ALLOWED
    covered: set[int] = set()
    for token in tokens:
        if token.type == "table_open" and token.map:
            counts = {len(_cells(lines[number])) for number in range(*token.map)}
            assert len(counts) == 1, lines[token.map[0] : token.map[1]]
            covered |= set(range(*token.map))
        elif token.type == "fence" and token.map:
            covered |= set(range(*token.map))
    # A broken table is no table at all: its lines are text.
    assert [line for number, line in enumerate(lines) if line.startswith("| ") and number not in covered] == []


def _cells(row: str) -> list[str]:
    return list(_split(row.strip().removeprefix("|").removesuffix("|")))


def _split(row: str) -> Iterator[str]:
    """At the pipes that are not escaped: a backslash that is itself escaped does not escape one."""
    yield from re.split(r"(?<!\\)(?:\\\\)*\|", row)


def values_of(source: str, place: int) -> dict[str, str]:
    """A table of two columns, without its header."""
    return {row[0]: row[1] for row in tables(source)[place][1:]}
