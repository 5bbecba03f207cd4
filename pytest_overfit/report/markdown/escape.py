"""Text of any origin as Markdown that shows it and does nothing else: no HTML, no links, no cells of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST = 600  # characters of one text; the record has all of it

# A sign is escaped only where Markdown would read it, so that the source stays readable.
_ALWAYS = re.compile(r"[\\`*\[\]|~$]")
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#|[A-Za-z])")
_HASH = re.compile(r"(?:^|(?<=\s))#")
_BLOCK = re.compile(r"^(?:[-+=>]|\d+(?=[.)]))")
_QUOTED = r"""(?:'[^']*'|"[^"]*")"""
# A call, or a keyword with a list, a mapping or a text: what stands in a sentence to be pasted.
_CODE = re.compile(rf"""[\w.]*\w(?:\((?:[^()]|\([^()]*\))*\)|=(?:\[[^\[\]]*\]|\{{[^{{}}]*\}}|{_QUOTED}))""")
_PIPE = re.compile(r"\\*\|")


def plain(value: str, *, most: int = LONGEST) -> str:
    """One line without signs that cannot be seen, cut at ``most`` characters.

    Example:
        >>> plain("a\\n  b\\x1b[31m")
        'a b [31m'
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in value).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def text(value: str, *, most: int = LONGEST) -> str:
    """What may stand in a cell, or inside of a line.

    Example:
        >>> text("loss_camera < 0.001 | <script> *aggregator*")
        'loss_camera < 0.001 \\\\| &lt;script> \\\\*aggregator\\\\*'
    """
    return _escaped(plain(value, most=most))


def _escaped(shown: str) -> str:
    line = _ENTITY.sub("&amp;", shown)
    line = _ALWAYS.sub(r"\\\g<0>", line)
    line = _UNDERSCORE.sub(r"\\_", line)
    line = _TAG.sub("&lt;", line)
    return _HASH.sub(r"\\#", line)


def line(value: str, *, most: int = LONGEST) -> str:
    """What may begin a line: a leading dash or number makes no list of it.

    Example:
        >>> line("1. not a list"), line("- nor this")
        ('1\\\\. not a list', '\\\\- nor this')
    """
    escaped = text(value, most=most)
    begins = _BLOCK.match(escaped)
    if begins is None:
        return escaped
    number, rest = begins[0], escaped[begins.end() :]
    return f"{number}\\{rest}" if number.isdigit() else f"\\{escaped}"


def prose(value: str, *, most: int = LONGEST) -> str:
    """A sentence in which what is to be pasted is code, and stands there as it is typed.

    Example:
        >>> print(prose('return the *mean*; where it is meant, allow=["broadcast"]'))
        return the \\*mean\\*; where it is meant, `allow=["broadcast"]`
    """
    shown, parts, end = plain(value, most=most), list[str](), 0
    for found in _CODE.finditer(shown):
        parts += [_escaped(shown[end : found.start()]), code(found[0], most=most)]
        end = found.end()
    return "".join([*parts, _escaped(shown[end:])])


def code(value: str, *, most: int = LONGEST) -> str:
    """A code span that also fits into a cell; an empty one is a dash, since Markdown has no empty span.

    Example:
        >>> code("a|b"), code("a`b")
        ('`a\\\\|b`', '``a`b``')
    """
    shown = plain(value, most=most)
    if not shown:
        return "-"
    # In a cell a pipe loses one backslash before it, and a second one would end the cell.
    shown = _PIPE.sub(lambda run: "\\|", shown)
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    padding = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def block(value: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks in it.

    Example:
        >>> print(block("a = 1", "python"))
        ```python
        a = 1
        ```
    """
    shown = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in value)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table of cells that are Markdown already; columns in ``right`` are aligned to the right.

    Example:
        >>> print(table(["step", "loss"], [["1", "0.5"]], right=[1]))
        | step | loss |
        | --- | ---: |
        | 1 | 0.5 |
    """
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
