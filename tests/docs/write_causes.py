"""What is generated from the causes: their part of docs/causes.md, and the ids that settings know.

python -m tests.docs.write_causes
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from pytest_overfit.diagnose.catalogue import FAMILIES, ids_of, sections
from pytest_overfit.two_view.diagnose.view_causes import FAMILY as TWO_VIEW

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "causes.md"
IDS = ROOT / "pytest_overfit" / "settings" / "cause_ids.py"
EVERY = (*FAMILIES, TWO_VIEW)
MARKED = re.compile(
    r"(?<=^<!-- causes: written by `python -m tests\.docs\.write_causes` -->\n).*(?=^<!-- end)", re.M | re.S
)
HEAD = '''"""The ids that a diagnosis may name: stable, so that people filter and suppress by them.

Written by `python -m tests.docs.write_causes`, so that settings need none of the rules.
"""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
'''
TAIL = """}  # fmt: skip
IDS: tuple[str, ...] = tuple(cause for ids in GROUPS.values() for cause in ids)
"""


def page(old: str) -> str:
    """docs/causes.md with its generated part written anew."""
    made, count = MARKED.subn(lambda match: f"\n{sections(EVERY)}\n\n", old)
    assert count == 1
    return made


def listed(groups: Mapping[str, tuple[str, ...]]) -> str:
    """The module of ids."""
    lines = []
    for group, ids in groups.items():
        told = textwrap.wrap(", ".join(f'"{cause}"' for cause in ids), 111, break_on_hyphens=False)
        lines += [f'    "{group}": (', *(f"        {line}" for line in told[:-1]), f"        {told[-1]},", "    ),"]
    return HEAD + "".join(f"{line}\n" for line in lines) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    IDS.write_text(listed(ids_of(EVERY)), encoding="utf-8")
